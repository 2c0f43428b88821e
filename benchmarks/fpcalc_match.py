#!/usr/bin/env python3
"""Chromaprint as a system for benchmarks/peers.py: fpcalc's fingerprints, compared by brute force.

    python benchmarks/fpcalc_match.py --references references.csv --queries queries.csv

Needs `fpcalc` (Debian: libchromaprint-tools). Prints `query<TAB>track<TAB>offset<TAB>score` for
the best offset in all references: of the two sequences of 32-bit items, each 0.124 s apart, the
offset with the fewest differing bits; the score is 1 - bit error rate. There is no index: every
query is compared at every item of every reference, so time grows with the catalog.

An item sees 2.7 s of sound, so shorter queries have no fingerprint and get no answer.
"""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ITEM_SECONDS = 1365 / 11025  # a third of a frame of 4096 samples, at Chromaprint's rate


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("references", "queries"):
        parser.add_argument(
            f"--{name}", required=True, metavar="CSV", help="table with a column path"
        )
    return parser.parse_args(arguments)


def main(chosen: argparse.Namespace) -> int:
    references = dict(_fingerprints(_paths(chosen.references)))
    if not references:
        print("fpcalc made no fingerprint of any reference", file=sys.stderr)
        return 1
    tracks, fingerprints = list(references), list(references.values())
    print("#indexed", flush=True)
    for query, fingerprint_N in _fingerprints(_paths(chosen.queries)):
        if best := locate(fingerprint_N, fingerprints):
            number, item, score = best
            print(query, tracks[number], f"{item * ITEM_SECONDS:.3f}", f"{score:.6f}", sep="\t")
    return 0


def locate(query_N: np.ndarray, references: Sequence[np.ndarray]) -> tuple[int, int, float] | None:
    """Where the query differs in the fewest bits: reference, its item, 1 - bit error rate.

    Args:
        query_N, references: uint32 items. None if every reference is shorter than the query.
    """
    best = None
    for number, reference_M in enumerate(references):
        offsets = len(reference_M) - len(query_N) + 1
        if offsets < 1:
            continue
        errors_O = np.zeros(offsets, np.uint32)
        for shift, item in enumerate(query_N):
            errors_O += np.bitwise_count(reference_M[shift : shift + offsets] ^ item)
        offset = int(errors_O.argmin())
        score = 1.0 - float(errors_O[offset]) / (32 * len(query_N))
        if best is None or score > best[2]:
            best = number, offset, score
    return best


def _paths(table: str) -> list[str]:
    with open(table, newline="", encoding="utf-8") as file:
        return [row["path"] for row in csv.DictReader(file)]


def _fingerprints(paths: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The recordings that fpcalc can fingerprint; says how many it cannot, and why."""
    reasons = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for path, (items_N, reason) in zip(paths, pool.map(fingerprint, paths), strict=True):
            if len(items_N):
                yield path, items_N
            else:
                reasons.append(reason)
    if reasons:
        left_out = f"{len(reasons)} of {len(paths)} recordings have no fingerprint"
        print(f"{left_out}: {max(set(reasons), key=reasons.count)}", file=sys.stderr)


def fingerprint(path: str) -> tuple[np.ndarray, str]:
    """The whole recording's items, uint32, and fpcalc's last message; no items if it has none.

    The exit code does not tell: with some versions of FFmpeg, fpcalc 1.5 prints the complete
    fingerprint and then fails at the end of the file.
    """
    command = ["fpcalc", "-raw", "-plain", "-length", "0", path]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    items = [int(item) for item in done.stdout.strip().split(",") if item]
    return np.array(items, np.uint32), (done.stderr.splitlines() or [""])[-1]


if __name__ == "__main__":
    sys.exit(main(options()))
