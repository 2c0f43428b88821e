"""One body of tests over local disk and a real S3 server."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import botocore.auth
import pytest

from grafp import storage
from grafp.errors import StorageError
from grafp.storage import local
from grafp.storage.s3 import CONFIG as S3_CONFIG

NAMES = [
    "plain.wav",
    "two words.wav",
    "Ænima - été 音楽.wav",
    'it\'s "quoted".wav',
    "100% #1 + more?.wav",
    "a%20b.wav",
    "semi;colon&amp=.wav",
    "deep/er/folder.d/x.wav",
]


def one_line(error: pytest.ExceptionInfo[StorageError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_written_read_and_listed(store: str, name: str) -> None:
    uri = storage.join(store, "music", name)
    assert storage.stat(uri) is None
    before = time.time()
    storage.write(uri, b"first")
    storage.write(uri, b"second")
    assert storage.read(uri) == b"second"
    [info] = storage.list_files(storage.join(store, "music"))
    assert info == storage.stat(uri)
    assert (info.uri, info.size) == (uri, 6)
    assert abs(info.modified - before) < 60
    assert info.etag
    assert '"' not in info.etag
    storage.delete(uri)
    storage.delete(uri)
    assert storage.stat(uri) is None


def test_empty_and_large_content(store: str) -> None:
    for name, data in [("empty", b""), ("large", os.urandom(1 << 20) * 12)]:
        storage.write(storage.join(store, name), data)
        assert storage.read(storage.join(store, name)) == data


def test_create_stores_only_once(store: str) -> None:
    uri = storage.join(store, "new folder", "manifest.json")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read(uri) == b"first"


def test_replace_needs_the_current_etag(store: str) -> None:
    uri = storage.join(store, "CURRENT")
    assert not storage.replace(uri, b"0", "0123456789abcdef")
    assert storage.replace(uri, b"1", None)
    assert not storage.replace(uri, b"x", None)
    first = storage.stat(uri)
    assert first is not None
    assert storage.replace(uri, b"2", first.etag)
    assert not storage.replace(uri, b"x", first.etag)
    assert not storage.replace(uri, b"x", "0123456789abcdef")
    assert storage.read(uri) == b"2"
    storage.delete(uri)
    assert not storage.replace(uri, b"x", first.etag)


def test_every_replace_changes_the_etag(store: str) -> None:
    """Also when equally long contents follow each other faster than the file clock ticks."""
    uri = storage.join(store, "CURRENT")
    etags = set()
    for step in range(20):
        storage.write(uri, b"%04d" % step)
        info = storage.stat(uri)
        assert info is not None
        etags.add(info.etag)
    assert len(etags) == 20


def race(attempt: Callable[[int], bool], threads: int = 3) -> list[int]:
    """The numbers of the threads that won."""
    barrier = threading.Barrier(threads)

    def run(number: int) -> bool:
        barrier.wait(timeout=20)
        return attempt(number)

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(run, range(threads)))
    return [number for number, won in enumerate(results) if won]


def test_exactly_one_wins_a_race(store: str) -> None:
    for round_number in range(2):
        uri = storage.join(store, f"CURRENT-{round_number}")
        [winner] = race(lambda number, uri=uri: storage.create(uri, b"%d" % number))
        assert storage.read(uri) == b"%d" % winner
        info = storage.stat(uri)
        assert info is not None
        etag = info.etag
        [winner] = race(
            lambda number, uri=uri, etag=etag: storage.replace(uri, b"%d" % (10 + number), etag)
        )
        assert storage.read(uri) == b"%d" % (10 + winner)


def test_list_files_filters_and_sorts(store: str) -> None:
    for name in ["b.WAV", "a.mp3", "sub/c.Flac", "note.txt", ".hidden.wav", ".trash/d.wav"]:
        storage.write(storage.join(store, name), b"x")
    expected = [storage.join(store, name) for name in ("a.mp3", "b.WAV", "sub/c.Flac")]
    extensions = (".wav", ".mp3", ".flac")
    assert [info.uri for info in storage.list_files(store, extensions)] == expected
    assert [info.uri for info in storage.list_files(store + "/", (".WAV",))] == expected[1:2]
    assert len(storage.list_files(store)) == 4
    assert storage.list_files(storage.join(store, "sub"), (".wav",)) == []
    one = storage.list_files(storage.join(store, "a.mp3"))
    assert [info.uri for info in one] == expected[:1]


def test_a_prefix_is_not_the_beginning_of_a_name(store: str) -> None:
    storage.write(storage.join(store, "music-old/a.wav"), b"x")
    with pytest.raises(StorageError) as error:
        storage.list_files(storage.join(store, "music"))
    assert storage.join(store, "music") in one_line(error)


def test_missing_things_say_so(store: str, tmp_path: Path) -> None:
    missing = storage.join(store, "missing.wav")
    for action in (storage.read, storage.list_files):
        with pytest.raises(StorageError) as error:
            action(missing)
        assert missing in one_line(error)
    with pytest.raises(StorageError, match="not found"):
        storage.local_copy(missing, str(tmp_path / "cache"))


def test_local_copy_is_made_once_and_follows_changes(store: str, tmp_path: Path) -> None:
    uri, cache = storage.join(store, "shard 1.faiss"), str(tmp_path / "cache")
    storage.write(uri, b"one")
    path = storage.local_copy(uri, cache)
    assert Path(path).read_bytes() == b"one"
    written = os.stat(path).st_mtime_ns
    assert set(race(lambda _: storage.local_copy(uri, cache) == path)) == {0, 1, 2}
    assert os.stat(path).st_mtime_ns == written
    storage.write(uri, b"two")
    assert Path(storage.local_copy(uri, cache)).read_bytes() == b"two"


def test_many_files_are_listed_over_several_pages(s3: str) -> None:
    base = f"{s3}/pages"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: storage.write(f"{base}/{i:04d}.wav", b""), range(1005)))
    assert [info.uri for info in storage.list_files(base)] == [
        f"{base}/{i:04d}.wav" for i in range(1005)
    ]


def test_a_large_prefix_is_listed_by_its_folders(s3: str, caplog: pytest.LogCaptureFixture) -> None:
    base, patch = f"{s3}/folders", pytest.MonkeyPatch()
    names = [f"{i % 3}/{i % 7}/{i:04d}.wav" for i in range(1000)]
    names += [f"top {i}.wav" for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.write(f"{base}/{name}", b""), [*names, "0/.hidden"]))
    with patch.context() as patched, caplog.at_level("INFO", logger="grafp"):
        patched.setattr("grafp.storage._SAY_EVERY", 500)
        found = [info.uri for info in storage.list_files(base)]
    assert found == sorted(f"{base}/{name}" for name in names)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"  {count} files of {base} listed" for count in ("500", "1,000")]


def test_content_above_the_part_size_round_trips(s3: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 101  # s3fs sends this in parts
    storage.write(f"{s3}/parts", data)
    assert storage.read(f"{s3}/parts") == data
    assert Path(storage.local_copy(f"{s3}/parts", str(tmp_path))).read_bytes() == data


def test_others_see_and_are_seen_at_once(s3: str) -> None:
    """No listing or answer is remembered from before another process changed it."""
    uri = f"{s3}/seen/a"
    storage.write(uri, b"1")
    assert len(storage.list_files(f"{s3}/seen")) == 1
    code = (
        "import sys; from grafp import storage; base = sys.argv[1]; "
        "storage.write(base + '/a', b'22'); storage.write(base + '/b', b'3')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, f"{s3}/seen"], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert [info.size for info in storage.list_files(f"{s3}/seen")] == [2, 1]
    assert storage.read(uri) == b"22"


ACTIONS: dict[str, Callable[[str], object]] = {
    "read": storage.read,
    "write": lambda uri: storage.write(uri, b"x"),
    "create": lambda uri: storage.create(uri, b"x"),
    "replace": lambda uri: storage.replace(uri, b"x", "0123"),
    "stat": storage.stat,
    "list_files": storage.list_files,
    "delete": storage.delete,
}


@pytest.mark.parametrize("action", ["read", "write", "create", "list_files"])
@pytest.mark.usefixtures("s3")
def test_missing_bucket(action: str) -> None:
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/x: no such bucket"):
        ACTIONS[action]("s3://no-such-bucket/x")


@pytest.mark.parametrize("action", ACTIONS)
def test_wrong_credentials(action: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write(f"{s3}/x", b"")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
        with pytest.raises(StorageError, match=r"denied .* check AWS_ACCESS_KEY_ID") as error:
            ACTIONS[action](f"{s3}/x")
    assert f"{s3}/x" in one_line(error)
    assert "not-the-secret" not in str(error.value)
    assert storage.read(f"{s3}/x") == b""  # the environment is looked at anew


def test_no_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="no credentials; set AWS_ACCESS_KEY_ID") as error:
        storage.read(f"{s3}/x")
    one_line(error)


@pytest.mark.parametrize("kind", ["closed", "silent", "not a URL", "with a password"])
def test_unreachable_endpoint(kind: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if kind == "silent":  # with its queue full, the system ignores who else knocks
            listener.listen(0)
            for client in (first, second):
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
        endpoint = "http://[nowhere" if kind == "not a URL" else f"http://127.0.0.1:{port}"
        if kind == "with a password":
            endpoint = endpoint.replace("//", "//me:hidden-word@")
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        if kind != "silent":  # the slowest kind shows that the real limits hold
            monkeypatch.setitem(S3_CONFIG, "retries", {"total_max_attempts": 1})
        start = time.monotonic()
        with pytest.raises(StorageError, match="check AWS_ENDPOINT_URL") as error:
            storage.read(f"{s3}/x")
        assert time.monotonic() - start < 25
    assert "hidden-word" not in one_line(error)


def test_a_server_that_is_not_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:  # closed at the end of the test
                    return
                with client:
                    client.recv(65536)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setitem(S3_CONFIG, "retries", {"total_max_attempts": 1})
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(StorageError, match="no usable answer from 127") as error:
            storage.list_files(f"{s3}/x")
        one_line(error)
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "uri", ["gs://bucket/x", "https://host/x", "s3://", "s3://Not_a_bucket!/x", "s3://me:pass@b/x"]
)
@pytest.mark.usefixtures("s3")
def test_addresses_that_cannot_work(uri: str) -> None:
    for action in ACTIONS.values():
        with pytest.raises(StorageError) as error:
            action(uri)
        assert "pass" not in one_line(error)


def test_join_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.join("s3://b", "x", "/y/", "", "z.wav") == "s3://b/x/y/z.wav"
    assert storage.join("s3://b/") == "s3://b/"
    assert storage.join("/", "x") == "/x"
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/../b") == str(tmp_path / "b")
    assert storage.absolute(f"file://{tmp_path}/c") == f"{tmp_path}/c"
    assert storage.absolute("s3://b/../x") == "s3://b/../x"


def test_local_uris_stay_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write("music/sub/a.wav", b"x")
    for base in ("music", "music/sub", ".", f"file://{tmp_path}/music"):
        [info] = storage.list_files(base)
        assert info.uri.startswith(base + "/")
        assert storage.read(info.uri) == b"x"
    assert storage.local_copy(f"file://{tmp_path}/music/sub/a.wav", "cache") == (
        f"{tmp_path}/music/sub/a.wav"
    )


def test_local_oddities(tmp_path: Path) -> None:
    """Links, pipes and names that are not UTF-8 neither hang nor stop a listing."""
    storage.write(f"{tmp_path}/other/a.wav", b"x")
    music = tmp_path / "music"
    music.mkdir()
    (music / "link").symlink_to(tmp_path / "other")
    (music / "round").symlink_to(music)
    (music / "dangling.wav").symlink_to(tmp_path / "gone")
    os.mkfifo(music / "pipe.wav")
    (tmp_path / "other" / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"x")
    found = [info.uri for info in storage.list_files(str(music))]
    assert found == [f"{music}/link/a.wav", f"{music}/link/caf\ufffd.wav"]
    with pytest.raises(StorageError, match="not UTF-8, rename"):
        storage.read(found[1])


def test_local_failures_are_one_line(tmp_path: Path) -> None:
    storage.write(f"{tmp_path}/file", b"x")
    for uri in (
        f"{tmp_path}/file/below",
        str(tmp_path),
        f"{tmp_path}/nul\0",
        f"{tmp_path}/{'x' * 300}",
    ):
        with pytest.raises(StorageError) as error:
            storage.write(uri, b"y")
        one_line(error)
    assert storage.stat(str(tmp_path)) is None
    assert storage.stat(f"{tmp_path}/file/below") is None
    assert os.listdir(tmp_path) == ["file"]  # nothing half done stays behind


def test_what_is_no_folder_or_no_file_is_named(tmp_path: Path) -> None:
    storage.write(f"{tmp_path}/file", b"x")
    os.mkfifo(tmp_path / "pipe")
    for uri in (f"{tmp_path}/file/a", f"{tmp_path}/file/b/c"):
        with pytest.raises(StorageError, match=f"^{uri}: {tmp_path}/file is no folder$"):
            storage.write(uri, b"y")
    with pytest.raises(StorageError, match=f"^{tmp_path}: a folder; give a file$"):
        storage.read(str(tmp_path))
    for use in (storage.read, storage.list_files):
        with pytest.raises(StorageError, match="pipe: neither a file nor a folder, but a pipe"):
            use(f"{tmp_path}/pipe")


def test_a_folder_that_is_not_to_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the temporary file that nobody knows of."""

    def refuse(name: str, *_: object) -> None:  # a mode would not stop a test that runs as root
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(local, "open", refuse, raising=False)
    denied = f"Permission denied: {tmp_path}/out; check"
    with pytest.raises(StorageError, match=f"^{tmp_path}/out/a: {denied}"):
        storage.write(f"{tmp_path}/out/a", b"y")


def test_an_unreadable_folder_is_an_error_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write(f"{tmp_path}/locked/a.wav", b"x")
    scandir = os.scandir

    def refuse(path: str) -> object:  # a mode would not stop a test that runs as root
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="/locked; check the owner and mode") as error:
        storage.list_files(str(tmp_path))
    one_line(error)


def test_files_get_the_usual_mode(tmp_path: Path) -> None:
    """A shared catalog must not end up readable by its publisher only."""
    storage.write(f"{tmp_path}/a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    storage.write(f"{tmp_path}/a", b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"/a: No space left on device"):
        storage.write(f"{tmp_path}/a", b"after")
    assert storage.read(f"{tmp_path}/a") == b"before"
    assert os.listdir(tmp_path) == ["a"]


def test_clocks_that_are_far_apart(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = botocore.auth.get_current_datetime

    def two_hours_on(*arguments: bool) -> datetime:
        return now(*arguments) + timedelta(hours=2)

    storage.write(f"{s3}/clock", b"x")
    monkeypatch.setattr(botocore.auth, "get_current_datetime", two_hours_on)
    with pytest.raises(StorageError, match="clock and the store's are too far apart"):
        storage.read(f"{s3}/clock")
