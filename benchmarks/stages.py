#!/usr/bin/env python3
"""How fast indexing embeds with one encoder and with more, and how busy each stage is.

    python benchmarks/stages.py --workers 1,2

Synthesized MP3 files go through the stages of jobs/index_catalog.py: read and decode, encode,
store. Speed counts from the first finished recordings, when all workers have started. Busy is the
CPU time of a stage's tasks as a share of the whole run, so 200 % is two cores; the
encoders' share is of their number.
"""

import argparse
import os
import sys
import tempfile
import time

from memory import synthesize

from pipelines.common import cli

STAGES = {"guarded_row": "decode", "Encode": "encode", "EmbeddingStore": "store"}


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--workers",
        type=cli.numbers(1, 1e4),
        default="1,2",
        metavar="N,..",
        help="numbers of encoders",
    )
    parser.add_argument(
        "--tracks", type=cli.positive_int, default=60, metavar="N", help="tracks to synthesize"
    )
    parser.add_argument(
        "--seconds",
        type=cli.positive_float,
        default=120.0,
        metavar="S",
        help="length of a track, seconds",
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from pipelines.common.runtime import connect

    connect()
    summary = {}
    with tempfile.TemporaryDirectory() as folder:
        synthesize(f"{folder}/music", chosen.tracks, chosen.seconds)
        print(f"{os.cpu_count()} cores, {chosen.tracks} tracks of {chosen.seconds:g} s")
        print("encoders  x real time  decode busy  encode busy  store busy")
        for count in map(int, chosen.workers):
            found = _measure(f"{folder}/music", f"{folder}/{count}", count)
            summary[str(count)] = found
            busy = "  ".join(f"{100 * found[stage]:9.0f} %" for stage in STAGES.values())
            print(f"{count:8}  {found['real_time']:11.0f}  {busy}")
    return summary, cli.DONE


def _measure(music: str, out: str, count: int) -> dict[str, float]:
    """Seconds of audio a second once the first row is there, and the stages' shares."""
    from grafp.audio import MAX_SECONDS
    from grafp.model.fingerprint import HOP_SECONDS
    from grafp.storage.sources import list_items
    from pipelines.common.decode import decoded
    from pipelines.common.encode import encoded
    from pipelines.common.work import Encoders
    from pipelines.indexing.embed import EmbeddingStore

    store = EmbeddingStore(out, "embeddings", "small", HOP_SECONDS, {})
    recordings = decoded(list_items(music), MAX_SECONDS)
    rows = encoded(recordings, "small", HOP_SECONDS, Encoders(count))
    rows = rows.map_batches(store, batch_size=4, batch_format="pyarrow", num_cpus=0.25)
    started = time.monotonic()
    first, audio = None, 0.0
    for row in rows.iter_rows():
        if first is None:  # workers have started and imported what they need
            first, begun = time.monotonic(), row["duration_s"]
        audio += row["duration_s"]
    ended = time.monotonic()
    found = {"real_time": (audio - begun) / (ended - first), "seconds": ended - started}
    summary = rows.get_stats_summary()  # of the last stage, before it its parent's
    while summary:
        for stage in summary.operators_stats:
            for key, name in STAGES.items():
                if key in stage.operator_name:
                    found[name] = stage.cpu_time.sum / (ended - started)
        summary = summary.parents[0] if summary.parents else None
    found["encode"] /= count
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
