"""Alignments of a query with tracks, scored with exact fingerprints (paper, section II-D, eq. 8).

Starts and positions count in hops of the query; a catalog's fingerprints may be `stride` of them
apart. Needs NumPy alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from grafp.model.fingerprint import peak_between

_MIN_OVERLAP = 0.5  # of the query or the track, whichever is shorter
_ROWS_AT_ONCE = 1 << 17  # reference fingerprints in memory while scoring: 64 MB


@dataclass(frozen=True)
class Alignments:
    """A query laid beside tracks: every pair of ordinal and start is one alignment to score."""

    query_MD: np.ndarray
    ordinal_C: np.ndarray
    start_C: np.ndarray
    """Where in the track the query's first fingerprint lies, in query hops; may be negative."""

    def only(self, chosen_C: np.ndarray) -> "Alignments":
        """Some of them, by number or by a mask."""
        return Alignments(self.query_MD, self.ordinal_C[chosen_C], self.start_C[chosen_C])


@dataclass(frozen=True)
class Match:
    """One position in the catalog that a query may come from."""

    ordinal: int
    start: float
    """Where in the track the query's first fingerprint lies, in query hops; interpolated."""
    score: float
    """Mean inner product over the aligned fingerprints."""
    rank_score: float
    """Eq. 8 with zeros where the query sticks out of the track; ranks the matches."""
    grid_score: float
    """`rank_score` at the proposed start; chooses which tracks are answers."""
    first: int
    last: int
    """The query's fingerprints that lie within the track, both included."""


class Vectors(Protocol):
    """Fingerprints of which rows can be picked: (rows, 128) of any floating type."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Tracks:
    """Exact fingerprints of some tracks, one after another."""

    vectors_ND: Vectors
    ordinals_T: np.ndarray
    """The tracks, ascending."""
    first_rows_T: np.ndarray
    counts_T: np.ndarray
    """Segments of each track; 0 for one that is no answer any more."""

    def positions(self, ordinals: np.ndarray) -> np.ndarray:
        """Where these tracks are among `ordinals_T`, or would be, in their shape."""
        after = np.searchsorted(self.ordinals_T, ordinals)
        positions: np.ndarray = np.minimum(after, len(self.ordinals_T) - 1)
        return positions

    def holds(self, ordinal_C: np.ndarray) -> np.ndarray:
        """Which of these tracks are here, bool (alignments,)."""
        here_C: np.ndarray = self.ordinals_T[self.positions(ordinal_C)] == ordinal_C
        return here_C

    def products(self, asked: Alignments, stride: int) -> np.ndarray:
        """Inner products of query and track for each alignment, float32 (alignments, query).

        NaN where the track has no fingerprint: outside of it, between two of a catalog with a
        longer hop, or everywhere if query and track hardly overlap. All tracks must be here.
        """
        position_C = self.positions(asked.ordinal_C)
        count_C, first_row_C = self.counts_T[position_C], self.first_rows_T[position_C]
        hop_CM = asked.start_C[:, None] + np.arange(len(asked.query_MD))
        span_C = np.where(count_C > 0, (count_C - 1) * stride + 1, 0)  # in query hops
        within_CM = (hop_CM >= 0) & (hop_CM < span_C[:, None])
        least_C = np.maximum(1, _MIN_OVERLAP * np.minimum(len(asked.query_MD), span_C))
        within_CM &= (within_CM.sum(axis=1) >= least_C)[:, None]
        pair_C, pair_M = np.nonzero(within_CM & (hop_CM % stride == 0))
        row_P = first_row_C[pair_C] + hop_CM[pair_C, pair_M] // stride
        products_CM = np.full(within_CM.shape, np.nan, np.float32)
        for first in range(0, len(row_P), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            reference_PD = self.vectors_ND[row_P[part]].astype(np.float32, copy=False)
            query_PD = asked.query_MD[pair_M[part]]
            products_CM[pair_C[part], pair_M[part]] = np.einsum("pd,pd->p", reference_PD, query_PD)
        return products_CM

    def matches(self, asked: Alignments, stride: int, top_k: int) -> list[Match]:
        """The best start in each of the best tracks, refined between grid points; best first."""
        products_CM = self.products(asked, stride)
        rank_C = _rank_scores(products_CM, asked.start_C, stride)
        possible = np.flatnonzero(~np.isnan(products_CM).all(axis=1))
        order = possible[np.lexsort((asked.ordinal_C[possible], -rank_C[possible]))]
        _, first_seen = np.unique(asked.ordinal_C[order], return_index=True)
        chosen_W = order[np.sort(first_seen)[:top_k]]
        around = np.arange(-2, 3)
        start_W5 = asked.start_C[chosen_W][:, None] + around
        ordinal_W = asked.ordinal_C[chosen_W]
        look = Alignments(asked.query_MD, np.repeat(ordinal_W, len(around)), start_W5.ravel())
        shape = (len(chosen_W), len(around), len(asked.query_MD))
        products_W5M = self.products(look, stride).reshape(shape)
        found = [
            _refined(int(ordinal_W[w]), start_W5[w], products_W5M[w], stride, float(rank_C[c]))
            for w, c in enumerate(chosen_W)
        ]
        return best_of([found], top_k)


def best_of(parts: Iterable[Sequence[Match]], top_k: int) -> list[Match]:
    """The best of matches found in several sets of tracks, best first."""
    found = sorted(
        (match for part in parts for match in part),
        key=lambda match: (-match.grid_score, match.ordinal),
    )
    return sorted(found[:top_k], key=lambda match: (-match.rank_score, match.ordinal))


def _rank_scores(products_CM: np.ndarray, start_C: np.ndarray, stride: int) -> np.ndarray:
    """Eq. 8; where the query sticks out of the track, its fingerprints count as zeros."""
    first_C = -start_C % stride
    comparable_C = -(-(products_CM.shape[1] - first_C) // stride)
    rank_C: np.ndarray = np.nansum(products_CM, axis=1) / np.maximum(comparable_C, 1)
    return rank_C


def _refined(
    ordinal: int, start_5: np.ndarray, products_5M: np.ndarray, stride: int, grid_score: float
) -> Match:
    """The start refined by a parabola through three neighboring scores."""
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
        grid_score=grid_score,
        # Between two fingerprints of the track nothing was compared, but it lies within.
        first=0 if first < stride else int(first),
        last=length - 1 if last >= length - stride else int(last),
    )
