"""From nearest fingerprints to "this track, at this second" (paper, section II-D).

Each neighbor proposes where the query would have to start in its track (eq. 7); every proposal
is scored with the exact fingerprints along the whole query (eq. 8). Positions and starts count
in hops of the query; a catalog's fingerprints may be `stride` of them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grafp.index.ivfpq import SEGMENT_BITS
from grafp.index.shards import Alignments, Searcher, Shard, ShardSearch
from grafp.model.fingerprint import peak_between

NEIGHBORS = 40  # per fingerprint
_CANDIDATES = 64  # proposals scored exactly per query, those with the most votes first
_PRODUCTS_AT_ONCE = 1 << 22
_SHIFT = 1 << (SEGMENT_BITS + 5)  # a start before the track's beginning stays in its own track


@dataclass(frozen=True)
class Match:
    """One place of the catalog that a query may come from."""

    ordinal: int
    start: float
    """Where in the track the query's first fingerprint lies, in query hops; interpolated."""
    score: float
    """Mean inner product over the aligned fingerprints."""
    rank_score: float
    """Eq. 8 with zeros where the query sticks out of the track; ranks the matches."""
    first: int
    last: int
    """The query's fingerprints that lie within the track, both included."""


def find_matches(
    queries: Sequence[np.ndarray],
    catalog: Searcher,
    *,
    top_k: int = 1,
    neighbors: int = NEIGHBORS,
    without: Sequence[int] | None = None,
) -> list[list[Match]]:
    """The best place in each of the best tracks, for every query.

    The answers do not depend on how the catalog is divided into shards.

    Args:
        queries: fingerprints of each query, float32 (segments, 128), one every query hop.
        catalog: all shards, here or elsewhere; each is searched once for all queries.
        top_k: tracks wanted per query.
        without: for each query the ordinal of a track that must not be its answer.

    Returns one list per query, best first, at most `top_k` long.
    """
    if not sum(map(len, queries)):
        return [[] for _ in queries]
    bounds = np.cumsum([0, *map(len, queries)])
    similarity_QK, id_QK = catalog.nearest(np.concatenate(queries), neighbors)
    if without is not None:
        id_QK[(id_QK >> SEGMENT_BITS) == np.repeat(without, np.diff(bounds))[:, None]] = -1
    parts = [slice(*bounds[number : number + 2]) for number in range(len(queries))]
    return best_places(queries, [(similarity_QK[p], id_QK[p]) for p in parts], catalog, top_k)


def best_places(
    queries: Sequence[np.ndarray],
    nearest: Sequence[tuple[np.ndarray, np.ndarray]],
    catalog: Searcher,
    top_k: int,
) -> list[list[Match]]:
    """`find_matches` of queries that were searched before, for they may overlap.

    Args:
        nearest: similarities and ids of the neighbors of each query, both (segments, neighbors).
    """
    proposed = [
        _propose(similarity_MK, id_MK, query_MD, catalog.stride)
        for query_MD, (similarity_MK, id_MK) in zip(queries, nearest, strict=True)
    ]
    winners = [
        _winners(alignments, products_CM, catalog.stride, top_k)
        for alignments, products_CM in zip(proposed, catalog.products(proposed), strict=True)
    ]
    return _refined(queries, winners, catalog)


def align(query_MD: np.ndarray, reference_ND: np.ndarray) -> Match | None:
    """The best place for a query in one recording, every start tried; None if either is empty."""
    if len(query_MD) == 0 or len(reference_ND) == 0:
        return None
    whole = Shard(None, reference_ND, np.array([0]), np.array([0]), np.array([len(reference_ND)]))
    recording = ShardSearch([whole])
    start_C = np.arange(1 - len(query_MD), len(reference_ND))
    at_once = max(1, _PRODUCTS_AT_ONCE // len(query_MD))
    best: list[Match] = []
    for first in range(0, len(start_C), at_once):
        part_C = start_C[first : first + at_once]
        tried = Alignments(query_MD, np.zeros(len(part_C), int), part_C)
        [products_CM] = recording.products([tried])
        [found] = _refined([query_MD], [_winners(tried, products_CM, 1, 1)], recording)
        best += found
    return max(best, key=lambda match: match.rank_score, default=None)


def _propose(
    similarity_MK: np.ndarray, id_MK: np.ndarray, query_MD: np.ndarray, stride: int
) -> Alignments:
    """Offset compensation (eq. 7): distinct (track, start) pairs, the most supported first."""
    position_M1 = np.arange(len(id_MK))[:, None]
    heard_M = np.asarray(query_MD.any(axis=1))  # silence proposes nothing
    usable_MK = (id_MK >= 0) & heard_M[:, None]
    ordinal_P = (id_MK >> SEGMENT_BITS)[usable_MK]
    start_P = ((id_MK & ((1 << SEGMENT_BITS) - 1)) * stride - position_M1)[usable_MK]
    key_C, where_P = np.unique(ordinal_P * (2 * _SHIFT) + start_P + _SHIFT, return_inverse=True)
    votes_C = np.bincount(where_P, similarity_MK[usable_MK], minlength=len(key_C))
    best_C = key_C[np.argsort(-votes_C, kind="stable")[:_CANDIDATES]]
    return Alignments(query_MD, best_C // (2 * _SHIFT), best_C % (2 * _SHIFT) - _SHIFT)


def _winners(
    tried: Alignments, products_CM: np.ndarray, stride: int, top_k: int
) -> list[tuple[int, int]]:
    """The best start (eq. 8) in each of the best tracks: (ordinal, start), best first."""
    rank_C = _rank_scores(products_CM, tried.start_C, stride)
    possible = np.flatnonzero(~np.isnan(products_CM).all(axis=1))
    order = possible[np.lexsort((tried.ordinal_C[possible], -rank_C[possible]))]
    _, first_seen = np.unique(tried.ordinal_C[order], return_index=True)
    chosen = order[np.sort(first_seen)[:top_k]]
    return [(int(tried.ordinal_C[c]), int(tried.start_C[c])) for c in chosen]


def _rank_scores(products_CM: np.ndarray, start_C: np.ndarray, stride: int) -> np.ndarray:
    """Eq. 8; where the query sticks out of the track, its fingerprints count as zeros."""
    first_C = -start_C % stride
    comparable_C = -(-(products_CM.shape[1] - first_C) // stride)
    return np.nansum(products_CM, axis=1) / np.maximum(comparable_C, 1)


def _refined(
    queries: Sequence[np.ndarray], winners: list[list[tuple[int, int]]], catalog: Searcher
) -> list[list[Match]]:
    """Matches with starts refined between grid points; one more look at all of them together."""
    around = np.arange(-2, 3)
    looks = [
        Alignments(
            query_MD,
            np.repeat([ordinal for ordinal, _ in mine], 5),
            np.concatenate([start + around for _, start in mine]),
        )
        for query_MD, mine in zip(queries, winners, strict=True)
        if mine
    ]
    products = iter(catalog.products(looks))
    matches = []
    for mine in winners:
        products_CM = next(products) if mine else np.zeros((0, 0))
        found = [
            _match(*place, products_CM[5 * number : 5 * number + 5], catalog.stride)
            for number, place in enumerate(mine)
        ]
        matches.append(sorted(found, key=lambda match: (-match.rank_score, match.ordinal)))
    return matches


def _match(ordinal: int, start: int, products_5M: np.ndarray, stride: int) -> Match:
    """The start refined by a parabola through three neighboring scores."""
    start_5 = start + np.arange(-2, 3)
    rank_5 = _rank_scores(products_5M, start_5, stride)
    covered_5M = ~np.isnan(products_5M)
    rank_5[~covered_5M.any(axis=1)] = -np.inf
    peak = 1 + int(np.argmax(rank_5[1:4]))
    length = products_5M.shape[1]
    first, last = np.flatnonzero(covered_5M[peak])[[0, -1]]
    # At a track's edge a neighbor covers less of the query, so its score says nothing.
    beside_3M = covered_5M[peak - 1 : peak + 2]
    inside = beside_3M[:, :stride].any(axis=1).all() and beside_3M[:, -stride:].any(axis=1).all()
    return Match(
        ordinal=ordinal,
        start=int(start_5[peak])
        + (peak_between(*rank_5[peak - 1 : peak + 2].tolist()) if inside else 0.0),
        score=float(np.nanmean(products_5M[peak])),
        rank_score=float(rank_5[peak]),
        # Between two fingerprints of the track nothing was compared, but it lies within.
        first=0 if first < stride else int(first),
        last=length - 1 if last >= length - stride else int(last),
    )
