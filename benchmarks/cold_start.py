#!/usr/bin/env python3
"""Encoders over time on a cluster that has no machine yet, and machines when they stand idle.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --checkout ../grafp-before

Ray's own autoscaler starts and ends nodes of this machine, each with two CPUs as it believes: the
benchmark shows who works when, not how fast. The music is synthesized. --checkout names another
version of this repository, whose index job is run instead.
"""

import argparse
import shutil
import sys
import threading
import time
from pathlib import Path

from pipelines.common import cli

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "support"))
_LOOK_EVERY, _IDLE = 5.0, 60.0


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--tracks", type=cli.positive_int, default=200, help="of 30 s")
    parser.add_argument("--nodes", type=cli.positive_int, default=3, help="at most")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose job is run")
    parser.add_argument("--out", default="out/cold-start", help="a folder; it is replaced")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    import elastic
    import nodes

    from grafp.audio import encode, synthesis

    out = Path(chosen.out).absolute()
    shutil.rmtree(out, ignore_errors=True)
    (out / "music").mkdir(parents=True)
    for number in range(chosen.tracks):
        sound = encode(synthesis.piece(number), "flac")
        (out / "music" / f"{number}.flac").write_bytes(sound)
    seen: list[tuple[int, int, int]] = []
    with elastic.running(out, {"cpu": {"resources": {"CPU": 2}}}, chosen.nodes) as cluster:
        started, done = time.monotonic(), threading.Event()
        print("seconds  nodes  encoders", flush=True)

        def look() -> None:
            while not done.wait(_LOOK_EVERY):
                now = (
                    round(time.monotonic() - started), len(cluster.nodes()), cluster.encoders()
                )  # fmt: skip
                seen.append(now)
                print(f"{now[0]:7}  {now[1]:5}  {now[2]:8}", flush=True)

        watch = threading.Thread(target=look)
        watch.start()
        words = ["--audio", out / "music", "--catalog", out / "catalog"]
        job = cluster.start("index_catalog.py", *words, root=chosen.checkout.resolve())
        lines = job.communicate()[0].splitlines()
        took = time.monotonic() - started
        time.sleep(_IDLE)
        done.set()
        watch.join()
    summary = nodes.summary(lines)
    result = {
        "seconds": round(took),
        "most nodes": max(count for _, count, _ in seen),
        "most encoders": max(count for *_, count in seen),
        "nodes a minute after": seen[-1][1],
        "machine_seconds": summary.get("machine_seconds"),
        "embedded": summary["embedded"],
    }
    return result, cli.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
