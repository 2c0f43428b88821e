"""From nearest fingerprints to "this track, at this second" (paper, section II-D).

Each neighbor proposes where the query would have to start in its track (eq. 7, offset
compensation). Every proposal is scored with the exact fingerprints along the whole query (eq. 8,
grafp.index.scoring). The model's offset correction is taken off here, for queries, timelines and
`grafp.locate` alike. Needs NumPy alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from grafp.index.ids import SEGMENT_BITS, ordinals_of, segments_of
from grafp.index.scoring import Alignments, Match, Tracks

NEIGHBORS = 40  # per fingerprint, where a catalog has no other number
CANDIDATES = 64  # proposals scored exactly per query, those with the most votes first; likewise
_PRODUCTS_AT_ONCE = 1 << 22
_SHIFT = 1 << (SEGMENT_BITS + 5)  # a start before the track's beginning stays in its own track


class Searcher(Protocol):
    """A whole catalog that can be searched, wherever its shards are."""

    @property
    def stride(self) -> int:
        """Query hops between two fingerprints of the catalog."""

    @property
    def offset_correction(self) -> float:
        """How much later than the truth the model's offsets are, in query hops."""

    @property
    def neighbors(self) -> int:
        """Nearest fingerprints to find for each query fingerprint."""

    @property
    def candidates(self) -> int:
        """Proposals to score exactly for each query."""

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest fingerprints of each query: similarities and ids, (queries, k).

        Best first, equals by id; id -1 where there are no more.
        """

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        """See `Tracks.products`."""

    def matches(self, asked: Sequence[Alignments], top_k: int) -> list[list[Match]]:
        """See `Tracks.matches`; for each query the best tracks of the whole catalog."""


def find_matches(
    queries: Sequence[np.ndarray],
    catalog: Searcher,
    *,
    top_k: int = 1,
    neighbors: int | None = None,
    without: Sequence[int] | None = None,
) -> list[list[Match]]:
    """The best position in each of the best tracks, for every query.

    The answers do not depend on how the catalog is divided into shards.

    Args:
        queries: fingerprints of each query, float32 (segments, 128), one every query hop.
        catalog: all shards, here or elsewhere; each is asked twice for all queries together.
        top_k: tracks wanted per query.
        neighbors: instead of the catalog's.
        without: for each query the ordinal of a track that must not be its answer.

    Returns one list per query, best first, at most `top_k` long.
    """
    if not sum(map(len, queries)):
        return [[] for _ in queries]
    bounds = np.cumsum([0, *map(len, queries)])
    similarity_QK, id_QK = catalog.nearest(np.concatenate(queries), neighbors or catalog.neighbors)
    if without is not None:
        id_QK[ordinals_of(id_QK) == np.repeat(without, np.diff(bounds))[:, None]] = -1
    parts = [slice(*bounds[number : number + 2]) for number in range(len(queries))]
    return best_matches(queries, [(similarity_QK[p], id_QK[p]) for p in parts], catalog, top_k)


def best_matches(
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
        _propose(similarity_MK, id_MK, query_MD, catalog.stride, catalog.candidates)
        for query_MD, (similarity_MK, id_MK) in zip(queries, nearest, strict=True)
    ]
    return [
        [_corrected(match, catalog.offset_correction) for match in matches]
        for matches in catalog.matches(proposed, top_k)
    ]


def align(
    query_MD: np.ndarray, reference_ND: np.ndarray, offset_correction: float = 0.0
) -> Match | None:
    """The best start of a query in one recording, every start tried; None if either is empty.

    `offset_correction`: see `Searcher`.
    """
    if len(query_MD) == 0 or len(reference_ND) == 0:
        return None
    recording = Tracks(reference_ND, np.array([0]), np.array([0]), np.array([len(reference_ND)]))
    start_C = np.arange(1 - len(query_MD), len(reference_ND))
    at_once = max(1, _PRODUCTS_AT_ONCE // len(query_MD))
    found = []
    for first in range(0, len(start_C), at_once):
        part_C = start_C[first : first + at_once]
        found.append(recording.matches(Alignments(query_MD, np.zeros_like(part_C), part_C), 1, 1))
    best = max((m for part in found for m in part), key=lambda m: m.rank_score, default=None)
    return best and _corrected(best, offset_correction)


def _propose(
    similarity_MK: np.ndarray, id_MK: np.ndarray, query_MD: np.ndarray, stride: int, candidates: int
) -> Alignments:
    """Offset compensation (eq. 7): distinct (track, start) pairs, the most supported first."""
    number_M1 = np.arange(len(id_MK))[:, None]
    heard_M = np.asarray(query_MD.any(axis=1))  # silence proposes nothing
    usable_MK = (id_MK >= 0) & heard_M[:, None]
    ordinal_P = ordinals_of(id_MK)[usable_MK]
    start_P = (segments_of(id_MK) * stride - number_M1)[usable_MK]
    key_C, where_P = np.unique(ordinal_P * (2 * _SHIFT) + start_P + _SHIFT, return_inverse=True)
    votes_C = np.bincount(where_P, similarity_MK[usable_MK], minlength=len(key_C))
    best_C = key_C[np.argsort(-votes_C, kind="stable")[:candidates]]
    return Alignments(query_MD, best_C // (2 * _SHIFT), best_C % (2 * _SHIFT) - _SHIFT)


def _corrected(match: Match, offset_correction: float) -> Match:
    return replace(match, start=match.start - offset_correction)
