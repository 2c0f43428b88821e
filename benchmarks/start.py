#!/usr/bin/env python3
"""How long small work takes from the command to its end, with and without Ray.

    python benchmarks/start.py --runs 3

The music is synthesized. Each number is the median of the runs, in which the commands take turns,
so that what else the machine does falls on all of them. Ratios on one machine can be compared.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from pipelines.common import cli

ROOT = Path(__file__).resolve().parents[1]
_PYTHON = """
import json, sys, time
started = time.monotonic()
import grafp
catalog, *clips = sys.argv[1:]
took = []
opened = grafp.open_catalog(catalog)
for clip in clips[:2]:
    opened.identify(clip)
    took.append(time.monotonic() - started)
    started = time.monotonic()
print(json.dumps(took))
"""
_FIRST, _SECOND = "first answer in Python", "second answer in Python"


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--out", default="out/start", help="a folder; what is in it is replaced")
    parser.add_argument("--tracks", type=cli.positive_int, default=14, help="of 30 s")
    parser.add_argument("--clips", type=cli.positive_int, default=3, help="of 5 s")
    parser.add_argument("--runs", type=cli.positive_int, default=3, help="of each command")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    out = Path(chosen.out).absolute()
    shutil.rmtree(out, ignore_errors=True)
    clips = _synthesize(out, chosen.tracks, chosen.clips)
    catalog = out / "catalog"
    _job("index_catalog", "--audio", out / "music", "--catalog", catalog, "--workers", 0)
    took: dict[str, list[float]] = {}
    for run in range(chosen.runs):
        for name, once in _run(out / f"run-{run}", out, catalog, clips).items():
            took.setdefault(name, []).append(once)
    seconds = {name: round(median(each), 2) for name, each in took.items()}
    for name, value in seconds.items():
        print(f"  {name:<34}{value:>8.2f} s")
    return {"runs": chosen.runs, "load": round(os.getloadavg()[0], 1), "seconds": seconds}, cli.DONE


def _run(place: Path, out: Path, catalog: Path, clips: list[Path]) -> dict[str, float]:
    """Seconds of each command."""
    seconds = {"query_batch.py --help": _job("query_batch", "--help")}
    for workers in (0, 1):
        seconds[f"query, --workers {workers}"] = _job(
            "query_batch", "--catalog", catalog, "--queries", out / "clips",
            "--out", place / f"answers-{workers}", "--workers", workers,
        )  # fmt: skip
        seconds[f"index, --workers {workers}"] = _job(
            "index_catalog", "--audio", out / "music",
            "--catalog", place / f"catalog-{workers}", "--workers", workers,
        )  # fmt: skip
    answers = _command("-c", _PYTHON, catalog, *clips)
    seconds[_FIRST], seconds[_SECOND] = json.loads(answers)
    return seconds


def _job(name: str, *words: object) -> float:
    started = time.monotonic()
    _command(f"jobs/{name}.py", *words)
    return time.monotonic() - started


def _command(*words: object) -> str:
    """What Python prints for these words, where no cluster is named."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    )
    return done.stdout


def _synthesize(out: Path, tracks: int, clips: int) -> list[Path]:
    """Write the music, and clips of it; returns the clips."""
    from grafp.audio import SAMPLE_RATE, encode, synthesis

    for folder in ("music", "clips"):
        (out / folder).mkdir(parents=True)
    paths = []
    for number in range(tracks):
        piece_S = synthesis.piece(number)
        (out / "music" / f"{number}.flac").write_bytes(encode(piece_S, "flac"))
        if number < clips:
            paths.append(out / "clips" / f"{number}.flac")
            clip_S = piece_S[8 * SAMPLE_RATE : 13 * SAMPLE_RATE]
            paths[-1].write_bytes(encode(clip_S, "flac"))
    return paths


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
