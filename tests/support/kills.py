"""Killing runs in tests: when, how, and what was lost or doubled by it."""

import os
import random
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.shard_files import read_codes, read_ordinals
from grafp.index.ids import ordinals_of

_LONGEST_RUN = 12.0  # seconds, about
_REQUEST = re.compile(rb"(GET|PUT|HEAD|POST|DELETE) ")


@dataclass(frozen=True)
class Moment:
    """When to kill a run: after it says this, or writes a file like this, or at any time."""

    name: str
    said: str = ""
    written: str = ""


ANY_TIME = Moment("any time")
POPULATING = Moment("populating", written="index/*/[0-9a-f]*.codes.parquet")
WRITTEN = Moment("shard written", written="index/*/[0-9a-f]*.json")
TABLE = Moment("track table written", written="snapshots/*.tracks.parquet")
PUBLISHING = Moment("manifest written", written="snapshots/*[0-9a-f].json")
PUBLISHED = Moment("published", written="CURRENT")


def copy(folder: Path, root: str) -> str:
    """A local catalog, copied to another place."""
    for file in storage.list_files(str(folder)):
        key = os.path.relpath(file.uri, folder)
        storage.write(storage.join(root, key), storage.read(file.uri))
    return root


def content(root: str) -> tuple:
    """Everything that must not depend on how a night went."""
    catalog = Catalog.open_published(root)
    assert catalog.manifest is not None
    names = ("uri", "track_id", "ordinal", "content_sha256", "status", "n_segments")
    rows = [tuple(row[name] for name in names) for row in catalog.tracks().to_pylist()]
    return rows, catalog.manifest.trained_index, catalog.manifest.layers, catalog.manifest.counts


def lost_and_doubled(root: str, undisturbed: tuple) -> tuple[int, int]:
    """Tracks that are not in the published table or in no shard, and those there more than once."""
    catalog = Catalog.open_published(root)
    assert catalog.manifest is not None
    named = Counter(catalog.tracks()["uri"].to_pylist())
    held: Counter[int] = Counter()
    for layer in catalog.manifest.layers:
        held.update(read_ordinals(catalog, layer.tracks).tolist())
    codes = [read_codes(root, entry) for entry in catalog.manifest.shards]
    stored = Counter(ordinals_of(np.concatenate([one.id_N for one in codes])).tolist())
    assert stored.keys() == held.keys()
    rows = undisturbed[0]
    lost = {row[0] for row in rows if not named[row[0]] or (row[4] == "ok" and not held[row[2]])}
    more = sum(count - 1 for count in (*named.values(), *held.values()))
    return len(lost), more


def half_shards(root: str) -> int:
    """Shards that a dead run left without their record."""
    keys = {key for key, _ in _files(root)}
    indexes = {key for key in keys if fnmatch(key, POPULATING.written)}
    return sum(key.replace(".codes.parquet", ".json") not in keys for key in indexes)


def start(job: str, *arguments: str, output: Path, **env: str) -> subprocess.Popen[str]:
    """A job as a process of its own; what it says goes to a file."""
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, job, *arguments],
            env={**os.environ, **env},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )


def wait_for(moment: Moment, run: subprocess.Popen[str], root: str, output: Path) -> bool:
    """Until the moment comes, and up to 50 ms more; False if the run ended before it."""
    seen = _files(root)
    if moment == ANY_TIME:
        with suppress(subprocess.TimeoutExpired):
            run.wait(random.uniform(0.0, _LONGEST_RUN))
        return run.poll() is None
    while run.poll() is None:
        if moment.said and moment.said in output.read_text():
            break
        if moment.written and any(fnmatch(key, moment.written) for key, _ in _files(root) - seen):
            break
        time.sleep(0.002)
    time.sleep(random.uniform(0.0, 0.05))
    return run.poll() is None


def _files(root: str) -> set[tuple[str, str]]:
    """Keys with etags, so that a file that was replaced is new."""
    files = storage.list_files(root, may_be_missing=True)
    return {(info.uri[len(root) + 1 :], info.etag) for info in files}


@contextmanager
def proxy(endpoint: str, on_request: Callable[[bytes], bytes]) -> Iterator[str]:
    """A way to a server; of a request goes on what `on_request` leaves, cut off if it is less."""
    host, port = endpoint.removeprefix("http://").split(":")

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
                    rest = on_request(data) if _REQUEST.match(data) else data
                    target.sendall(rest)
                    if len(rest) < len(data):
                        break
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
