#!/usr/bin/env python3
"""Searching and aligning, beside the per-query loop of the reference implementation.

    python benchmarks/query.py --fingerprints 1000000,5000000

Makes synthetic fingerprints (random walks between cluster centers) and noisy queries of 5 s cut
from them, then answers the queries as the query job does, in batches, and as the reference
implementation does: IVF64 with nprobe 20, one query at a time, every candidate scored in
Python. Both in one process on all cores, over the same fingerprints.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from merge import walk

from pipelines.common import cli

TRACK_SEGMENTS, QUERY_SEGMENTS, BATCH = 1_000, 41, 32
REFERENCE_LISTS, REFERENCE_NPROBE = 64, 20


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--fingerprints",
        type=cli.numbers(10_000, 1e9),
        default="1000000,5000000",
        metavar="N,..",
        help="catalog sizes",
    )
    parser.add_argument(
        "--queries", type=cli.positive_int, default=1_000, metavar="N", help="queries to answer"
    )
    parser.add_argument(
        "--loop-queries",
        type=cli.positive_int,
        default=20,
        metavar="N",
        help="queries for the slow loop",
    )
    parser.add_argument(
        "--nprobe",
        type=cli.positive_int,
        metavar="N",
        help="lists to search (default: as the catalog)",
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    results = {}
    for size in chosen.fingerprints:
        with tempfile.TemporaryDirectory() as folder:
            tracks = int(size) // TRACK_SEGMENTS
            vectors_ND = make_catalog(Path(folder, "vectors"), tracks)
            results[f"{len(vectors_ND)}"] = _compare(vectors_ND, chosen)
    return results, cli.DONE


def _compare(vectors_ND: np.ndarray, chosen: argparse.Namespace) -> dict:
    rng = np.random.default_rng(1)
    tracks = len(vectors_ND) // TRACK_SEGMENTS
    where = [
        (int(rng.integers(tracks)), int(rng.integers(TRACK_SEGMENTS - QUERY_SEGMENTS + 1)))
        for _ in range(chosen.queries)
    ]
    queries = [noisy(vectors_ND[t * TRACK_SEGMENTS + s :][:QUERY_SEGMENTS], rng) for t, s in where]
    ours = _ours(vectors_ND, queries, where, chosen.nprobe)
    loop = _loop(vectors_ND, queries[: chosen.loop_queries], where)
    times = ours["queries_per_s"] / loop["queries_per_s"]
    print(
        f"{len(vectors_ND):,} fingerprints, nprobe {ours['nprobe']} of {ours['nlist']} lists\n"
        f"  grafp           {ours['queries_per_s']:8.2f} queries/s, right {ours['right']:.1%}; "
        f"FAISS {ours['faiss']:.0%}, scoring {ours['scoring']:.0%}, rest {ours['rest']:.0%}\n"
        f"  reference loop  {loop['queries_per_s']:8.2f} queries/s, right {loop['right']:.1%}; "
        f"FAISS {loop['faiss']:.0%}\n"
        f"  {times:.1f} times faster"
    )
    return {"grafp": ours, "reference": loop, "times_faster": round(times, 2)}


def make_catalog(path: Path, tracks: int) -> np.ndarray:
    """Fingerprints in a file, as the catalog keeps them: float16, mapped."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((2_000, 128)).astype(np.float32)
    with path.open("wb") as file:
        for _ in range(tracks):
            file.write(walk(rng, centers).tobytes())
    return np.memmap(path, np.float16, "r").reshape(-1, 128)


def noisy(excerpt_MD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At a cosine of about 0.8 to what is stored, as a good recording is."""
    noisy_MD = excerpt_MD + rng.normal(0.0, 0.75 / 128**0.5, excerpt_MD.shape)
    return (noisy_MD / np.linalg.norm(noisy_MD, axis=1, keepdims=True)).astype(np.float32)


def _ours(
    vectors_ND: np.ndarray, queries: list, where: list[tuple[int, int]], nprobe: int | None
) -> dict:
    from grafp.index.alignment import Effort, find_matches
    from grafp.index.ids import fingerprint_ids
    from grafp.index.ivfpq import encode, parse_index, quantizer_of, train_index
    from grafp.index.lists import Lists
    from grafp.index.scoring import Tracks
    from grafp.index.search import IndexSearch
    from grafp.index.size import IndexParameters

    parameters = IndexParameters.for_size(len(vectors_ND))
    trained = train_index(sample(vectors_ND, parameters.training_points), parameters)
    ordinals = np.arange(len(vectors_ND) // TRACK_SEGMENTS)
    counts = np.full(len(ordinals), TRACK_SEGMENTS)
    ids = np.concatenate([fingerprint_ids(o, np.arange(TRACK_SEGMENTS)) for o in ordinals])
    index = parse_index(trained)
    search = IndexSearch(
        quantizer_of(index),
        [Lists.filled(index, encode(trained, vectors_ND, ids), range(index.nlist))],
        [Tracks(vectors_ND, ordinals, np.cumsum(counts) - counts, counts)],
        Effort.by_length(nprobe or parameters.nprobe),
    )
    spent = {"nearest": 0.0, "matches": 0.0}
    for name in spent:
        setattr(search, name, timed(getattr(search, name), spent, name))
    started, right = time.monotonic(), 0
    for first in range(0, len(queries), BATCH):
        found = find_matches(queries[first : first + BATCH], search)
        for (track, start), matches in zip(where[first : first + BATCH], found, strict=True):
            right += bool(matches) and (matches[0].ordinal, round(matches[0].start)) == (
                track,
                start,
            )
    total = time.monotonic() - started
    return {
        "queries_per_s": round(len(queries) / total, 3),
        "right": right / len(queries),
        "faiss": round(spent["nearest"] / total, 3),
        "scoring": round(spent["matches"] / total, 3),
        "rest": round(1 - sum(spent.values()) / total, 3),
        "nlist": parameters.nlist,
        "nprobe": search.effort.lists,
    }


def timed(call, spent: dict[str, float], name: str):
    """The same call, which adds its seconds to `spent[name]`."""

    def call_timed(*arguments):
        started = time.monotonic()
        try:
            return call(*arguments)
        finally:
            spent[name] += time.monotonic() - started

    return call_timed


def _loop(vectors_ND: np.ndarray, queries: list, where: list[tuple[int, int]]) -> dict:
    """One bare index, one query at a time, candidates scored one by one against the vectors."""
    import faiss

    index = faiss.index_factory(128, f"IVF{REFERENCE_LISTS},PQ64", faiss.METRIC_INNER_PRODUCT)
    index.train(sample(vectors_ND, 100_000))
    for first in range(0, len(vectors_ND), 100_000):
        index.add(vectors_ND[first : first + 100_000].astype(np.float32))
    index.nprobe = REFERENCE_NPROBE
    started, in_faiss, right = time.monotonic(), 0.0, 0
    for query_MD, (track, start) in zip(queries, where, strict=False):
        before = time.monotonic()
        _, id_MK = index.search(query_MD, 20)
        in_faiss += time.monotonic() - before
        candidates = np.unique((id_MK - np.arange(len(id_MK))[:, None])[id_MK >= 0])
        candidates = candidates[(candidates >= 0) & (candidates + len(id_MK) <= len(vectors_ND))]
        scores = [
            np.mean(np.diag(query_MD @ vectors_ND[c : c + len(id_MK)].astype(np.float32).T))
            for c in candidates
        ]
        right += int(candidates[int(np.argmax(scores))]) == track * TRACK_SEGMENTS + start
    total = time.monotonic() - started
    return {
        "queries_per_s": round(len(queries) / total, 3),
        "right": right / len(queries),
        "faiss": round(in_faiss / total, 3),
    }


def sample(vectors_ND: np.ndarray, points: int) -> np.ndarray:
    rows = np.random.default_rng(0).choice(len(vectors_ND), min(points, len(vectors_ND)), False)
    return vectors_ND[np.sort(rows)].astype(np.float32)


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
