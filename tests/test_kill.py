"""Runs that are killed: nothing published is lost, nothing is doubled, and the next run goes on.

GRAFP_KILLS sets how often; `make check-all` kills 50 times.
"""

import os
import random
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray

from grafp import storage, synth
from grafp.audio import encode
from grafp.catalogue import Catalogue
from jobs import index_catalog
from pipelines import maintain, merge
from pipelines.index import index_catalogue

KILLS = int(os.environ.get("GRAFP_KILLS", "2"))
MOMENTS = (
    "embeddings/**/*.parquet",
    "index/*/template.faiss",
    "index/*/*.vectors",
    "snapshots/*.tracks.parquet",
    "snapshots/*.json",
    "",  # any time from the start of the program on
)


@dataclass(frozen=True)
class Night:
    """Music, a catalogue of its first half, and what a night that nobody disturbs makes of it."""

    audio: Path
    first: Path
    result: tuple


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Night:
    folder = tmp_path_factory.mktemp("night")
    audio = folder / "music"
    for seed in range(3):
        storage.write(f"{audio}/{seed}.wav", encode(synth.piece(seed, 4.0), "wav"))
    index_catalogue(str(audio), str(folder / "first"), workers=1)
    for seed in range(3, 12):  # enough for a new template
        storage.write(f"{audio}/{seed}.wav", encode(synth.piece(seed, 4.0), "wav"))
    storage.write(f"{audio}/1.wav", encode(synth.piece(90, 4.0), "wav"))
    storage.delete(f"{audio}/2.wav")
    shutil.copytree(folder / "first", folder / "undisturbed")
    index_catalogue(str(audio), str(folder / "undisturbed"), workers=1)
    return Night(audio, folder / "first", content(str(folder / "undisturbed")))


def content(root: str) -> tuple:
    """Everything that must not depend on how a night went."""
    catalogue = Catalogue.open_published(root)
    assert catalogue.manifest is not None
    names = ("uri", "track_id", "ordinal", "content_sha256", "status", "n_segments")
    rows = [tuple(row[name] for name in names) for row in catalogue.tracks().to_pylist()]
    return rows, catalogue.manifest.template, catalogue.manifest.shards, catalogue.manifest.counts


def start(audio: Path, root: str, **env: str) -> subprocess.Popen:
    command = [sys.executable, index_catalog.__file__, "--audio", str(audio), "--catalog", root]
    return subprocess.Popen(
        [*command, "--workers", "1"],
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_loses_and_doubles_nothing(number: int, night: Night, tmp_path: Path) -> None:
    root = str(tmp_path / "catalogue")
    shutil.copytree(night.first, root)
    before = content(root)
    random_ = random.Random(time.time_ns())
    moment = MOMENTS[(2 * number + number // 3) % len(MOMENTS)]
    run = start(night.audio, root, RAY_ADDRESS=ray.get_runtime_context().gcs_address)
    if moment:
        seen = set(Path(root).glob(moment))
        while run.poll() is None and not set(Path(root).glob(moment)) - seen:
            time.sleep(0.002)
        time.sleep(random_.uniform(0.0, 0.05))
    else:
        time.sleep(random_.uniform(0.0, 12.0))
    run.kill()
    run.communicate()
    assert maintain.verify(root)["damaged"] == 0
    assert content(root) in (before, night.result)
    index_catalogue(str(night.audio), root, workers=1)
    assert content(root) == night.result
    assert maintain.verify(root)["damaged"] == 0


def test_a_killed_worker_costs_nothing(night: Night, tmp_path: Path) -> None:
    root = str(tmp_path / "catalogue")
    shutil.copytree(night.first, root)
    run = start(night.audio, root, RAY_ADDRESS=ray.get_runtime_context().gcs_address)
    killed = 0
    while run.poll() is None and killed < 2:
        time.sleep(0.05)
        workers = [p for p in psutil.Process().children(recursive=True) if "MapWorker" in _title(p)]
        if workers:
            os.kill(workers[0].pid, signal.SIGKILL)
            killed += 1
            time.sleep(2.0)
    errors = run.communicate()[1]
    assert killed
    assert run.returncode == 0, errors
    assert content(root) == night.result


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def unreliable(endpoint: str, seed: int) -> Iterator[str]:
    """A way to a server on which 2 % of the requests are cut off and all are slow."""
    host, port = endpoint.removeprefix("http://").split(":")
    random_ = random.Random(seed)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=self.forward, args=(server, self.request))
                back.start()
                self.forward(self.request, server)
                back.join()

        def forward(self, source: socket.socket, target: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65_536):
                    if data.startswith((b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ")):
                        time.sleep(random_.uniform(0.0, 0.02))
                        if random_.random() < 0.02:
                            target.sendall(data[: len(data) // 2])
                            break
                    target.sendall(data)
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.slow
def test_a_bad_store_is_survived_or_leaves_the_old_snapshot(s3: str, night: Night) -> None:
    root = f"{s3}/bad-store"
    for file in storage.list_files(str(night.first)):
        key = file.uri[len(str(night.first)) + 1 :]
        storage.write(storage.join(root, key), storage.read(file.uri))
    before = content(root)
    for attempt in range(3):
        with unreliable(os.environ["AWS_ENDPOINT_URL"], attempt) as endpoint:
            run = start(night.audio, root, AWS_ENDPOINT_URL=endpoint)
            errors = run.communicate()[1]
        assert content(root) == (night.result if run.returncode == 0 else before), errors
        if run.returncode == 0:
            break
        assert "error: " in errors
    else:
        pytest.fail("three runs failed")
    assert maintain.verify(root)["damaged"] == 0


@pytest.mark.slow
def test_leftovers_that_are_too_old_are_not_used(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "catalogue")
    shutil.copytree(night.first, root)
    with monkeypatch.context() as patch:
        patch.setattr(Catalogue, "publish", lambda *_: None)
        index_catalogue(str(night.audio), root, workers=1)
    monkeypatch.setattr(merge, "REUSE_SECONDS", 0)
    assert index_catalogue(str(night.audio), root, workers=1)["resumed"] == 0
    assert content(root) == night.result
