#!/usr/bin/env python3
"""The index at 1, 10 and 100 million fingerprints: how it is built, what it finds, what that costs.

    python benchmarks/scale.py
    python benchmarks/scale.py --fingerprints 1000000 --fill-at-most 250000

Synthetic fingerprints (random walks between cluster centers, as in benchmarks/query.py) in shards
of at most --shard, searched by the project's own search. A catalog larger than --fill-at-most
gets the trained of its full size, but only so many fingerprints: what grows with the shards is
multiplied, and its row is marked "extrapolated".
Recall is that of the part that was populated: in the whole catalog more wrong fingerprints compete,
so it is a bound from above. Seconds are of cores (user and system time), so other work on the
machine changes them little.

The default takes 7 minutes on two cores, 4 GB of memory and 3 GB of temporary disk.
Rates of `python -m grafp.plan` come from here and from benchmarks/records.py.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from query import BATCH, QUERY_SEGMENTS, TRACK_SEGMENTS, make_catalog, noisy, sample

from pipelines.common import cli

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not count as work
_NOISED = {1: "0.80", 3: "0.51", 5: "0.33"}
"""How often noise is added to a query, and the cosine to what is stored that remains."""
_ITERATIONS = 10  # of k-means, as grafp.index.ivfpq.train_index


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--fingerprints",
        type=cli.numbers(10_000, 1e12),
        default="1000000,10000000,100000000",
        metavar="N,..",
        help="catalog sizes",
    )
    parser.add_argument(
        "--fill-at-most",
        type=cli.positive_int,
        default=10_000_000,
        metavar="N",
        help="fingerprints really added; results for larger catalogs are extrapolated",
    )
    parser.add_argument(
        "--shard",
        type=cli.positive_int,
        default=1_000_000,
        metavar="N",
        help="largest number of fingerprints in a shard",
    )
    parser.add_argument(
        "--nprobe",
        type=cli.numbers(1, 1 << 18),
        metavar="N,..",
        help="values of nprobe to measure (default: as the catalog)",
    )
    parser.add_argument(
        "--queries", type=cli.positive_int, default=320, metavar="N", help="queries of each length"
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp.index.size import IndexParameters

    most = min(int(max(chosen.fingerprints)), chosen.fill_at_most)
    rows: list[dict[str, Any]] = []
    measured: dict[Any, list[dict[str, Any]]] = {}
    print(f"| {' | '.join(_HEADS)} |\n{'|---' * len(_HEADS)}|")
    with tempfile.TemporaryDirectory() as folder:
        vectors_ND = make_catalog(Path(folder, "vectors"), max(1, most // TRACK_SEGMENTS))
        for size in chosen.fingerprints:
            parameters, part_ND = IndexParameters.for_size(int(size)), vectors_ND[: int(size)]
            same = parameters, len(part_ND)
            if same not in measured:
                measured[same] = _measured(parameters, part_ND, chosen)
            for row in measured[same]:
                rows.append(_grown(row, int(size)))
                print(_line(rows[-1]))
    print(f"found: with noise, at a cosine of {' / '.join(_NOISED.values())} to what is stored")
    if any(row["extrapolated"] for row in rows):
        print("extrapolated: found in the populated part; in the whole more wrong ones compete")
    rates = _rates(rows) if len({row["nlist"] for row in rows}) > 1 else {}
    if rates:
        print("rates of one core: " + _listed(rates))
    return {"rows": rows, "rates": rates}, cli.DONE


def _measured(
    parameters: Any, vectors_ND: np.ndarray, chosen: argparse.Namespace
) -> list[dict[str, Any]]:
    """An index of these fingerprints: trained, populated, and searched once or more."""
    from grafp.index.ivfpq import train_index

    began = time.monotonic()
    sample_ND = sample(vectors_ND, parameters.training_points)
    train_s, trained = _timed(lambda: train_index(sample_ND, parameters))
    shards, fill_s, index_bytes = _populated(trained, vectors_ND, chosen.shard)
    row = {
        "filled": len(vectors_ND),
        "nlist": parameters.nlist,
        "train_s": round(train_s, 1),
        "train_products_per_s": round(_ITERATIONS * len(sample_ND) * parameters.nlist / train_s),
        "fill_per_s": round(len(vectors_ND) / fill_s),
        "index_bytes": round(index_bytes / len(vectors_ND), 1),
    }
    rows = []
    for nprobe in chosen.nprobe or [parameters.nprobe]:
        found = _searched(shards, int(nprobe), vectors_ND, chosen.queries)
        seconds = round(time.monotonic() - began, 1)
        rows.append({**row, "nprobe": int(nprobe), **found, "seconds": seconds})
    return rows


def _grown(row: dict[str, Any], size: int) -> dict[str, Any]:
    """What was measured, of a catalog of this size: every query visits all of its shards."""
    times = size / row["filled"]
    extrapolated = {
        name: round(row[name] * times, 2) for name in ("scan_ms", "lists_visited", "codes_scanned")
    }
    more = extrapolated["scan_ms"] - row["scan_ms"]
    return {
        "fingerprints": size,
        "extrapolated": row["filled"] < size,
        **row,
        **extrapolated,
        "query_ms": round(row["query_ms"] + more, 2),
        "fill_s": round(size / row["fill_per_s"]),
    }


def _populated(trained: bytes, vectors_ND: np.ndarray, most: int) -> tuple[list, float, int]:
    """Shards, two populated at once; core seconds and bytes of the index."""
    from grafp.index.shards import HalfVectors, Shard

    from grafp.index.ids import fingerprint_ids
    from grafp.index.ivfpq import parse_index, populate

    most -= most % TRACK_SEGMENTS  # whole tracks

    def one(first: int) -> tuple[Shard, float, int]:
        part_ND = vectors_ND[first : first + most]
        ordinals = np.arange(first, first + len(part_ND), TRACK_SEGMENTS) // TRACK_SEGMENTS
        counts = np.full(len(ordinals), TRACK_SEGMENTS)
        ids = np.concatenate([fingerprint_ids(o, np.arange(TRACK_SEGMENTS)) for o in ordinals])
        began = time.thread_time()  # `populate` works in this thread alone
        data = populate(trained, part_ND, ids)
        used = time.thread_time() - began
        shard = Shard(
            HalfVectors(part_ND), ordinals, np.cumsum(counts) - counts, counts, parse_index(data)
        )
        return shard, used, len(data)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(one, range(0, len(vectors_ND), most)))
    shards, seconds, sizes = zip(*done, strict=True)
    return list(shards), sum(seconds), sum(sizes)


def _searched(shards: list, nprobe: int, vectors_ND: np.ndarray, count: int) -> dict[str, Any]:
    """Queries of 5 s and of 1 s: what was found, and core time by step for those of 5 s."""
    from grafp.index.shards import ShardSearch

    rng = np.random.default_rng(1)
    tracks = len(vectors_ND) // TRACK_SEGMENTS
    where = [
        (int(rng.integers(tracks)), int(rng.integers(TRACK_SEGMENTS - QUERY_SEGMENTS + 1)))
        for _ in range(count)
    ]
    queries = [vectors_ND[t * TRACK_SEGMENTS + s :][:QUERY_SEGMENTS] for t, s in where]
    asked = {}
    for number in range(1, max(_NOISED) + 1):
        queries = asked[number] = [noisy(query_MD, rng) for query_MD in queries]
    search = ShardSearch(shards, nprobe)
    found = {
        cosine: {
            "5s": _recall(search, asked[number], where),
            "1s": _recall(search, [query_MD[:1] for query_MD in asked[number]], where),
        }
        for number, cosine in _NOISED.items()
    }
    return {**_cost(search, asked[1], where), "found": found}


def _cost(search: Any, queries: list, where: list[tuple[int, int]]) -> dict[str, Any]:
    """Of one query, by step."""
    from grafp.index.ivfpq import choose_lists

    padded = [_padded(shard.index) for shard in search.shards]
    choosing, visited, codes = 0.0, 0, 0
    for first in range(0, len(queries), BATCH):
        batch_QD = np.concatenate(queries[first : first + BATCH])
        began = time.process_time()
        probes = choose_lists(search.shards[0].index, batch_QD, search.nprobe)
        choosing += time.process_time() - began
        visited += probes.list_QL.size * len(padded)
        codes += sum(int(padded_L[probes.list_QL].sum()) for padded_L in padded)
    spent = {"nearest": 0.0, "matches": 0.0}
    for name in spent:
        setattr(search, name, _adding(getattr(search, name), spent, name))
    total, _ = _timed(lambda: _recall(search, queries, where))
    seconds = {
        "choose": choosing,
        "scan": spent["nearest"] - choosing,
        "score": spent["matches"],
        "rest": total - spent["nearest"] - spent["matches"],
    }
    ms = {f"{name}_ms": round(1e3 * used / len(queries), 2) for name, used in seconds.items()}
    return {
        "query_ms": round(sum(ms.values()), 2),
        **ms,
        "lists_visited": round(visited / len(queries)),
        "codes_scanned": round(codes / len(queries)),
    }


def _recall(search: Any, queries: list[np.ndarray], where: list[tuple[int, int]]) -> float:
    """Share of the queries whose best answer is the track and the hop that they were cut from."""
    from grafp.index.alignment import find_matches

    right = 0
    for first in range(0, len(queries), BATCH):
        found = find_matches(queries[first : first + BATCH], search)
        for position, matches in zip(where[first : first + BATCH], found, strict=True):
            right += bool(matches) and (matches[0].ordinal, round(matches[0].start)) == position
    return round(right / len(queries), 4)


def _padded(index: Any) -> np.ndarray:
    """Codes scanned when a list is searched: they are kept in blocks of 32, the last one padded."""
    sizes = np.array([index.invlists.list_size(number) for number in range(index.nlist)])
    return -(-sizes // 32) * 32


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Core seconds of all threads, and the result."""
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def _adding(call: Callable, spent: dict[str, float], name: str) -> Callable:
    """The same call, which adds its core seconds to `spent[name]`."""

    def call_timed(*arguments: Any) -> Any:
        used, result = _timed(lambda: call(*arguments))
        spent[name] += used
        return result

    return call_timed


def _rates(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What one core does in a second: comparisons with a centroid, codes scanned, queries.

    `filed`: fingerprints added, their comparisons with the centroids apart.
    """
    lists = np.array([row["nlist"] for row in rows], float)
    fill_s = np.array([1 / row["fill_per_s"] for row in rows])
    scaled = np.stack([lists, np.ones(len(rows))], axis=1) / fill_s[:, None]
    list_s, each_s = np.linalg.lstsq(scaled, np.ones(len(rows)), rcond=None)[0]
    each: dict[str, list[float]] = {
        "training": [row["train_products_per_s"] for row in rows],
        "choosing": [1e3 * row["nlist"] * QUERY_SEGMENTS / row["choose_ms"] for row in rows],
        "search": [1e3 * row["codes_scanned"] / row["scan_ms"] for row in rows],
        "scored": [1e3 / (row["score_ms"] + row["rest_ms"]) for row in rows],
    }
    return {
        "filling": round(1 / list_s),
        "filed": round(1 / each_s),
        **{name: round(float(np.mean(values))) for name, values in each.items()},
    }


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,g}" for name, value in values.items())


_HEADS = (
    "fingerprints", "lists, nprobe", "train, s", "populate, /s", "populate, h", "index, bytes",
    "query, ms", "choose / scan / score / rest", "found at 5 s, %", "at 1 s, %", "",
)  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    """Of a Markdown table."""
    steps = (f"{row[f'{name}_ms']:,.1f}" for name in ("choose", "scan", "score", "rest"))
    cells = [
        f"{row['fingerprints']:,}",
        f"{row['nlist']:,}, {row['nprobe']:,}",
        f"{row['train_s']:,.0f}",
        f"{row['fill_per_s']:,}",
        f"{row['fill_s'] / 3600:.2f}",
        f"{row['index_bytes']:.0f}",
        f"{row['query_ms']:,.1f}",
        " / ".join(steps),
        *(
            " / ".join(f"{100 * each[length]:.1f}" for each in row["found"].values())
            for length in ("5s", "1s")
        ),
        f"extrapolated from {row['filled']:,}" if row["extrapolated"] else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
