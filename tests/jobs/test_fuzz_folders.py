"""Wrong folders, hostile names, damaged catalogs: each ends in one line, never in a stack trace."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from job_runs import outcome

from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import index_catalog as index_job
from pipelines.jobs import merge_index as merge_job
from pipelines.jobs import query_batch as query_job

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "music").mkdir()
    (folder / "music" / "one.flac").write_bytes(encode(synthesis.piece(1, 5.0), "flac"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.indexing.calibrate.CLIPS", 0)
        index_catalog(str(folder / "music"), str(folder / "catalog"), encoders=Encoders(0))
    return folder / "catalog"


def a_file(path: Path) -> None:
    path.write_text("not a folder")


def no_audio(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("no music")


def a_table_without_paths(path: Path) -> None:
    path.with_suffix(".csv").write_text("name,year\na,1\n")


WRONG_PLACES: dict[str, tuple[str, Callable[[Path], None] | None]] = {
    "not there": ("place", None),
    "a file": ("place", a_file),
    "no audio in it": ("place", no_audio),
    "a table without paths": ("place.csv", a_table_without_paths),
    "another scheme": ("gopher://host/place", None),
    "a bucket without a name": ("s3://", None),
    "a very long name": ("p" * 300, None),
    "a null byte": ("pl\0ace", None),
}


@pytest.mark.parametrize("what", WRONG_PLACES)
@pytest.mark.parametrize("option", ["--audio", "--queries", "--catalog", "--out", "--truth"])
def test_wrong_places(
    option: str, what: str, catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name, make = WRONG_PLACES[what]
    if make:
        make(tmp_path / "place")
    place = name if "://" in name else str(tmp_path / name)
    music = str(catalog.parent / "music")
    words = {"--queries": music, "--catalog": str(catalog), "--out": str(tmp_path / "out")}
    job: Any = query_job
    if option == "--audio":
        job, words = index_job, {"--audio": "", "--catalog": str(tmp_path / "new")}
    words |= {option: place, "--workers": "0"}
    code, error = outcome(job, [word for pair in words.items() for word in pair], capsys)
    fine = option == "--out" and what in ("not there", "no audio in it")
    if fine:
        assert code == cli.DONE, error
    else:
        assert code in (cli.FAILED, cli.BAD_ARGUMENTS), error
        assert [line[:7] for line in error] == ["error: "], error


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_a_table_may_name_what_is_no_file(
    make: Callable, catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Nobody writes to the pipe, and the device has no end: neither is waited for."""
    make(tmp_path / "odd.wav")
    (tmp_path / "list.csv").write_text("path\nodd.wav\n")
    words = ["--catalog", str(catalog), "--out", str(tmp_path / "out"), "--workers", "0"]
    where = str(tmp_path / "list.csv")
    assert outcome(query_job, [*words, "--queries", where], capsys) == (cli.DONE, [])
    [row] = pq.read_table(tmp_path / "out" / "matches.parquet").to_pylist()
    reason = f"{tmp_path}/odd.wav: neither a file nor a folder, but a pipe or a device"
    assert row["error"] == reason
    words += ["--queries", str(tmp_path / "odd.wav")]
    assert outcome(query_job, words, capsys) == (cli.FAILED, [f"error: {reason}"])


NOT_UTF_8 = b"\xff\xfe.wav"


def hostile_names(folder: Path) -> list[str]:
    """The names of the recordings, as tables have them; a careless job trips over each."""
    sound = encode(synthesis.piece(2, 2.0), "wav")
    names = [b"new\nline.wav", b"quote'\".wav", b"%s {x} $HOME.wav", NOT_UTF_8, b"-rf.wav"]
    names += [b"#?&.wav", " é\u202e.wav".encode(), b"p" * 245 + b".wav", b" .wav", b"a\\b.wav"]
    folder.mkdir()
    for name in names:
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(sound)
    (folder / "folder.wav").mkdir()
    (folder / "nowhere.wav").symlink_to(folder / "is not there")
    (folder / "endless.wav").symlink_to("/dev/zero")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    os.mkfifo(folder / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(folder)  # such names have 107 bytes at most
        one.bind("socket.wav")
        os.chdir(here)
    return [name.decode(errors="replace") for name in names]


@pytest.mark.timeout(120)
def test_hostile_names_and_things_that_are_no_files(
    catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = hostile_names(tmp_path / "clips")
    words = ["--catalog", str(catalog), "--queries", str(tmp_path / "clips")]
    code, error = outcome(
        query_job, [*words, "--out", str(tmp_path / "out"), "--workers", "0"], capsys
    )
    assert (code, error) == (cli.DONE, [])
    rows = pq.read_table(tmp_path / "out" / "matches.parquet").to_pylist()
    assert sorted(Path(row["query"]).name for row in rows) == sorted(names)
    [failed] = [row for row in rows if row["error"]]
    assert Path(failed["query"]).name == NOT_UTF_8.decode(errors="replace")
    assert failed["error"].endswith("its name is not UTF-8, rename it")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no CURRENT": lambda root: (root / "CURRENT").unlink(),
    "an empty CURRENT": lambda root: (root / "CURRENT").write_text(""),
    "CURRENT names nothing": lambda root: (root / "CURRENT").write_text("nothing"),
    "CURRENT is no text": lambda root: (root / "CURRENT").write_bytes(b"\xff\x00" * 50),
    "CURRENT leads away": lambda root: (root / "CURRENT").write_text("../../etc/passwd"),
    "no snapshots": lambda root: shutil.rmtree(root / "snapshots"),
    "no models": lambda root: shutil.rmtree(root / "models"),
    "no index": lambda root: shutil.rmtree(root / "index"),
    "no embeddings": lambda root: shutil.rmtree(root / "embeddings"),
    "another version": lambda root: rewrite(root, b'"format_version": 6', b'"format_version": 99'),
    "an old version": lambda root: rewrite(root, b'"format_version": 6', b'"format_version": 2'),
    "half a manifest": lambda root: cut(manifest_of(root)),
    "a manifest of lists": lambda root: manifest_of(root).write_text("[]"),
    "an empty manifest": lambda root: manifest_of(root).write_text("{}"),
    "a number as text": lambda root: rewrite(root, b'"hop_s": 0.1', b'"hop_s": "often"'),
}


def manifest_of(root: Path) -> Path:
    catalog = Catalog.open_published(str(root)).manifest
    assert catalog
    return root / "snapshots" / f"{catalog.snapshot}.json"


def rewrite(root: Path, old: bytes, new: bytes) -> None:
    path = manifest_of(root)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_catalogs(
    damage: str, catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "catalog"
    shutil.copytree(catalog, root)
    DAMAGES[damage](root)
    music = str(catalog.parent / "music")
    words = ["--catalog", str(root), "--queries", music, "--out", str(tmp_path), "--workers", "0"]
    code, error = outcome(query_job, words, capsys)
    assert code == cli.FAILED, error
    assert [line[:7] for line in error] == ["error: "], error
    assert str(root) in error[0], error
    code, error = outcome(merge_job, ["--catalog", str(root), "--verify"], capsys)
    assert code == cli.FAILED, error
    assert len(error) <= 1, error


def as_a_command(*words: str, **how: Any) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=100, **how
    )
    return done.returncode, done.stderr.strip().splitlines()


def test_without_permission(catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if os.getuid():
        pytest.skip("only root can become another user")
    shutil.copytree(catalog.parent, tmp_path / "all")
    words = ["--catalog", f"{tmp_path}/all/catalog", "--queries", f"{tmp_path}/all/music"]
    words += ["--out", f"{tmp_path}/all/out", "--workers", "0"]
    assert outcome(query_job, words, capsys)[0] == cli.DONE  # and everything is imported
    for one in (tmp_path / "all", *tmp_path.parents[:3], tmp_path):
        os.chmod(one, 0o755)
    for locked in ("music", "catalog", "out"):
        os.chmod(tmp_path / "all" / locked, 0o700)
        os.seteuid(65534)
        try:
            code, error = outcome(query_job, words, capsys)
        finally:
            os.seteuid(0)
            os.chmod(tmp_path / "all" / locked, 0o755)
        assert (code, len(error)) == (cli.FAILED, 1), error
        assert "ermission denied" in error[0]
        assert f"all/{locked}" in error[0]


def test_no_space(catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(full)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        music = str(catalog.parent / "music")
        code, error = outcome(
            index_job, ["--audio", music, "--catalog", str(full), "--workers", "0"], capsys
        )
        assert (code, len(error)) == (cli.FAILED, 1), error
        assert "No space left on device" in error[0]
    finally:
        subprocess.run(["umount", str(full)], check=True)


@pytest.mark.slow
def test_s3_without_credentials(tmp_path: Path) -> None:
    """Nothing is sent anywhere: the endpoint is a port of this machine where nobody listens."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"}
    code, error = as_a_command(
        "jobs/query_batch.py", "--catalog", "s3://bucket/catalog", "--queries", "s3://bucket/clips",
        "--out", str(tmp_path), env={**env, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (code, len(error)) == (cli.FAILED, 1), error
    assert "s3://bucket" in error[0]
