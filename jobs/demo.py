#!/usr/bin/env python3
"""See music identified: index a collection, then query noisy, reverberant excerpts of it.

    make demo                       with synthesized music
    make demo AUDIO=~/Music         with your own

A few tracks are kept out of the catalog: their excerpts should be refused.
"""

import argparse
import os
import shutil
import sys
import time

from pipelines.common import cli


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--audio", metavar="FOLDER", help="your own music; default: synthesize some"
    )
    parser.add_argument("--out", default="demo-out", metavar="FOLDER", help="made anew on each run")
    parser.add_argument(
        "--tracks", type=cli.positive_int, default=48, help="pieces to synthesize, 30 s each"
    )
    parser.add_argument("--clips", type=cli.positive_int, default=60, help="excerpts to query")
    parser.add_argument(
        "--seconds", type=cli.positive_float, default=5.0, help="length of an excerpt"
    )
    parser.add_argument("--snr", type=float, default=5.0, metavar="DB", help="music to noise, dB")
    parser.add_argument("--seed", type=int, default=0, help="of music, cuts and noise")
    return parser.parse_args(arguments)


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp.reports.answers import write_report

    from grafp.evaluation.truth import read_truth
    from grafp.storage.sources import list_items
    from pipelines.indexing.flow import index_catalog
    from pipelines.querying.flow import query_batch

    started = time.monotonic()
    out = os.path.abspath(chosen.out)
    _start_over(out)
    if chosen.audio:
        items = list_items(chosen.audio)
    else:
        print(f"[1/4] Synthesizing {chosen.tracks} pieces of 30 s")
        _synthesize(f"{out}/music", chosen.tracks, chosen.seed)
        items = list_items(f"{out}/music")
    known, unknown = _keep_some_out(items)
    print(f"[2/4] Indexing {len(known)} tracks; {len(unknown)} are kept out of the catalog")
    indexed = index_catalog(known, f"{out}/catalog")
    print(
        f"[3/4] Cutting {chosen.clips} excerpts of {chosen.seconds:g} s anywhere, "
        "adding a room and noise"
    )
    _cut(known, unknown, chosen, out)
    print("[4/4] Asking the catalog")
    answered, matches = query_batch(f"{out}/catalog", f"{out}/queries", f"{out}/answers")
    rates = write_report(f"{out}/answers", matches, read_truth(f"{out}/truth.csv"))
    _show(rates, out, time.monotonic() - started)
    return {**answered, **rates, "tracks": indexed["tracks"], "failed": indexed["failed"]}, cli.DONE


def _start_over(out: str) -> None:
    """Remove what an earlier demo left; never a folder that is something else."""
    from grafp.errors import OptionError

    marker = f"{out}/made-by-demo"
    if os.path.isdir(out) and os.listdir(out):
        if not os.path.exists(marker):
            raise OptionError(f"--out {out}: holds other files; choose a folder of its own")
        shutil.rmtree(out)
    os.makedirs(out, exist_ok=True)
    open(marker, "w").close()


def _synthesize(folder: str, count: int, seed: int) -> None:
    """Pieces in every format that we read."""
    from grafp import storage
    from grafp.audio import EXTENSIONS, encode, synthesis

    for number in range(count):
        extension = EXTENSIONS[number % len(EXTENSIONS)]
        piece_S = synthesis.piece(seed * 10_000 + number)
        storage.write(f"{folder}/piece-{number:03d}{extension}", encode(piece_S, extension[1:]))
        if (number + 1) % 12 == 0 or number + 1 == count:
            print(f"  {number + 1}/{count} pieces")


def _keep_some_out(items: list) -> tuple[list, list]:
    """One track in eight, spread over the list, stays unknown."""
    from grafp.errors import OptionError

    if len(items) < 2:
        raise OptionError("--audio: at least two recordings are needed")
    unknown = items[4::8] or items[-1:]
    return [item for item in items if item not in unknown], unknown


def _cut(known: list, unknown: list, chosen: argparse.Namespace, out: str) -> None:
    """Write excerpts as WAV files, and truth.csv; a quarter comes from unknown tracks."""
    import csv

    import numpy as np

    from grafp import storage
    from grafp.audio import SAMPLE_RATE, decode, encode, synthesis
    from grafp.errors import AudioError
    from grafp.evaluation.protocol import cut_degraded

    random = np.random.default_rng(chosen.seed)
    lines = []
    for number in range(chosen.clips):
        pool = unknown if number % 4 == 3 else known
        item = pool[int(random.integers(len(pool)))]
        try:
            track_S = decode(storage.read(item.location), min_seconds=chosen.seconds)
        except AudioError as error:
            print(f"  no excerpt of {item.uri}: {error}")
            continue
        start = int(random.integers(len(track_S) - int(chosen.seconds * SAMPLE_RATE) + 1))
        clip_S = cut_degraded(
            track_S,
            start,
            chosen.seconds,
            snr_db=chosen.snr,
            noise_S=synthesis.noise(number, chosen.seconds),
            rir_S=synthesis.room(number),
        )
        path = f"{out}/queries/clip-{number:03d}.wav"
        storage.write(path, encode(0.5 * clip_S / np.abs(clip_S).max(), "wav"))
        place = f"{start / SAMPLE_RATE:.4f}"
        lines.append([path, item.uri, place] if pool is known else [path, "", ""])
    with open(f"{out}/truth.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["query", "track", "start_s"], *lines])


def _show(rates: dict, out: str, seconds: float) -> None:
    refused = rates["false_positive"]
    rows = [
        ("found, the right track", rates["hit_track"]["hits"], rates["hit_track"]["total"]),
        (
            "found within 50 ms of the right second",
            rates["hit_50ms"]["hits"],
            rates["hit_50ms"]["total"],
        ),
        ("unknown music refused", refused["total"] - refused["hits"], refused["total"]),
        (
            "known music matched above the threshold",
            rates["false_negative"]["total"] - rates["false_negative"]["hits"],
            rates["false_negative"]["total"],
        ),
    ]
    print("")
    for label, hits, total in rows:
        print(f"  {label:<42}{hits:>4} of {total}")
    print(f"\nDone in {seconds:.0f} s. Answers: {out}/answers/matches.parquet")
    print(f"A page to read: {out}/answers/report.html")
    print(f"Listen to the excerpts: {out}/queries/\n")


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
