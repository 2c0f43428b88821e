#!/usr/bin/env python3
"""A large catalog through the whole pipeline: files in a store, an index run, nights, a batch.

    python benchmarks/large.py --tracks 100000 --nights 10 --queries 10000 --out out/large

Writes short tracks to a real S3-compatible server, indexes them, adds, changes and removes one in
a hundred of them again and again, and queries noisy excerpts. Prints what each step took, the peak
memory of its processes, its requests to the store, and the bytes of each kind of file. A step that
is done is not done again: the same command goes on. The store and the results stay in OUT.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import large_music
import numpy as np
import psutil

from grafp import storage
from pipelines.common import cli

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
import s3_server  # noqa: E402

CHANGED = {"add": 0.005, "replace": 0.003, "remove": 0.002}
"""Shares of the tracks, each night."""
_SAMPLE_SECONDS = 2.0


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--tracks", type=cli.positive_int, default=100_000, help="of 12 s")
    parser.add_argument("--nights", type=cli.positive_int, default=10, help="incremental runs")
    parser.add_argument("--queries", type=cli.positive_int, default=10_000, help="of 5 s, 10 dB")
    parser.add_argument("--hop", type=cli.positive_float, default=1.0, help="of the catalog, s")
    parser.add_argument("--workers", type=cli.positive_int, default=2, help="encoders")
    parser.add_argument("--out", default="out/large", help="a folder")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    out = Path(chosen.out).absolute()
    (out / "store").mkdir(parents=True, exist_ok=True)
    with s3_server.running("large", str(out / "store")) as server:
        os.environ.update(server.env)
        run = Run(chosen, out, server)
        run.step("music", run.write_music)
        run.step("index", run.index)
        for night in range(1, chosen.nights + 1):
            run.step(f"changes of night {night}", lambda night=night: run.change(night))
            run.step(f"night {night}", run.index)
        run.step("clips", run.write_clips)
        run.step("query", run.query)
        run.step("files", run.files)
    return run.results, cli.DONE


class Run:
    """The steps, and what they took."""

    def __init__(self, chosen: argparse.Namespace, out: Path, server: s3_server.Server) -> None:
        self.chosen, self.out, self.server = chosen, out, server
        self.music, self.clips = f"{server.uri}/music", f"{server.uri}/clips"
        self.catalog, self.answers = f"{server.uri}/catalog", f"{server.uri}/answers"
        self._path = out / "results.json"
        self.results: dict[str, Any] = {}
        if self._path.exists():
            self.results = json.loads(self._path.read_text())
        self._pieces = large_music.bank(out / "pieces.npy")

    def step(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        if name not in self.results:
            before, started = self.server.requests(), time.monotonic()
            result = work()
            result["minutes"] = round((time.monotonic() - started) / 60, 2)
            result["requests"] = dict(self.server.requests() - before)
            self.results[name] = result
            self._path.write_text(json.dumps(self.results, indent=1))
        print(f"{name}: {json.dumps(self.results[name])}", flush=True)

    def write_music(self) -> dict[str, Any]:
        there = {info.uri for info in storage.list_files(self.music, may_be_missing=True)}
        keys = ((n, storage.join(self.music, large_music.track_key(n))) for n in range(self._first))
        left = [(n, n) for n, key in keys if key not in there]
        large_music.write_tracks(self._pieces, self.music, left)
        return {"tracks": self._first, "hours": round(self._first * 12 / 3600, 1)}

    @property
    def _first(self) -> int:
        return int(self.chosen.tracks)

    def index(self) -> dict[str, Any]:
        return self._job(
            "index_catalog", "--audio", self.music, "--catalog", self.catalog,
            "--workers", self.chosen.workers, *self._hop(),
        )  # fmt: skip

    def _hop(self) -> list[object]:
        return [] if "index" in self.results else ["--hop", self.chosen.hop]

    def change(self, night: int) -> dict[str, Any]:
        """The same changes whenever it is called."""
        count = self._counts()["add"]
        added = self._first + (night - 1) * count + np.arange(count)
        replaced, removed = self._replaced(night), self._removed(night)
        other_music = 10_000_000 + night * self._first + replaced
        pairs = [*zip(added, added, strict=True), *zip(replaced, other_music, strict=True)]
        numbered = [(int(name), int(music)) for name, music in pairs]
        large_music.write_tracks(self._pieces, self.music, numbered)
        for number in removed:
            storage.delete(storage.join(self.music, large_music.track_key(int(number))))
        return {"added": len(added), "replaced": len(replaced), "removed": len(removed)}

    def _counts(self) -> dict[str, int]:
        return {what: round(share * self._first) for what, share in CHANGED.items()}

    def _removed(self, night: int) -> np.ndarray:
        """A part of the tracks for each night, so that none is removed twice."""
        count = self._counts()["remove"]
        return self._drawn(0)[(night - 1) * count : night * count]

    def _replaced(self, night: int) -> np.ndarray:
        """Of those that are there in this night."""
        gone = [self._removed(earlier) for earlier in range(1, night + 1)]
        there = np.setdiff1d(self._drawn(night), np.concatenate(gone), assume_unique=True)
        return there[: self._counts()["replace"]]

    def _drawn(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).permutation(self._first)

    def write_clips(self) -> dict[str, Any]:
        """Of tracks that no night replaced or removed."""
        nights = range(1, self.chosen.nights + 1)
        changed = [part(night) for night in nights for part in (self._removed, self._replaced)]
        asked = np.setdiff1d(np.arange(self._first), np.concatenate(changed))
        rng = np.random.default_rng(1)
        numbers = rng.choice(asked, min(self.chosen.queries, len(asked)), replace=False)
        truth = large_music.write_clips(self._pieces, self.clips, [int(n) for n in numbers])
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["query", "track", "start_s"])
        for number, begin_s in truth:
            track = storage.join(self.music, large_music.track_key(number))
            table.writerow([f"{self.clips}/{number:07d}.flac", track, begin_s])
        (self.out / "truth.csv").write_text(text.getvalue())
        return {"clips": len(truth)}

    def query(self) -> dict[str, Any]:
        return self._job(
            "query_batch", "--catalog", self.catalog, "--queries", self.clips,
            "--out", self.answers, "--truth", self.out / "truth.csv",
            "--workers", self.chosen.workers,
        )  # fmt: skip

    def files(self) -> dict[str, Any]:
        """Bytes of each kind of file in the catalog, older snapshots included."""
        sizes: Counter[str] = Counter()
        for info in storage.list_files(self.catalog):
            folder, _, name = info.uri.removeprefix(f"{self.catalog}/").partition("/")
            sizes[f"{folder}/*{''.join(Path(name).suffixes[-1:])}" if name else folder] += info.size
        return {"bytes": dict(sizes.most_common()), "all": sum(sizes.values())}

    def _job(self, name: str, *words: object) -> dict[str, Any]:
        """Run a job over a local Ray; its summary, its log with times, the memory it took."""
        started, lines = time.monotonic(), []

        def read(output: IO[str]) -> None:
            with (self.out / "log.txt").open("a") as log:
                for line in output:
                    lines.append((round(time.monotonic() - started, 1), line.rstrip("\n")))
                    log.write(f"{lines[-1][0]:9.1f} {line}")
                    log.flush()

        command = [sys.executable, f"jobs/{name}.py", *map(str, words)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            reader = threading.Thread(target=read, args=(process.stdout,))
            reader.start()
            memory = Memory(process.pid)
            while process.poll() is None:
                memory.sample(time.monotonic() - started)
                time.sleep(_SAMPLE_SECONDS)
            reader.join()
        if process.returncode:
            raise SystemExit(f"{name} ended with {process.returncode}; see {self.out}/log.txt")
        summary = json.loads(lines.pop()[1])
        summary.pop("failures", None)
        steps = [line for line in lines if not line[1].startswith("  ")]
        return {"summary": summary, "steps": steps, "memory": memory.result()}


class Memory:
    """Of a job's own process, of Ray's, and of the largest worker; shared memory not counted."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._most: Counter[str] = Counter()
        self._head: list[tuple[float, float]] = []

    def sample(self, at_s: float) -> None:
        now: Counter[str] = Counter()
        try:
            children = self._process.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for one in [self._process, *children]:
            try:
                name, memory = " ".join(one.cmdline()), one.memory_info()
            except psutil.Error:
                continue
            own = (memory.rss - memory.shared) / 2**20
            if one is self._process:
                now["job"] += own
            elif "ray::" in name:
                now["largest worker"] = max(now["largest worker"], own)
                now["all workers"] += own
            elif any(part in name for part in ("gcs_server", "raylet")):
                now["Ray's head"] += own
        for what, size in now.items():
            self._most[what] = max(self._most[what], round(size))
        self._head.append((round(at_s), round(now["job"] + now["Ray's head"])))

    def result(self) -> dict[str, Any]:
        """Peaks, MiB, and the head (the job and Ray's head) over time, at most 20 points."""
        step = max(1, len(self._head) // 20)
        return {"peaks": dict(self._most), "head over time": self._head[::step]}


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
