"""The plan of an index run: the model of `grafp plan`, lengths from headers, prices."""

from pathlib import Path

import pytest

from grafp import rates
from grafp.audio import declared_seconds, encode, synthesis
from grafp.audio.formats import COMMON
from grafp.catalog.changes import find_changes, listing_of
from grafp.catalog.tracks import TRACK_SCHEMA
from grafp.index.size import AUTOMATIC
from grafp.sizing import Case, plan
from grafp.storage.sources import list_items
from pipelines.common.work import Encoders
from pipelines.indexing.durations import audio_seconds
from pipelines.indexing.flow import index_catalog
from pipelines.indexing.planned import NO_PRICES, Prices, planned, told

SECONDS = 12.0


@pytest.fixture(scope="module")
def sound() -> dict[str, bytes]:
    piece_S = synthesis.piece(3, SECONDS)
    return {extension: encode(piece_S, extension[1:]) for extension in COMMON}


@pytest.mark.parametrize("extension", COMMON)
def test_a_header_tells_the_length_and_no_beginning_tells_another(
    sound: dict[str, bytes], extension: str
) -> None:
    data = sound[extension]
    assert declared_seconds(data, len(data)) == pytest.approx(SECONDS, abs=0.2)
    beginning = declared_seconds(data[: 1 << 14], len(data))
    assert beginning is None or beginning == pytest.approx(SECONDS, abs=0.2)
    assert (beginning is None) == (extension in (".ogg", ".opus", ".m4a"))


def test_lengths_are_measured_by_extension(sound: dict[str, bytes], tmp_path: Path) -> None:
    """Files of no common bit rate, among them one that is no audio, and one that is named only."""
    for extension, data in sound.items():
        for number in range(3):
            (tmp_path / f"{number}{extension}").write_bytes(data)
    (tmp_path / "broken.flac").write_bytes(b"this is not music")
    listing = listing_of(list_items(str(tmp_path)))
    found = audio_seconds(find_changes(listing, TRACK_SCHEMA.empty_table(), "music"))
    assert found == pytest.approx(3 * len(sound) * SECONDS, rel=0.01)


def test_it_is_the_plan_that_the_command_prints() -> None:
    prices, case = Prices(0.5, 0.02), Case(1e5, price_node_hour=0.5, price_gb_month=0.02)
    found = planned(100_000, 100_000 * 210.0, 0.1, AUTOMATIC, None, Encoders(48), prices)
    whole = plan(case)
    assert found["hours"] == pytest.approx(whole.elapsed_hours["build"], abs=1e-3)
    assert found["stored_mb"] == pytest.approx(1000 * sum(whole.storage_gb.values()), rel=1e-6)
    assert found["core_hours"].keys() == whole.build_hours.keys()
    assert found["cost"] == {
        name: round(whole.cost[name], 2) for name in ("build", "storage a month")
    }
    lines = told(found)
    assert "with 48 encoders" in lines
    assert f"cost: build {whole.cost['build']:.2f}" in lines
    assert found["plan"].startswith("grafp plan --tracks 100000 --minutes 3.50 --hop 0.1")
    free = planned(100_000, 100_000 * 210.0, 0.1, AUTOMATIC, None, Encoders(48), NO_PRICES)
    assert "cost" not in told(free)


@pytest.mark.slow
def test_a_first_run_takes_the_storage_that_was_planned(tmp_path: Path) -> None:
    """With the model, which is most of a small catalog, and without."""
    (tmp_path / "music").mkdir()
    for number in range(40):
        data = encode(synthesis.piece(number, 30.0), "mp3")
        (tmp_path / "music" / f"{number}.mp3").write_bytes(data)
    root = tmp_path / "catalog"
    summary = index_catalog(str(tmp_path / "music"), str(root), encoders=Encoders(0))
    assert summary["stored_mb"] == pytest.approx(summary["planned_stored_mb"], rel=0.05)
    model = sum(path.stat().st_size for path in (root / "models").rglob("*") if path.is_file())
    assert model == pytest.approx(rates.MODEL_FILES, rel=0.01)
    stored, expected = (summary[name] - model / 1e6 for name in ("stored_mb", "planned_stored_mb"))
    assert stored == pytest.approx(expected, rel=0.05)
    files = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert files / 1e6 == pytest.approx(summary["stored_mb"], abs=0.1)  # reports and manifests
