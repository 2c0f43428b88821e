#!/usr/bin/env python3
"""Rates of one core in indexing and searching, from which `python -m grafp.plan` computes.

    python benchmarks/rates.py --catalog CATALOG

Fingerprints are those of a published catalog of a million or more. Seconds are those of a core, so
other work on the machine changes them little. Centroids of the larger lists are fingerprints.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.common import cli

_QUERIES, _AT_ONCE = 320, 32


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--catalog", required=True, metavar="URI", help="a published catalog")
    parser.add_argument(
        "--lists", type=cli.numbers(256, 2**20), default="1024,8192,32768,262144", metavar="N,..",
        help="numbers of lists to choose from",
    )  # fmt: skip
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    import faiss

    from grafp.catalog.catalog import Catalog
    from grafp.catalog.opened import open_search
    from grafp.catalog.shard_files import codes_within

    faiss.omp_set_num_threads(1)
    catalog = Catalog.open_published(chosen.catalog)
    manifest = catalog.manifest
    assert manifest is not None
    search = open_search(catalog.root, manifest)
    assert search.quantizer
    [tracks] = search.tracks
    count = int(tracks.counts_T.sum())
    vectors_ND = tracks.vectors_ND[np.arange(min(count, 1 << 20))]
    rates = {"lists": [_lists(vectors_ND, int(lists)) for lists in chosen.lists]}
    rates["codecs"] = {codec: _codec(vectors_ND, codec) for codec in _codecs()}
    rates["search_ms"] = _search_ms(search, catalog)
    rates["merged"] = _merged(
        codes_within(catalog.root, manifest.shards, range(search.quantizer.ntotal))
    )
    for name, value in rates.items():
        print(f"{name}: {value}")
    return rates, cli.DONE


def _codecs() -> list[str]:
    from grafp.index.size import CODE_BYTES

    return list(CODE_BYTES)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _noisy(vectors_ND: np.ndarray) -> np.ndarray:
    """At a cosine of about 0.8 to what they were."""
    rng = np.random.default_rng(0)
    noise_ND = rng.normal(0.0, 0.75 / vectors_ND.shape[1] ** 0.5, vectors_ND.shape)
    noisy_ND: np.ndarray = (vectors_ND + noise_ND).astype(np.float32)
    return noisy_ND


def _lists(vectors_ND: np.ndarray, lists: int) -> dict[str, float]:
    """Microseconds of a fingerprint: to choose a list as it is indexed, and lists of a query."""
    import faiss

    from grafp.index.cells import CellAssignment, in_cells
    from grafp.index.ivfpq import choose_lists
    from grafp.index.size import FLAT_LISTS

    rows = np.random.default_rng(0).permutation(len(vectors_ND))[:lists]
    centroids_LD = np.ascontiguousarray(vectors_ND[rows])
    some_ND, noisy_QD = vectors_ND[: 1 << 14], _noisy(vectors_ND[:: len(vectors_ND) // 1_920])
    quantizer: faiss.Index
    if lists > FLAT_LISTS:
        quantizer, cells = in_cells(centroids_LD), CellAssignment(centroids_LD)
        indexed_s = _seconds(lambda: cells.nearest(some_ND))
    else:
        quantizer = faiss.IndexFlatIP(vectors_ND.shape[1])
        quantizer.add(centroids_LD)
        indexed_s = _seconds(lambda: quantizer.search(some_ND, 1))
    found = {"index": indexed_s / len(some_ND)}
    for nprobe in (16, 64, 512):
        groups = np.array_split(noisy_QD, len(noisy_QD) // (6 * _AT_ONCE))
        seconds = _seconds(lambda n=nprobe, g=groups: [choose_lists(quantizer, q, n) for q in g])
        found[f"choose {nprobe}"] = seconds / len(noisy_QD)
    rates = {name: round(1e6 * each, 1) for name, each in found.items()}
    return {"lists": lists, **rates, "nearest": _nearest_share(quantizer, centroids_LD, noisy_QD)}


def _nearest_share(quantizer: Any, centroids_LD: np.ndarray, queries_QD: np.ndarray) -> float:
    """Of the 64 nearest lists, how many are chosen."""
    from grafp.index.ivfpq import choose_lists

    some_QD = queries_QD[:200]
    nearest_QL = np.argpartition(-(some_QD @ centroids_LD.T), 64, axis=1)[:, :64]
    chosen_QL = choose_lists(quantizer, some_QD, 64).list_QL
    pairs = zip(chosen_QL, nearest_QL, strict=True)
    return round(float(np.mean([np.isin(*pair).mean() for pair in pairs])), 3)


def _codec(vectors_ND: np.ndarray, codec: str) -> dict[str, float]:
    """Fingerprints that are coded, and codes that are compared, in a second."""
    from grafp.index.ivfpq import choose_lists, encode, parse_index, quantizer_of, train_index
    from grafp.index.lists import Lists
    from grafp.index.size import IndexParameters

    some_ND = vectors_ND[:300_000]
    trained = train_index(some_ND[::15], IndexParameters(256, codec, 16, 20_000))
    index, ids_N = parse_index(trained), np.arange(len(some_ND))
    codes = encode(trained, some_ND, ids_N)
    coded_s = _seconds(lambda: encode(trained, some_ND[: 1 << 16], ids_N[: 1 << 16]))
    lists = Lists.filled(index, codes, range(256))
    probes = choose_lists(quantizer_of(index), _noisy(some_ND[::1_000]), 16)
    scanned_s = _seconds(lambda: lists.nearest(probes, 72))
    return {
        "coded": round((1 << 16) / coded_s),
        "compared": round(lists.scanned(probes) / scanned_s),
    }


def _search_ms(search: Any, catalog: Any) -> dict[str, float]:
    """Milliseconds of a query of 5 s with noise, of its background, and of a near duplicate."""
    from grafp.catalog.identify import background_of
    from grafp.index.alignment import NEAR_DUPLICATES, QUICK, find_matches
    from grafp.index.evidence import _QUICK_BESIDE, reached

    [tracks] = search.tracks
    long = np.flatnonzero(tracks.counts_T > 100)
    chosen = np.random.default_rng(0).choice(long, _QUERIES)
    queries = [_noisy(tracks.vectors_ND[tracks.first_rows_T[t] + np.arange(41)]) for t in chosen]
    groups = [queries[n : n + _AT_ONCE] for n in range(0, _QUERIES, _AT_ONCE)]
    background = background_of(catalog)
    works = {
        "quick": lambda group: find_matches(group, search, effort=QUICK),
        "whole": lambda group: find_matches(group, search),
        "background": lambda group: reached(group, background),
        "quick background": lambda group: reached(group, background, effort=_QUICK_BESIDE),
        "near duplicate": lambda group: find_matches(
            group, search, change=0.0, effort=NEAR_DUPLICATES
        ),
    }
    found = {}
    for name, work in works.items():
        work(groups[0])  # opens what it needs
        found[name] = _seconds(lambda work=work: [work(group) for group in groups])
    return {name: round(1000 * seconds / _QUERIES, 2) for name, seconds in found.items()}


def _merged(codes: Any) -> dict[str, float]:
    """Codes that are read, sorted and written in a second; milliseconds to read a few lists."""
    from grafp.catalog.catalog import Catalog
    from grafp.catalog.shard_files import read_codes, write_shard
    from grafp.index.codes import Codes

    part_N = np.random.default_rng(0).integers(0, 4, len(codes))
    lists = range(int(codes.list_N[-1]) + 1)
    with tempfile.TemporaryDirectory() as root:
        catalog = Catalog(root)
        entries = [
            write_shard(catalog, f"index/i/{n}", codes.at(np.flatnonzero(part_N == n)), lists, 1.0)
            for n in range(4)
        ]

        merged: list[Any] = []

        def merge() -> None:
            whole = Codes.together([read_codes(root, entry) for entry in entries])
            merged.append(write_shard(catalog, "index/i/all", whole, lists, 1.0))

        merged_s = _seconds(merge)
        few_s = _seconds(lambda: [read_codes(root, merged[0], range(n, n + 1)) for n in lists[:50]])
    return {"merged": round(len(codes) / merged_s), "read_ms": round(1000 * few_s / 50, 2)}


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
