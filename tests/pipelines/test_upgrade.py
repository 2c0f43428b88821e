"""Catalogs of earlier versions: refused with a way on, upgraded without audio, nothing lost."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import kills
import numpy as np
import pyarrow as pa
import pytest
import ray
from job_runs import run_job
from kills import Moment, content, start, wait_for

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import by_file, read_fingerprints, read_rows
from grafp.catalog.manifest import FORMAT_VERSION, Manifest, StoredFile
from grafp.catalog.opened import open_search
from grafp.catalog.tracks import live_refs
from grafp.errors import CatalogError
from grafp.index.alignment import find_matches
from grafp.index.size import IndexOptions
from grafp.model.background import FILE
from grafp.storage.tables import from_parquet, to_parquet
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing import maintain, upgrade
from pipelines.indexing.calibrate import calibrated
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import index_catalog as index_job
from pipelines.jobs import merge_index, query_batch

pytestmark = pytest.mark.usefixtures("ray_here")
JOBS = Path(__file__).parents[2] / "jobs"
OLD = "20261101T000000-0a0b0c"
ASKED = IndexOptions(neighbors=30, candidates=50)
REWRITTEN = Moment("rewritten", written=f"embeddings/*-format{FORMAT_VERSION}/*.parquet")


@pytest.fixture(scope="module")
def of_now(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """Three embedding files, with a copy, a failed track and a removed one, newly trained."""
    folder = tmp_path_factory.mktemp("upgrade")
    audio, root = folder / "music", folder / "catalog"
    for night in range(3):
        for seed in (2 * night, 2 * night + 1):
            storage.write(f"{audio}/{seed}.wav", encode(synthesis.piece(seed, 5.0), "wav"))
        if night == 1:
            storage.write(f"{audio}/broken.wav", b"RIFF of nothing")
            storage.write(f"{audio}/copy.wav", storage.read(f"{audio}/0.wav"))
        index_catalog(str(audio), str(root), index=ASKED, encoders=Encoders(0))
    storage.write(f"{folder}/removed.txt", f"{audio}/1.wav".encode())
    maintain.maintain(str(root), remove=f"{folder}/removed.txt", retrain=True, workers=0)
    return root


def old_catalog(of_now: Path, root: str, version: int = 5) -> str:
    """The same catalog as an earlier version wrote it; nothing looks into its shards any more."""
    catalog = Catalog.open_published(kills.copy(of_now, root))
    new, table = catalog.manifest, catalog.tracks()
    assert new
    texts = {pa.large_string(): pa.string()}
    table = table.cast(pa.schema([(f.name, texts.get(f.type, f.type)) for f in table.schema]))
    for info in storage.list_files(root):
        if "/embeddings/" in info.uri:
            compressed = to_parquet(from_parquet(storage.read(info.uri)), compression="zstd")
            storage.write(info.uri, compressed)
        elif "/index/" in info.uri or "/snapshots/" in info.uri:
            storage.delete(info.uri)
    if version == 3:
        names = {"removed": "withdrawn"}
        status = [names.get(name, name) for name in table["status"].to_pylist()]
        table = table.set_column(table.schema.get_field_index("status"), "status", [status])
    tracks = to_parquet(table.drop_columns(["embeddings_at"]))

    def put(name: str) -> dict:
        return asdict(catalog.put(f"index/sqfp16-old/{name}", name.encode()))

    names = {"index": "s1.faiss", "vectors": "s1.vectors", "tracks": "s1.tracks.parquet"}
    shard = {
        "shard_id": "s1", **{name: put(file) for name, file in names.items()},
        "fingerprints": new.counts["fingerprints"], "imbalance": 1.0,
        "canary" if version == 3 else "recall": 1.0,
    }  # fmt: skip
    put("s1.json")
    manifest = {
        "snapshot": OLD, "parent": None, "created": "2026-11-01T00:00:00+00:00",
        "model_id": new.model_id, "model_sha256": new.model_sha256, "hop_s": new.hop_s,
        "template" if version == 3 else "trained_index": put("trained.faiss"),
        "parameters": {"nlist": 1, "codec": "SQfp16", "nprobe": 1, "training_points": 9},
        "when_trained": {"canary" if version == 3 else "recall": 1.0, "imbalance": 1.0},
        "shards": [shard], "tracks": asdict(catalog.put(f"snapshots/{OLD}.tracks.parquet", tracks)),
        "next_ordinal": new.next_ordinal, "counts": new.counts, "calibration": None,
        **({"index_options": asdict(ASKED)} if version == 5 else {}), "format_version": version,
    }  # fmt: skip
    catalog.put(f"snapshots/{OLD}.json", json.dumps(manifest).encode())
    storage.write(f"{root}/CURRENT", f"{OLD}\n".encode())
    return root


@pytest.fixture
def root(of_now: Path, tmp_path: Path) -> str:
    return old_catalog(of_now, str(tmp_path / "catalog"))


def manifest_of(root: str) -> Manifest:
    manifest = Catalog.open_published(root).manifest
    assert manifest
    return manifest


def keys(root: str) -> set[str]:
    return {info.uri[len(root) + 1 :] for info in storage.list_files(root)}


def fingerprints(root: str) -> dict[int, np.ndarray]:
    """As embedding files have them, by ordinal."""
    refs = live_refs(Catalog.open_published(root).tracks().to_pylist())
    return {
        ref.ordinal: vectors_ND
        for file, group in by_file(refs.values()).items()
        for ref, vectors_ND in read_fingerprints(root, file, group)
    }


@pytest.mark.parametrize("version", [3, 4, 5])
def test_an_upgrade_keeps_all_that_a_catalog_has(
    version: int, of_now: Path, s3: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place = f"{s3}/{tmp_path.name}" if version == 4 else str(tmp_path / "catalog")
    root = old_catalog(of_now, place, version)
    before = {key: storage.read(f"{root}/{key}") for key in keys(root) - {"CURRENT"}}
    code, summary, _ = run_job(merge_index, capsys, "--catalog", root, "--upgrade")
    assert code == cli.DONE
    assert (summary["format_before"], summary["rewritten_files"]) == (version, 3)
    assert content(root) == content(str(of_now))  # tracks, index, codes and counts
    told = ("source", "attempts", "stored_as", "error", "size", "etag", "modified")
    tables = [Catalog.open_published(str(one)).tracks(list(told)) for one in (root, of_now)]
    assert tables[0].equals(tables[1])
    now, then = manifest_of(root), manifest_of(str(of_now))
    assert (now.parent, now.next_ordinal, now.model_sha256) == (
        OLD, then.next_ordinal, then.model_sha256
    )  # fmt: skip
    assert now.index_options == (ASKED if version == 5 else IndexOptions())
    exact = fingerprints(str(of_now))
    search = open_search(root, now)
    [tracks] = search.tracks
    for ordinal, vectors_ND in exact.items():
        first = tracks.first_rows_T[tracks.positions(np.array([ordinal]))[0]]
        rows = first + np.arange(len(vectors_ND))
        np.testing.assert_array_equal(tracks.vectors_ND[rows], vectors_ND.astype(np.float32))
    queries = [vectors_ND[5:25].astype(np.float32) for vectors_ND in exact.values()]
    assert [found[0].ordinal for found in find_matches(queries, search)] == list(exact)
    assert maintain.verify(root)["damaged"] == 0
    assert {key: storage.read(f"{root}/{key}") for key in before} == before
    files = keys(root)
    code, again, _ = run_job(merge_index, capsys, "--catalog", root, "--upgrade")
    assert (code, again["snapshot"], again["rewritten_files"]) == (cli.DONE, now.snapshot, 0)
    assert keys(root) == files


@pytest.mark.parametrize(
    ("job", "more"),
    [
        (merge_index, ()),
        (merge_index, ("--verify",)),
        (query_batch, ("--queries", "clips", "--out", "out")),
        (index_job, ("--audio", "music")),
    ],
)
def test_jobs_tell_how_an_old_catalog_is_upgraded(
    job, more: tuple, root: str, capsys: pytest.CaptureFixture
) -> None:
    files = storage.list_files(root)
    code, _, told = run_job(job, capsys, "--catalog", root, *more)
    assert code == cli.FAILED
    assert told == (
        f"error: {root}/snapshots/{OLD}.json: catalog format 5; this version reads format "
        f"{FORMAT_VERSION}; run `grafp merge --catalog URI --upgrade`, which needs no audio\n"
    )
    assert storage.list_files(root) == files


def test_the_old_snapshot_is_no_way_back_and_goes_when_it_is_old(
    root: str, capsys: pytest.CaptureFixture
) -> None:
    before = keys(root)
    upgrade.upgrade(root)
    current = manifest_of(root).snapshot
    code, _, told = run_job(merge_index, capsys, "--catalog", root, "--rollback", OLD)
    assert code == cli.FAILED
    reason = f"snapshot {OLD} is from before the upgrade (catalog format 5)"
    assert told.startswith(f"error: {root}: {reason}")
    assert told.count("\n") == 1
    assert manifest_of(root).snapshot == current
    kept = maintain.clean_up(root, keep_snapshots=2, grace_hours=0)
    assert kept["snapshots_kept"] == 2
    assert before - keys(root) == set()
    cleaned = maintain.clean_up(root, keep_snapshots=1, grace_hours=0)
    assert (cleaned["snapshots_kept"], cleaned["snapshots_not_kept"]) == (1, 1)
    left = before & keys(root)
    assert not [key for key in left if key.startswith(("index/", "snapshots/", "embeddings/"))]
    assert maintain.verify(root)["damaged"] == 0
    assert len(fingerprints(root)) == manifest_of(root).counts["tracks"] - 1  # and a copy


@pytest.mark.slow
def test_an_index_run_after_it_uses_no_file_of_the_earlier_version(
    root: str, of_now: Path, tmp_path: Path
) -> None:
    upgrade.upgrade(root)
    storage.write(f"{tmp_path}/more/9.wav", encode(synthesis.piece(9, 5.0), "wav"))
    summary = index_catalog(f"{tmp_path}/more", root, encoders=Encoders(0))
    assert (summary["added"], summary["resumed"]) == (1, 0)
    assert summary["tracks"] == manifest_of(str(of_now)).counts["tracks"] + 1
    old = [key for key in keys(root) if key.startswith("embeddings/") and "-format" not in key]
    assert [len(read_rows(root, key)) for key in sorted(old)].count(0) == 3


def test_a_later_maintenance_run_finds_nothing_due(root: str) -> None:
    upgraded = upgrade.upgrade(root)
    assert maintain.maintain(root)["snapshot"] == upgraded["snapshot"]


@pytest.mark.parametrize(
    "moment",
    [
        REWRITTEN,
        pytest.param(kills.PUBLISHING, marks=pytest.mark.slow),
        pytest.param(kills.POPULATING, marks=pytest.mark.slow),
        pytest.param(kills.TABLE, marks=pytest.mark.slow),
        pytest.param(kills.PUBLISHED, marks=pytest.mark.slow),
    ],
    ids=lambda moment: moment.name,
)
def test_a_killed_upgrade_is_continued(
    moment: Moment, root: str, of_now: Path, tmp_path: Path
) -> None:
    address = ray.get_runtime_context().gcs_address
    arguments = ("--catalog", root, "--upgrade")
    output = tmp_path / "output.txt"
    run = start(f"{JOBS}/merge_index.py", *arguments, output=output, RAY_ADDRESS=address)
    wait_for(moment, run, root, output)
    run.kill()
    run.communicate()
    finished = [info for info in storage.list_files(root) if "-format" in info.uri]
    assert finished
    published = storage.read(f"{root}/CURRENT").decode().strip()
    assert published == OLD or content(root) == content(str(of_now))
    upgrade.upgrade(root)
    assert set(finished) <= set(storage.list_files(root))  # not written again
    assert content(root) == content(str(of_now))
    assert kills.lost_and_doubled(root, content(str(of_now))) == (0, 0)
    assert maintain.verify(root)["damaged"] == 0


def flip(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)


def with_a_damaged_embedding_file(root: Path) -> str:
    file = min((root / "embeddings").rglob("*.parquet"))
    flip(file)
    return f"{file}: a damaged embedding file"


def without_an_embedding_file(root: Path) -> str:
    file = min((root / "embeddings").rglob("*.parquet"))
    file.unlink()
    return f"{file}: not found"


def with_a_damaged_track_table(root: Path) -> str:
    flip(root / f"snapshots/{OLD}.tracks.parquet")
    return "tracks.parquet: damaged"


def with_a_manifest_that_lacks_a_key(root: Path) -> str:
    file = root / f"snapshots/{OLD}.json"
    values = json.loads(file.read_text())
    del values["next_ordinal"]
    file.write_text(json.dumps(values))
    return f"{file}: damaged (next_ordinal: Field required)"


def with_another_model(root: Path) -> str:
    [weights] = (root / "models").rglob("weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    return "not the model that made this catalog"


@pytest.mark.parametrize(
    "damage",
    [
        with_a_damaged_embedding_file,
        without_an_embedding_file,
        with_a_damaged_track_table,
        with_a_manifest_that_lacks_a_key,
        with_another_model,
    ],
)
def test_damage_is_one_line_and_nothing_is_published(
    damage: Callable[[Path], str], root: str, capsys: pytest.CaptureFixture
) -> None:
    told = damage(Path(root))
    code, _, errors = run_job(merge_index, capsys, "--catalog", root, "--upgrade")
    assert code == cli.FAILED
    [line] = [line for line in errors.splitlines() if "(raylet)" not in line]
    assert line.startswith("error: ")
    assert told in line
    assert storage.read(f"{root}/CURRENT").decode().strip() == OLD


def test_a_run_that_published_meanwhile_wins(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish_another(*given) -> Manifest:
        storage.write(f"{root}/CURRENT", b"of another run\n")
        return calibrated(*given)

    monkeypatch.setattr("pipelines.indexing.upgrade.calibrated", publish_another)
    with pytest.raises(CatalogError, match="another run published meanwhile"):
        upgrade.upgrade(root)
    assert storage.read(f"{root}/CURRENT") == b"of another run\n"


def test_an_upgrade_calibrates_and_adds_the_background_of_a_shipped_model(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [background] = Path(root, "models").rglob(FILE)
    background.unlink()  # bundles had none
    monkeypatch.setattr("pipelines.indexing.calibrate.CLIPS", 40)
    upgrade.upgrade(root)
    manifest = manifest_of(root)
    assert manifest.calibration
    assert manifest.calibration.fingerprints == manifest.counts["fingerprints"]
    assert background.exists()


def test_a_catalog_without_a_live_track_is_upgraded(root: str) -> None:
    path = Path(root, f"snapshots/{OLD}.json")
    values, catalog = json.loads(path.read_text()), Catalog(root)
    table = from_parquet(catalog.get(StoredFile(**values["tracks"])))
    removed = ["removed"] * len(table)
    table = table.set_column(table.schema.get_field_index("status"), "status", [removed])
    values["tracks"] = asdict(catalog.put(values["tracks"]["key"], to_parquet(table)))
    path.write_text(json.dumps(values))
    summary = upgrade.upgrade(root)
    assert (summary["tracks"], summary["shards"], summary["rewritten_files"]) == (0, 0, 0)
    assert manifest_of(root).next_ordinal == values["next_ordinal"]
    assert Catalog.open_published(root).tracks()["uri"].to_pylist() == table["uri"].to_pylist()


def test_upgrade_is_an_option_of_its_own() -> None:
    for other in ("--verify", "--clean", "--retrain"):
        with pytest.raises(SystemExit):
            merge_index.options(["--catalog", "c", "--upgrade", other])
