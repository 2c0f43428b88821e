#!/usr/bin/env python3
"""Peak memory of indexing by number of tracks: it should not grow with it.

    python benchmarks/memory.py --tracks 50,400

Synthesizes the tracks, indexes each collection with jobs/index_catalog.py, and adds up the
proportional memory (PSS: shared pages counted once) of the job and every Ray process it started,
four times a second.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter

import psutil

from pipelines.common import cli


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--tracks", default="50,400", help="numbers of tracks to compare")
    parser.add_argument("--seconds", type=cli.positive_float, default=60.0, help="of each track, s")
    parser.add_argument("--workers", type=cli.positive_int, default=2, help="encoders")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    counts = [int(count) for count in chosen.tracks.split(",")]
    summary = {}
    with tempfile.TemporaryDirectory() as folder:
        synthesize(f"{folder}/all", max(counts), chosen.seconds)
        for count in counts:
            audio = f"{folder}/{count}"
            os.mkdir(audio)
            for name in sorted(os.listdir(f"{folder}/all"))[:count]:
                os.link(f"{folder}/all/{name}", f"{audio}/{name}")
            uris = ["--audio", audio, "--catalog", f"{folder}/catalog-{count}"]
            peaks, seconds = run_job("index_catalog.py", *uris, "--workers", str(chosen.workers))
            peak = sum(peaks.values())
            print(f"{count:>6} tracks: peak {peak:,.0f} MiB, {seconds:.0f} s")
            for name, size in peaks.most_common(8):
                print(f"              {size:6,.0f} MiB {name}")
            summary[str(count)] = {"peak_mib": round(peak), "seconds": round(seconds)}
    return summary, cli.DONE


def synthesize(folder: str, count: int, seconds: float) -> None:
    """Write pieces of music, FLAC."""
    from grafp import storage
    from grafp.audio import encode, synthesis

    for number in range(count):
        data = encode(synthesis.piece(number, seconds), "flac")
        storage.write(f"{folder}/{number:05d}.flac", data)


def run_job(name: str, *arguments: str) -> tuple[Counter[str], float]:
    """Peak memory by kind of process, MiB, and seconds of one run of a job."""
    job = os.path.join(os.path.dirname(__file__), "..", "jobs", name)
    started, peak = time.monotonic(), Counter[str]()
    with subprocess.Popen([sys.executable, job, *arguments], stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            peak = max(peak, memory_by_kind(run.pid), key=Counter.total)
            time.sleep(0.25)
        if run.returncode:
            raise SystemExit(f"{name} failed with exit code {run.returncode}")
    return peak, time.monotonic() - started


def memory_by_kind(pid: int) -> Counter[str]:
    """PSS of a process and all its descendants by kind, MiB."""
    found: Counter[str] = Counter()
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                kind = "the job" if process == root else process.cmdline()[0].split("/")[-1]
                found[kind] += process.memory_full_info().pss / 2**20
    return found


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
