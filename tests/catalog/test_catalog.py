"""What is read of a catalog, and how often."""

from pathlib import Path
from typing import Any

import pytest

from grafp import storage
from grafp.catalog import Catalog, Manifest
from grafp.catalog.manifest import StoredFile
from grafp.catalog.tracks import TRACK_SCHEMA, tracks_to_bytes
from grafp.errors import CatalogError
from grafp.model.bundle import read_card


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Three tracks of which two are copies, one removed track, and the shipped model."""
    rows = [
        {**dict.fromkeys(TRACK_SCHEMA.names), "uri": uri, "ordinal": ordinal, "status": status}
        for uri, ordinal, status in [
            ("a", 0, "ok"), ("a again", 0, "ok"), ("b", 1, "ok"), ("c", 2, "removed"),
        ]
    ]  # fmt: skip
    card, root = read_card("small"), str(tmp_path)
    tracks = Catalog(root).put("snapshots/one.tracks.parquet", tracks_to_bytes(rows))
    made = Catalog(
        root,
        Manifest(
            "one",
            None,
            "",
            card.model_id,
            card.sha256,
            0.1,
            None,
            None,
            None,
            [],
            tracks,
            tracks,
            tracks,
            3,
            {},
        ),
    )
    made.put_model(card)
    return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    names: list[str] = []
    read = storage.read

    def spy(uri: str) -> bytes:
        names.append(Path(uri).name)
        return read(uri)

    monkeypatch.setattr(storage, "read", spy)
    return names


def test_the_weights_are_read_once_for_all_that_a_job_asks_of_the_card(
    catalog: Catalog, reads: list[str]
) -> None:
    correction_s = catalog.model().offset_correction_s
    assert catalog.model().offset_correction_s == correction_s
    assert catalog.acceptance().threshold(0.0, 5.0) == catalog.model().min_score(5.0)
    assert reads.count("weights.safetensors") == 1


def test_tracks_that_can_be_an_answer_need_three_columns(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    tracks = Catalog.tracks

    def spy(self: Catalog, *given: Any) -> Any:
        asked.append(given)
        return tracks(self, *given)

    monkeypatch.setattr(Catalog, "tracks", spy)
    assert catalog.live_tracks() == {0: ["a", "a again"], 1: ["b"]}
    assert asked == [(["ordinal", "uri", "status"],)]


def test_a_model_that_is_another_is_refused(catalog: Catalog) -> None:
    assert catalog.manifest
    uri = storage.join(catalog.model_uri(), "weights.safetensors")
    storage.write(uri, storage.read(uri)[:-1])
    with pytest.raises(CatalogError, match="not the model that made this catalog"):
        catalog.model()


def test_files_of_the_manifest_are_checked(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="damaged"):
        catalog.get(StoredFile("snapshots/one.tracks.parquet", 1, ""))
