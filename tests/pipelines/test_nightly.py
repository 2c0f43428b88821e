"""Nights of a catalog: new work only, copies, withdrawal, compaction, rollback, clean-up."""

import csv
import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.catalog.tracks import live_refs
from grafp.errors import CatalogError, OptionError, StorageError
from grafp.storage.sources import list_items
from pipelines.common import cli, logs
from pipelines.common.work import Encoders
from pipelines.indexing import duplicates, maintain, upkeep
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import index_catalog as index_job
from pipelines.jobs import merge_index
from pipelines.querying.flow import query_batch

index = functools.partial(index_catalog, encoders=Encoders(0))
pytestmark = pytest.mark.usefixtures("ray_here")


def write_music(uri: str, seeds: range, seconds: float = 5.0) -> str:
    for seed in seeds:
        data = encode(synthesis.piece(seed, seconds), "wav")
        storage.write(storage.join(uri, f"{seed}.wav"), data)
    return uri


def matches(root: str, folder: Path, seeds: list[int]) -> dict[str, list[str]]:
    """The tracks that match excerpts of pieces, by piece."""
    for seed in seeds:
        excerpt = synthesis.piece(seed, 5.0)[16_000:64_000]
        storage.write(f"{folder}/{seed}.flac", encode(excerpt, "flac"))
    _, table = query_batch(root, str(folder), f"{folder}-answers", min_score=0.9)
    found: dict[str, list[str]] = {Path(q).stem: [] for q in table["query"].to_pylist()}
    for row in table.to_pylist():
        if row["matched"]:
            found[Path(row["query"]).stem].append(Path(row["track"]).name)
    return found


def manifest_of(root: str) -> Manifest:
    manifest = Catalog.open_published(root).manifest
    assert manifest is not None
    return manifest


@pytest.mark.slow
def test_the_second_night_embeds_only_what_is_new(long_store: str, tmp_path: Path) -> None:
    audio, root = write_music(f"{long_store}/music", range(20, 32)), f"{long_store}/catalog"
    first = index(audio, root)
    before = manifest_of(root)
    write_music(audio, range(32, 34))
    storage.write(f"{audio}/20.wav", encode(synthesis.piece(100, 5.0), "wav"))
    storage.delete(f"{audio}/21.wav")
    storage.write(f"{audio}/22.wav", storage.read(f"{audio}/22.wav"))
    touched = int(not long_store.startswith("s3://"))  # S3's etag is a hash: nothing changed there
    storage.write(f"{audio}/broken.wav", b"RIFF of nothing")
    second = index(audio, root)
    assert [second[key] for key in ("added", "changed", "withdrawn", "failed")] == [
        3,
        1 + touched,
        1,
        1,
    ]
    assert second["embedded"] == 3 + touched  # a touched file is known by its content
    assert second["fingerprints"] - first["fingerprints"] == 41
    after = manifest_of(root)
    assert after.trained_index == before.trained_index
    assert after.layers[0] == before.layers[0]
    assert maintain.verify(root)["damaged"] == 0
    assert matches(root, tmp_path / "queries", [20, 21, 22, 32, 100]) == {
        "20": [], "21": [], "22": ["22.wav"], "32": ["32.wav"], "100": ["20.wav"],
    }  # fmt: skip
    run = storage.join(root, "runs", second["snapshot"])
    assert json.loads(storage.read(f"{run}/summary.json"))["embedded"] == 3 + touched
    page = storage.read(f"{run}/report.html").decode()
    assert "broken.wav" in page
    assert first["snapshot"] in page


@pytest.mark.slow
def test_copies_share_fingerprints_and_are_all_answers(long_store: str, tmp_path: Path) -> None:
    audio, root = write_music(f"{long_store}/music", range(3)), f"{long_store}/catalog"
    storage.write(f"{audio}/0 again.wav", storage.read(f"{audio}/0.wav"))
    first = index(audio, root)
    assert (first["tracks"], first["fingerprints"]) == (4, 3 * 41)
    assert matches(root, tmp_path / "q1", [0]) == {"0": ["0 again.wav", "0.wav"]}
    storage.write(f"{audio}/0 moved.wav", storage.read(f"{audio}/0 again.wav"))
    for name in ("0 again.wav", "0.wav"):
        storage.delete(f"{audio}/{name}")
    second = index(audio, root)
    assert (second["tracks"], second["fingerprints"]) == (3, 3 * 41)
    assert matches(root, tmp_path / "q2", [0]) == {"0": ["0 moved.wav"]}
    assert maintain.verify(root)["damaged"] == 0


@pytest.mark.slow
def test_another_encoding_of_a_recording_is_reported(long_store: str) -> None:
    audio, root = write_music(f"{long_store}/music", range(3), 12.0), f"{long_store}/catalog"
    storage.write(f"{audio}/0.mp3", encode(synthesis.piece(0, 12.0), "mp3"))
    summary = index(audio, root)
    data = storage.read(f"{root}/runs/{summary['snapshot']}/duplicates.parquet")
    table = pq.read_table(io.BytesIO(data))
    pairs = {(Path(r["track"]).name, Path(r["same_as"]).name) for r in table.to_pylist()}
    assert pairs == {("0.mp3", "0.wav"), ("0.wav", "0.mp3")}
    starts = np.array([table["track_start_s"], table["same_as_start_s"]])
    assert np.abs(starts[0] - starts[1]).max() < 0.1
    assert (summary["near_duplicates"], summary["near_duplicates_looked_for"]) == (2, 4)


def test_near_duplicates_may_be_looked_for_in_part_or_not_at_all(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, root = write_music(f"{store}/music", range(5)), f"{store}/catalog"
    items = list_items(audio)
    some = index(items[:3], root, near_duplicates=2)
    assert (some["near_duplicates"], some["near_duplicates_looked_for"]) == (0, 2)
    assert 0 < some["encoding_seconds"] < some["seconds"]
    catalog = Catalog.open_published(root)
    assert catalog.manifest is not None
    new = list(live_refs(catalog.tracks()).values())
    look = functools.partial(
        duplicates.find_near_duplicates, catalog, catalog.manifest, catalog.tracks(), new
    )
    assert look().looked_for == 3
    monkeypatch.setattr(duplicates, "_LEAST_S", -3600.0)  # the time for it was over an hour ago
    late = look(encoding_s=-36_000.0)
    assert late.looked_for == 0
    assert late.told()["near_duplicates"] is None
    assert look(2, encoding_s=-36_000.0).looked_for == 2  # as asked, however long it takes
    none = index(items, root, near_duplicates=0)
    assert (none["embedded"], none["near_duplicates"]) == (2, None)
    assert none["near_duplicates_looked_for"] == 0
    report = storage.read(f"{root}/runs/{none['snapshot']}/report.html").decode()
    assert "0 of 2 new tracks were looked for" in report


@pytest.mark.slow
def test_a_dead_runs_work_is_used(long_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, root = write_music(f"{long_store}/music", range(5)), f"{long_store}/catalog"

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            index(audio, root)
    with pytest.raises(CatalogError, match="no catalog here"):
        Catalog.open_published(root)
    storage.write(f"{audio}/3.wav", encode(synthesis.piece(50, 5.0), "wav"))  # changed since
    summary = index(audio, root)
    assert (summary["embedded"], summary["resumed"]) == (5, 4)
    storage.write(f"{audio}/3.wav", encode(synthesis.piece(3, 5.0), "wav"))
    assert index(audio, root)["embedded"] == 1
    assert maintain.verify(root)["damaged"] == 0


@pytest.mark.slow
def test_the_same_music_makes_the_same_shards(long_store: str) -> None:
    audio = write_music(f"{long_store}/music", range(4))
    one, two = f"{long_store}/one", f"{long_store}/two"
    index(audio, one)
    index(audio, two, encoders=Encoders(2))
    assert manifest_of(one).layers == manifest_of(two).layers
    assert manifest_of(one).trained_index == manifest_of(two).trained_index


@pytest.mark.slow
def test_removed_by_name_stays_removed(
    long_store: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    audio, root = write_music(f"{long_store}/music", range(4)), f"{long_store}/catalog"
    index(audio, root)
    snapshot = manifest_of(root).snapshot
    names = tmp_path / "remove.txt"
    for text, reason in {
        "nothing.wav": "not in the catalog",
        "twice": "removed already",
    }.items():
        entries = [f"{audio}/1.wav"] * 2 if text == "twice" else [f"{audio}/1.wav", text]
        names.write_text("\n".join(entries))
        with pytest.raises(OptionError, match=f"entry 2: .*{reason}"):
            maintain.maintain(root, remove=str(names))
        assert manifest_of(root).snapshot == snapshot
    names.write_text(f"{audio}/1.wav\n")
    chosen = merge_index.options(["--catalog", root, "--remove", str(names)])
    assert cli.run(merge_index.main, chosen) == cli.DONE
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["removed"], summary["tracks"]) == (1, 3)
    storage.write(f"{audio}/1.wav", encode(synthesis.piece(1, 5.0), "flac"))
    again = index(audio, root)
    assert (again["added"], again["changed"], again["withdrawn"]) == (0, 0, 0)
    assert matches(root, tmp_path / "queries", [0, 1]) == {"0": ["0.wav"], "1": []}
    maintain.maintain(root, compact=True)
    assert manifest_of(root).shards[0].fingerprints == 3 * 41
    assert maintain.rollback(root, snapshot)["tracks"] == 4
    assert matches(root, tmp_path / "queries2", [1]) == {"1": ["1.wav"]}


@pytest.mark.slow
def test_layers_are_merged_and_answers_stay(
    long_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "MAX_LAYERS", 2)
    monkeypatch.setattr(upkeep, "MAX_ADDED", 0.5)
    audio, root = f"{long_store}/music", f"{long_store}/catalog"
    counts = []
    for seeds in (range(3), range(3, 4), range(4, 5), range(5, 6)):
        index(write_music(audio, seeds), root)
        counts.append(len(manifest_of(root).layers))
    assert counts == [1, 2, 2, 1]  # two later layers become one; three tracks beside three, all
    assert maintain.maintain(root, compact=True)["shards"] == 1
    assert maintain.maintain(root)["shards"] == 1
    expected = {str(seed): [f"{seed}.wav"] for seed in range(6)}
    assert matches(root, tmp_path / "q1", list(range(6))) == expected
    trained = manifest_of(root).trained_index
    maintain.maintain(root, retrain=True)
    assert manifest_of(root).trained_index != trained
    assert matches(root, tmp_path / "q2", list(range(6))) == expected
    assert maintain.verify(root)["damaged"] == 0


@pytest.mark.slow
def test_clean_up_spares_what_snapshots_and_young_runs_need(long_store: str) -> None:
    audio, root = f"{long_store}/music", f"{long_store}/catalog"
    for seed in range(3):
        index(write_music(audio, range(seed, seed + 1)), root)
    storage.write(f"{root}/embeddings/x/dead/1.parquet", b"of a dead run")
    kept = maintain.clean_up(root, keep_snapshots=2, grace_hours=1.0)
    assert kept["removed_files"] == 0
    tried = maintain.clean_up(root, keep_snapshots=2, grace_hours=0.0, dry_run=True)
    done = maintain.clean_up(root, keep_snapshots=2, grace_hours=0.0)
    assert (
        done["removed_files"] == tried["removed_files"] == 5
    )  # manifest, its three tables, the leftover
    assert maintain.verify(root)["damaged"] == 0
    parent = manifest_of(root).parent
    assert parent is not None
    maintain.rollback(root, parent)
    assert maintain.verify(root)["damaged"] == 0


@pytest.mark.slow
def test_a_clean_up_that_dies_leaves_no_record_of_half_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, root = f"{tmp_path}/music", f"{tmp_path}/catalog"
    index(write_music(audio, range(1)), root)
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "publish", lambda *_: None)
        index(write_music(audio, range(1, 2)), root)

    def delete_and_die(uri: str) -> None:
        os.unlink(uri)
        raise KeyboardInterrupt

    left = [file.uri for file in storage.list_files(f"{root}/index")]
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "delete", delete_and_die)
            try:
                maintain.clean_up(root, keep_snapshots=1, grace_hours=0.0)
            except KeyboardInterrupt:
                pass
            else:
                break
        now = {file.uri for file in storage.list_files(f"{root}/index")}
        for record in (uri for uri in now if uri.endswith(".json")):
            assert record.replace(".json", ".codes.parquet") in now
    assert len(left) - len(now) == 3  # codes, their record, the table of a layer
    assert index(audio, root)["tracks"] == 2
    assert maintain.verify(root)["damaged"] == 0


def test_damage_is_named(
    long_store: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else a retraining finds its result there.
    monkeypatch.setattr("grafp.catalog.catalog.REUSE_SECONDS", 0)
    root = f"{long_store}/catalog"
    index(write_music(f"{long_store}/music", range(2)), root)
    assert maintain.verify(root)["damaged"] == 0
    files = [file.uri for file in storage.list_files(root)]
    for kind in (
        ".codes.parquet", "trained.faiss", ".tracks.parquet", ".positions.parquet", "/card.json",
        "/embeddings/",
    ):  # fmt: skip
        victim = next(uri for uri in files if kind in uri)
        whole = storage.read(victim)
        middle = len(whole) // 2
        for damage in (whole[:middle], whole[:middle] + b"?!?" + whole[middle + 3 :]):
            storage.write(victim, damage)
            chosen = merge_index.options(["--catalog", root, "--verify"])
            assert cli.run(merge_index.main, chosen) == cli.FAILED
            name = "models/small" if "/models/" in victim else Path(victim).name.split(".")[0]
            assert name in capsys.readouterr().out
        if kind == "/embeddings/":
            chosen = merge_index.options(["--catalog", root, "--retrain"])
            assert cli.run(merge_index.main, chosen) == cli.FAILED
            assert capsys.readouterr().err.startswith(f"error: {victim}: a damaged embedding file")
        storage.delete(victim)
        assert maintain.verify(root)["damaged"] == 1
        storage.write(victim, whole)


def test_an_empty_collection_withdraws_nothing_unless_told(
    store: str, capsys: pytest.CaptureFixture
) -> None:
    audio, root = write_music(f"{store}/music", range(2)), f"{store}/catalog"
    index(audio, root)
    snapshot = manifest_of(root).snapshot
    for file in storage.list_files(audio):
        storage.delete(file.uri)
    with pytest.raises((OptionError, StorageError)):
        index(audio, root)
    assert manifest_of(root).snapshot == snapshot
    chosen = index_job.options(["--audio", audio, "--catalog", root, "--allow-empty"])
    assert cli.run(index_job.main, chosen) == cli.DONE
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tracks"] == 0


def test_dry_run_estimates(store: str, capsys: pytest.CaptureFixture) -> None:
    logs.show()
    audio, root = write_music(f"{store}/music", range(2)), f"{store}/catalog"
    index(audio, root)
    write_music(audio, range(2, 5))
    estimate = index(audio, root, dry_run=True)["estimate"]
    assert estimate["fingerprints"] == 3 * 41  # by the headers of the files
    assert estimate["limited_by"] == "encode"
    done = index(audio, root)
    assert done["stored_mb"] > 0
    assert done["planned_core_hours"] == pytest.approx(
        sum(estimate["core_hours"].values()), rel=0.1
    )
    assert "3 added" in capsys.readouterr().out


@pytest.mark.slow
def test_two_runs_at_once_lose_nothing(long_store: str) -> None:
    import ray

    root = f"{long_store}/catalog"
    folders = [
        write_music(f"{long_store}/{name}", range(n, n + 2)) for n, name in ((0, "a"), (2, "b"))
    ]
    env = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    job = str(Path(__file__).parents[2] / "jobs" / "index_catalog.py")
    runs = [
        subprocess.Popen(
            [sys.executable, job, "--audio", folder, "--catalog", root],
            env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for folder in folders
    ]  # fmt: skip
    errors = [run.communicate()[1] for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes in ([0, 0], [0, 1]), errors
    if codes == [0, 1]:
        assert any("another run published meanwhile" in error for error in errors)
    for folder in folders:
        index(folder, root)
    rows = Catalog.open_published(root).tracks().to_pylist()
    assert [Path(row["uri"]).name for row in rows] == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert sorted(row["ordinal"] for row in rows) == [0, 1, 2, 3]
    assert maintain.verify(root)["damaged"] == 0


@pytest.mark.slow
def test_a_list_of_removals_may_be_a_table(long_store: str, tmp_path: Path) -> None:
    audio, root = write_music(f"{long_store}/music", range(2)), f"{long_store}/catalog"
    index(audio, root)
    with open(tmp_path / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([["uri", "why"], [f"{audio}/0.wav", "asked to"]])
    assert maintain.maintain(root, remove=str(tmp_path / "list.csv"))["removed"] == 1
    (tmp_path / "bad.csv").write_text("name\n0.wav\n")
    with pytest.raises(OptionError, match="column uri or path"):
        maintain.maintain(root, remove=str(tmp_path / "bad.csv"))


def test_retraining_mends_an_index_that_is_damaged(tmp_path: Path) -> None:
    root = f"{tmp_path}/catalog"
    index(write_music(f"{tmp_path}/music", range(60, 64)), root)
    whole = manifest_of(root)
    [layer] = whole.layers
    assert whole.trained_index
    for file in (whole.trained_index, layer.shards[0].codes, layer.tracks):
        path = Path(root, file.key)
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert maintain.verify(root)["damaged"] == 3
    maintain.maintain(root, retrain=True)
    assert maintain.verify(root)["damaged"] == 0
    assert manifest_of(root).layers == whole.layers  # the same files, byte for byte
