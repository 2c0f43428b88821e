#!/usr/bin/env python3
"""How long small work takes from the command to its end, with and without Ray.

    python benchmarks/start.py --runs 3
    python benchmarks/start.py --runs 3 --demo --before ../grafp-before

The music is synthesized. Each number is the median of the runs, in which the commands take turns,
so that what else the machine does falls on all of them. Ratios on one machine can be compared.
--before names a checkout of an earlier version, whose commands take turns with those of this one;
it runs in the same environment.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pipelines.common import cli

HERE = Path(__file__).resolve().parents[1]
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
    parser.add_argument("--tracks", type=cli.positive_int, default=14, help="of --seconds each")
    parser.add_argument("--seconds", type=cli.positive_float, default=30.0, help="of a track")
    parser.add_argument("--clips", type=cli.positive_int, default=3, help="of 5 s")
    parser.add_argument("--runs", type=cli.positive_int, default=3, help="of each command")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--demo", action="store_true", help="the demo too")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    out = Path(chosen.out).absolute()
    shutil.rmtree(out, ignore_errors=True)
    clips = _synthesize(out, chosen.tracks, chosen.seconds, chosen.clips)
    versions = [Version("now", HERE, (0, 1))]
    if chosen.before:
        versions.append(Version("before", chosen.before.resolve(), (None,)))
    took: dict[str, list[float]] = {}
    for run in range(chosen.runs):
        for version in versions:
            place = out / f"{version.name}-{run}"
            seconds = version.times(place, out, clips)
            if chosen.demo:
                seconds["demo"] = version.job("demo", "--out", place / "demo")
            for name, once in seconds.items():
                took.setdefault(f"{name} ({version.name})", []).append(once)
    middle = {name: round(median(each), 2) for name, each in sorted(took.items())}
    for name, value in middle.items():
        print(f"  {name:<42}{value:>8.2f} s")
    return {"runs": chosen.runs, "load": round(os.getloadavg()[0], 1), "seconds": middle}, cli.DONE


@dataclass(frozen=True)
class Version:
    """A checkout of this repository."""

    name: str
    root: Path
    workers: tuple[int | None, ...]
    """Values of --workers to try; None: as the job chooses."""

    def times(self, place: Path, out: Path, clips: list[Path]) -> dict[str, float]:
        """Seconds of each command; each queries the catalog that it made."""
        seconds = {"query_batch.py --help": self.job("query_batch", "--help")}
        for workers in self.workers:
            words = [] if workers is None else ["--workers", workers]
            told = f", --workers {workers}" if words else ""
            catalog = place / f"catalog-{workers}"
            seconds[f"index{told}"] = self.job(
                "index_catalog", "--audio", out / "music", "--catalog", catalog, *words
            )
            seconds[f"query{told}"] = self.job(
                "query_batch", "--catalog", catalog, "--queries", out / "clips",
                "--out", place / f"answers-{workers}", *words,
            )  # fmt: skip
        if self.root == HERE:
            seconds[_FIRST], seconds[_SECOND] = json.loads(self.run("-c", _PYTHON, catalog, *clips))
        return seconds

    def job(self, name: str, *words: object) -> float:
        started = time.monotonic()
        self.run(f"jobs/{name}.py", *words)
        return time.monotonic() - started

    def run(self, *words: object) -> str:
        """What Python prints for these words, where no cluster is named."""
        left_out = ("RAY_ADDRESS", "PYTHONPATH")
        there = {name: value for name, value in os.environ.items() if name not in left_out}
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=self.root,
            env=there | {"PYTHONPATH": str(self.root)},
        )
        return done.stdout


def _synthesize(out: Path, tracks: int, seconds: float, clips: int) -> list[Path]:
    """Write the music, and clips of it; returns the clips."""
    from grafp.audio import SAMPLE_RATE, encode, synthesis

    for folder in ("music", "clips"):
        (out / folder).mkdir(parents=True)
    paths = []
    for number in range(tracks):
        piece_S = synthesis.piece(number, seconds)
        (out / "music" / f"{number}.flac").write_bytes(encode(piece_S, "flac"))
        if number < clips:
            paths.append(out / "clips" / f"{number}.flac")
            clip_S = piece_S[5 * SAMPLE_RATE : 10 * SAMPLE_RATE]
            paths[-1].write_bytes(encode(clip_S, "flac"))
    return paths


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
