"""From nearest fingerprints to "this track, at this second" (paper, section II-D).

Each neighbor proposes where the query would have to start in its track (eq. 7, offset
compensation). Every proposal is scored with the exact fingerprints along the whole query (eq. 8,
grafp.index.scoring). The model's offset correction is taken off here, for queries, timelines and
`grafp.locate` alike. Needs NumPy alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import numpy as np

from grafp.index.ids import SEGMENT_BITS, ordinals_of, segments_of
from grafp.index.proposals import Alignments
from grafp.index.scoring import TRIED, Match, Tracks

NEIGHBORS = 40  # per fingerprint, where a catalog has no other number
MAX_SPEED_CHANGE, HIGHEST_SPEED_CHANGE = 0.05, 0.15
"""How much faster or slower than as cataloged a query may be, unless told otherwise."""
CANDIDATES = 64  # proposals scored exactly per query, those with the most votes first; likewise
_PRODUCTS_AT_ONCE = 1 << 22
_SHIFT = 1 << (SEGMENT_BITS + 5)  # a start before the track's beginning stays in its own track
_DRIFT = 1.5  # hops at the ends of a query, from which on votes are counted at each speed
_AT_SPEEDS = 4  # chunks of tracks in which they are


@dataclass(frozen=True)
class Effort:
    """How much of a query is searched, and in how much of the catalog."""

    fingerprints: int | None
    """So many of a query, spread evenly; None for all."""
    lists: int
    """For each of them so many, at least."""
    lists_in_all: int = 0
    """For all of them together at least so many: a short query gets more for each."""
    candidates: int | None = None
    """Proposals to score exactly; None for the catalog's number."""
    tried: int = TRIED
    """Tracks in which the alignment is refined."""

    @classmethod
    def by_length(cls, nprobe: int) -> "Effort":
        """What finds a query that is hard to find; chosen on validation music."""
        return cls(16, nprobe, lists_in_all=8 * nprobe)

    def rows(self, length: int) -> np.ndarray:
        """Numbers of the fingerprints of a query that are searched."""
        return _spread(min(length, self.fingerprints or length), length)

    def lists_each(self, length: int) -> int:
        """For each fingerprint that is searched of a query of so many."""
        count = min(length, self.fingerprints or length)
        return max(self.lists, -(-self.lists_in_all // max(1, count)))


@cache
def _spread(count: int, length: int) -> np.ndarray:
    rows = np.unique(np.linspace(0, length - 1, count).astype(int))
    rows.flags.writeable = False
    return rows


QUICK = Effort(6, 16, candidates=16, tried=4)
"""What finds nearly all clips of 5 s, at a small part of the work; chosen on validation music."""
NEAR_DUPLICATES = Effort(6, 4, candidates=16, tried=2)
"""A duplicate is so near that the first lists have its fingerprints. The track itself is the other
one that is tried."""


class Searcher(Protocol):
    """A whole catalog that can be searched, wherever its shards are."""

    @property
    def effort(self) -> Effort:
        """What finds a query that is hard to find."""

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

    def nearest(
        self, queries_QD: np.ndarray, k: int, nprobe: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest fingerprints of each query: similarities and ids, (queries, k).

        Best first, equals by id; id -1 where there are no more. `nprobe`: lists to search for
        each, instead of the catalog's number.
        """

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        """See `Tracks.products`."""

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        """See `Tracks.matches`; for each query the best tracks of the whole catalog."""


def find_matches(
    queries: Sequence[np.ndarray],
    catalog: Searcher,
    *,
    tried: int | None = None,
    neighbors: int | None = None,
    candidates: int | None = None,
    change: float = MAX_SPEED_CHANGE,
    effort: Effort | None = None,
) -> list[list[Match]]:
    """The best position in each of the best tracks, for every query, best first.

    The answers do not depend on how the catalog is divided into shards.

    Args:
        queries: fingerprints of each query, float32 (segments, 128), one every query hop.
        catalog: all shards, here or elsewhere; each is asked twice for all queries together.
        tried: tracks per query, instead of the effort's.
        neighbors, candidates: instead of the catalog's.
        change: greatest change of the speed, as a share.
        effort: default: the catalog's.
    """
    if not sum(map(len, queries)):
        return [[] for _ in queries]
    effort, k = effort or catalog.effort, neighbors or catalog.neighbors
    return best_matches(
        queries,
        _nearest(queries, catalog, k, effort),
        catalog,
        tried or effort.tried,
        change,
        candidates or effort.candidates,
    )


def _nearest(
    queries: Sequence[np.ndarray], catalog: Searcher, k: int, effort: Effort
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Similarities and ids of neighbors of each query; id -1 where a fingerprint is not searched.

    Queries of which a fingerprint is looked for in as many lists are searched together.
    """
    nearest = [
        (np.full((len(q), k), -np.inf, np.float32), np.full((len(q), k), -1)) for q in queries
    ]
    lists = [effort.lists_each(len(query)) if len(query) else 0 for query in queries]
    for nprobe in sorted(set(lists) - {0}):
        group = [n for n, each in enumerate(lists) if each == nprobe]
        rows = [effort.rows(len(queries[n])) for n in group]
        asked_QD = np.concatenate([queries[n][r] for n, r in zip(group, rows, strict=True)])
        similarity_QK, id_QK = catalog.nearest(asked_QD, k, nprobe)
        cuts = np.cumsum([len(r) for r in rows])[:-1]
        found = zip(np.split(similarity_QK, cuts), np.split(id_QK, cuts), strict=True)
        for n, r, (similarity_RK, id_RK) in zip(group, rows, found, strict=True):
            nearest[n][0][r, : id_RK.shape[1]], nearest[n][1][r, : id_RK.shape[1]] = (
                similarity_RK,
                id_RK,
            )
    return nearest


def best_matches(
    queries: Sequence[np.ndarray],
    nearest: Sequence[tuple[np.ndarray, np.ndarray]],
    catalog: Searcher,
    tried: int,
    change: float,
    candidates: int | None = None,
) -> list[list[Match]]:
    """`find_matches` of queries that were searched before, for they may overlap.

    Args:
        nearest: similarities and ids of the neighbors of each query, both (segments, neighbors).
    """
    candidates = candidates or catalog.candidates
    proposed = [
        _propose(similarity_MK, id_MK, query_MD, catalog.stride, candidates, change)
        for query_MD, (similarity_MK, id_MK) in zip(queries, nearest, strict=True)
    ]
    return [
        [_corrected(match, catalog.offset_correction) for match in matches]
        for matches in catalog.matches(proposed, tried, change)
    ]


def align(
    query_MD: np.ndarray,
    reference_ND: np.ndarray,
    offset_correction: float = 0.0,
    change: float = MAX_SPEED_CHANGE,
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
    for speed in _speeds(len(query_MD), change):
        for first in range(0, len(start_C), at_once):
            part_C = start_C[first : first + at_once]
            ordinal_C, speed_C = np.zeros_like(part_C), np.full(len(part_C), speed)
            asked = Alignments(query_MD, ordinal_C, part_C, speed_C)
            found += recording.matches([asked], 1, 1, change)[0]
    best = max(found, key=lambda match: match.rank_score, default=None)
    return best and _corrected(best, offset_correction)


def _propose(
    similarity_MK: np.ndarray,
    id_MK: np.ndarray,
    query_MD: np.ndarray,
    stride: int,
    candidates: int,
    change: float,
) -> Alignments:
    """Offset compensation (eq. 7): distinct (track, start) pairs, the most supported first."""
    number_M1 = np.arange(len(id_MK))[:, None]
    heard_M = np.asarray(query_MD.any(axis=1))  # silence proposes nothing
    usable_MK = (id_MK >= 0) & heard_M[:, None]
    ordinal_P, weight_P = ordinals_of(id_MK)[usable_MK], similarity_MK[usable_MK]
    reference_P = (segments_of(id_MK) * stride)[usable_MK]
    number_P = np.broadcast_to(number_M1, id_MK.shape)[usable_MK]
    key_P = ordinal_P * (2 * _SHIFT) + reference_P - number_P + _SHIFT
    key_C, where_P = np.unique(key_P, return_inverse=True)
    votes_C = np.bincount(where_P, weight_P, minlength=len(key_C))
    best_C = key_C[np.argsort(-votes_C, kind="stable")[:candidates]]
    ordinal_C, start_C = best_C // (2 * _SHIFT), best_C % (2 * _SHIFT) - _SHIFT
    drifting = _at_speeds(ordinal_P, reference_P, number_P, weight_P, len(query_MD), change)
    return Alignments(
        query_MD,
        *(
            np.concatenate([plain, np.array([line[n] for line in drifting], plain.dtype)])
            for n, plain in enumerate((ordinal_C, start_C.astype(float), np.ones(len(best_C))))
        ),
    )


def _at_speeds(
    ordinal_P: np.ndarray,
    reference_P: np.ndarray,
    number_P: np.ndarray,
    weight_P: np.ndarray,
    length: int,
    change: float,
) -> list[tuple[int, float, float]]:
    """Track, start and speed with the most votes, where a drift spreads them over many starts.

    Votes are those of `_propose`, (votes,). Only the chunks of tracks with the most votes are
    tried, each at all speeds; the middle of the query keeps its position.
    """
    drift = change * (length - 1) / 2
    if drift <= _DRIFT or not len(ordinal_P):
        return []
    beside_P = number_P - (length - 1) / 2
    chunk_P = ((reference_P - beside_P) // (2 * drift)).astype(np.int64)
    key_P = ordinal_P * (2 * _SHIFT) + chunk_P + _SHIFT
    key_C, where_P = np.unique(key_P, return_inverse=True)
    votes_C = np.bincount(where_P, weight_P, minlength=len(key_C))
    after_C = np.searchsorted(key_C, key_C + 1).clip(max=len(key_C) - 1)
    votes_C = votes_C + np.where(key_C[after_C] == key_C + 1, votes_C[after_C], 0.0)
    lines = []
    for key in key_C[np.argsort(-votes_C, kind="stable")[:_AT_SPEEDS]]:
        here_P = (key_P == key) | (key_P == key + 1)
        best = (-np.inf, 0.0, 1.0)
        for speed in _speeds(length, change):
            middle_P = np.rint(reference_P[here_P] - speed * beside_P[here_P]).astype(np.int64)
            votes = np.bincount(middle_P - middle_P.min(), weight_P[here_P])
            middle = int(votes.argmax()) + int(middle_P.min())
            best = max(best, (float(votes.max()), middle - speed * (length - 1) / 2, speed))
        lines.append((int(key // (2 * _SHIFT)), best[1], best[2]))
    return lines


def _speeds(length: int, change: float) -> list[float]:
    """Speeds of which a query that long can tell two apart: a hop at its ends; 1 first."""
    count = int(change * (length - 1) / 2)
    steps = [change * n / count for n in range(1, count + 1)] if count else []
    return [1.0, *(1 + sign * step for step in steps for sign in (1, -1))]


def _corrected(match: Match, offset_correction: float) -> Match:
    return replace(match, start=match.start - offset_correction)
