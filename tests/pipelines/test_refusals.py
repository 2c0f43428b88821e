"""What indexing, merging and a rollback refuse: by name, in one line, with nothing changed."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import kills
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import FORMAT_VERSION
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import index_catalog as index_job
from pipelines.jobs import merge_index

pytestmark = pytest.mark.usefixtures("ray_here")
MUSIC = {f"{seed}.wav": encode(synthesis.piece(seed, 4.0), "wav") for seed in range(3)}


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """A catalog of two recordings in two shards, to be copied."""
    folder = tmp_path_factory.mktemp("refusals")
    for name in ("0.wav", "1.wav"):
        storage.write(f"{folder}/music/{name}", MUSIC[name])
        index_catalog(f"{folder}/music", f"{folder}/catalog", encoders=Encoders(0))
    return folder / "catalog"


@pytest.fixture
def root(store: str, indexed: Path) -> str:
    return kills.copy(indexed, f"{store}/catalog")


def refusal(job, capsys: pytest.CaptureFixture, root: str, *arguments: str) -> tuple[int, str]:
    """A job's exit code and its one line, after checking that nothing published has changed."""
    before = storage.list_files(root)
    capsys.readouterr()
    code = cli.run(job.main, job.options(["--catalog", root, *arguments]))
    lines = capsys.readouterr().err.splitlines()
    assert set(before) <= set(storage.list_files(root))
    [line] = [line for line in lines if "(raylet)" not in line]  # Ray tells of an actor's end
    assert line.startswith("error: ")
    return code, line


def edit_manifest(root: str, edit: Callable[[dict], None]) -> None:
    snapshot = storage.read(f"{root}/CURRENT").decode().strip()
    name = f"{root}/snapshots/{snapshot}.json"
    manifest = json.loads(storage.read(name))
    edit(manifest)
    storage.write(name, json.dumps(manifest).encode())


def from_a_newer_version(root: str) -> str:
    edit_manifest(root, lambda manifest: manifest.update(format_version=FORMAT_VERSION + 1))
    return f"catalog format {FORMAT_VERSION + 1}; this version reads format {FORMAT_VERSION}"


def with_a_shard_of_another_trained_index(root: str) -> str:
    def move(manifest: dict) -> None:
        manifest["layers"][-1]["shards"][-1]["codes"]["key"] = "index/other/x.codes.parquet"

    shard = Catalog.open(root).manifest.shards[-1].shard_id
    edit_manifest(root, move)
    return f"shard {shard} is of another trained"


def with_a_truncated_manifest(root: str) -> str:
    snapshot = storage.read(f"{root}/CURRENT").decode().strip()
    name = f"{root}/snapshots/{snapshot}.json"
    storage.write(name, storage.read(name)[:-200])
    return f"{name}: damaged ("


def cut(root: str, key: str) -> str:
    whole = storage.read(f"{root}/{key}")
    storage.write(f"{root}/{key}", whole[: len(whole) // 2])
    return f"{root}/{key}: damaged"


def with_a_truncated_track_table(root: str) -> str:
    return cut(root, Catalog.open(root).manifest.tracks.key)


def with_a_truncated_table_of_a_layer(root: str) -> str:
    return cut(root, Catalog.open(root).manifest.layers[-1].tracks.key)


def with_another_hash(root: str) -> str:
    """One bit of a shard is another: the size is right, and FAISS would take it."""
    key = Catalog.open(root).manifest.shards[0].codes.key
    whole = bytearray(storage.read(f"{root}/{key}"))
    whole[len(whole) // 2] ^= 1
    storage.write(f"{root}/{key}", bytes(whole))
    return f"{root}/{key}: damaged"


@pytest.mark.parametrize(
    "damage",
    [
        from_a_newer_version,
        with_a_shard_of_another_trained_index,
        with_a_truncated_manifest,
        with_a_truncated_track_table,
        with_a_truncated_table_of_a_layer,
        with_another_hash,
    ],
)
def test_a_catalog_that_is_not_whole_is_refused(
    damage: Callable[[str], str], root: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    storage.write(f"{tmp_path}/music/new.wav", MUSIC["2.wav"])
    named = damage(root)
    tries = [(index_job, ["--audio", str(tmp_path / "music"), "--workers", "1"])]
    if damage is not with_another_hash:  # merging reads no index: it writes them anew
        tries.append((merge_index, ["--compact"]))
    for job, arguments in tries:
        code, line = refusal(job, capsys, root, *arguments)
        assert code == cli.FAILED
        assert named in line


def test_only_a_known_and_complete_snapshot_is_rolled_back_to(
    root: str, capsys: pytest.CaptureFixture
) -> None:
    for name in ("yesterday", "../snapshots/yesterday"):
        code, line = refusal(merge_index, capsys, root, "--rollback", name)
        assert code == cli.FAILED
        assert f"no snapshot {name!r}" in line
    first = Catalog.open(root).manifest.parent
    storage.delete(f"{root}/snapshots/{first}.tracks.parquet")
    code, line = refusal(merge_index, capsys, root, "--rollback", first)
    assert code == cli.FAILED
    assert f"{root}/snapshots/{first}.tracks.parquet: missing" in line


def parquet_of(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": names}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("list.csv", b"path\n0.wav\n1.wav\n0.wav\n", "row 3: 0.wav is named a second time"),
        ("list.csv", b"path\n0.wav\n../1.wav\n", "row 2: ../1.wav is outside the table's folder"),
        ("list.csv", b"path\nsub/../../1.wav\n", "row 1: sub/../../1.wav is outside"),
        ("list.parquet", parquet_of(["0.wav", "../1.wav"]), "row 2: ../1.wav is outside"),
        ("list.parquet", parquet_of(["0.wav", "1.wav"])[:-30], "not a readable table"),
    ],
)
def test_a_list_with_a_bad_line_is_refused(
    name: str, data: bytes, reason: str, root: str, store: str, capsys: pytest.CaptureFixture
) -> None:
    table = f"{store}/{name}"
    storage.write(table, data)
    code, line = refusal(index_job, capsys, root, "--audio", table)
    assert code == cli.BAD_ARGUMENTS
    assert f"{table}" in line
    assert reason in line


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("list.txt", b"{0}\n{1}\n{0}\n", "entry 3: {0} is removed already"),
        ("list.txt", b"{0}\n/elsewhere/0.wav\n", "entry 2: /elsewhere/0.wav is not in the"),
        ("list.csv", b"uri\n{0}\n../1.wav\n", "entry 2: ../1.wav is not in the catalog"),
        ("list.parquet", parquet_of(["x"])[:-30], "not a readable table"),
    ],
)
def test_a_removal_with_a_bad_line_is_refused(
    name: str, data: bytes, reason: str, root: str, store: str, capsys: pytest.CaptureFixture
) -> None:
    uris = Catalog.open(root).tracks()["uri"].to_pylist()
    for number, uri in enumerate(uris):
        data = data.replace(b"{%d}" % number, uri.encode())
    storage.write(f"{store}/{name}", data)
    code, line = refusal(merge_index, capsys, root, "--remove", f"{store}/{name}")
    assert code == cli.BAD_ARGUMENTS
    assert f"{store}/{name}" in line
    assert reason.replace("{0}", uris[0]) in line
