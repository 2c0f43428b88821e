"""Manifests: read back as written, older names understood, other versions and damage refused."""

import json
from dataclasses import replace

import pytest

from grafp.catalog.manifest import FORMAT_VERSION, Manifest, ShardEntry, StoredFile, index_health
from grafp.errors import CatalogError
from grafp.index.calibration import Calibration, Law, LengthCalibration
from grafp.index.size import IndexOptions, IndexParameters


def stored(name: str) -> StoredFile:
    return StoredFile(f"index/sqfp16-1/{name}", 7, "ab" * 32)


SHARD = ShardEntry(
    shard_id="s1",
    index=stored("s1.faiss"),
    vectors=stored("s1.vectors"),
    tracks=stored("s1.tracks.parquet"),
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
    shards=[SHARD],
    tracks=StoredFile("snapshots/two.tracks.parquet", 9, "ef" * 32),
    next_ordinal=3,
    counts={"tracks": 3},
    calibration=Calibration(
        100, 0, {"1": LengthCalibration(Law(0.1, 0.03), 200, {"0.001": (0.0004, 0.002)})}
    ),
)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.from_json(MANIFEST.to_json(), "m") == MANIFEST
    assert ShardEntry.from_json(SHARD.to_json(), "s") == SHARD
    empty = replace(MANIFEST, trained_index=None, parameters=None, when_trained=None, shards=[])
    assert Manifest.from_json(empty.to_json(), "m") == empty


@pytest.mark.parametrize("version", [3, 4])
def test_a_manifest_of_an_older_format_is_read_without_its_thresholds(version: int) -> None:
    values = json.loads(MANIFEST.to_json()) | {"format_version": version}
    values["calibration"] = {"excerpts": 9, "fingerprints": 9, "thresholds": {"1": {"0.1": 0.8}}}
    if version == 3:
        values |= {"template": values.pop("trained_index")}
        values["when_trained"]["canary"] = values["when_trained"].pop("recall")
        for shard in values["shards"]:
            shard["canary"] = shard.pop("recall")
    read = Manifest.from_json(json.dumps(values).encode(), "m")
    assert read == replace(MANIFEST, calibration=None)


def test_a_manifest_without_options_of_the_index_has_todays_defaults() -> None:
    values = json.loads(MANIFEST.to_json())
    del values["index_options"]
    for version in (3, 4):
        old = Manifest.from_json(json.dumps(values | {"format_version": version}).encode(), "m")
        assert (old.nprobe, old.neighbors, old.candidates) == (1, 40, 64)
        assert old == replace(MANIFEST, calibration=None)


def test_options_of_the_index_decide_how_it_is_searched() -> None:
    asked = IndexOptions(codec="PQ64", lists=256, probes=3, neighbors=20, candidates=100)
    manifest = Manifest.from_json(replace(MANIFEST, index_options=asked).to_json(), "m")
    assert manifest.index_options == asked
    assert (manifest.nprobe, manifest.neighbors, manifest.candidates) == (3, 20, 100)


def test_another_version_is_one_clear_line() -> None:
    values = json.loads(MANIFEST.to_json()) | {"format_version": 2}
    with pytest.raises(CatalogError) as refused:
        Manifest.from_json(json.dumps(values).encode(), "snapshots/two.json")
    told = f"snapshots/two.json: catalog format 2; this version reads format {FORMAT_VERSION}"
    assert str(refused.value) == told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shards": 3}, "shards"),
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
