"""Manifests: read back as written, other versions and damage refused."""

import json
from dataclasses import replace

import pytest

from grafp.catalog.manifest import (
    FORMAT_VERSION,
    Layer,
    Manifest,
    ShardEntry,
    StoredFile,
    index_health,
)
from grafp.errors import CatalogError
from grafp.index.calibration import Calibration, Law, LengthCalibration
from grafp.index.size import IndexOptions, IndexParameters


def stored(name: str) -> StoredFile:
    return StoredFile(f"index/sqfp16-1/{name}", 7, "ab" * 32)


SHARD = ShardEntry(
    shard_id="s1",
    codes=stored("s1.codes.parquet"),
    first_list=0,
    after_list=1,
    fingerprints=100,
    imbalance=1.5,
    recall=0.98,
)
MANIFEST = Manifest(
    snapshot="two",
    parent="one",
    created="2026-11-24T00:00:00+00:00",
    model_id="small-1",
    model_sha256="cd" * 32,
    hop_s=0.1,
    trained_index=stored("trained.faiss"),
    parameters=IndexParameters(1, "SQfp16", 1, 100),
    when_trained={"recall": 0.99, "imbalance": 1.4},
    layers=[Layer([SHARD], stored("a.tracks.parquet"))],
    tracks=StoredFile("snapshots/two.tracks.parquet", 9, "ef" * 32),
    positions=StoredFile("snapshots/two.positions.parquet", 9, "ef" * 32),
    gone=StoredFile("snapshots/two.gone.parquet", 9, "ef" * 32),
    next_ordinal=3,
    counts={"tracks": 3},
    calibration=Calibration(
        100, 0, {"1": LengthCalibration(Law(0.1, 0.03), 200, {"0.001": (0.0004, 0.002)})}
    ),
)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.from_json(MANIFEST.to_json(), "m") == MANIFEST
    assert ShardEntry.from_json(SHARD.to_json(), "s") == SHARD
    empty = replace(MANIFEST, trained_index=None, parameters=None, when_trained=None, layers=[])
    assert Manifest.from_json(empty.to_json(), "m") == empty


def test_options_of_the_index_decide_how_it_is_searched() -> None:
    asked = IndexOptions(codec="PQ64", lists=256, probes=3, neighbors=20, candidates=100)
    manifest = Manifest.from_json(replace(MANIFEST, index_options=asked).to_json(), "m")
    assert manifest.index_options == asked
    assert (manifest.effort.lists, manifest.neighbors, manifest.candidates) == (3, 20, 100)


@pytest.mark.parametrize("version", [2, 5, 99])
def test_another_version_is_one_clear_line(version: int) -> None:
    values = json.loads(MANIFEST.to_json()) | {"format_version": version}
    with pytest.raises(CatalogError) as refused:
        Manifest.from_json(json.dumps(values).encode(), "snapshots/two.json")
    told = f"catalog format {version}; this version reads format {FORMAT_VERSION}"
    assert str(refused.value).startswith(f"snapshots/two.json: {told}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layers": 3}, "layers"),
        ({"tracks": {"key": "k"}}, "tracks.bytes"),
        ({"hop_s": "a tenth"}, "hop_s"),
        ({"index_options": {"neighbors": "many"}}, "index_options.neighbors"),
        ({"index_options": {"codec": "PQ7"}}, "codec PQ7"),
        (
            {"trained_index": stored("x").__dict__ | {"key": "index/other/x"}},
            "another trained index",
        ),
    ],
)
def test_damage_is_named(change: dict, told: str) -> None:
    values = json.loads(MANIFEST.to_json()) | change
    with pytest.raises(CatalogError, match=told) as refused:
        Manifest.from_json(json.dumps(values).encode(), "m")
    assert "\n" not in str(refused.value)


def test_health_is_a_mean_over_the_fingerprints() -> None:
    other = replace(SHARD, fingerprints=300, recall=0.9, imbalance=2.5)
    assert index_health([SHARD, other]) == {"recall": 0.92, "imbalance": 2.25}
    assert index_health([]) == {}
