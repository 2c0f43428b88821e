"""Alignments of a query with tracks, scored with exact fingerprints (paper, section II-D, eq. 8).

Starts and positions count in hops of the query; a catalog's fingerprints may be `stride` of them
apart. Needs NumPy alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from grafp.index.proposals import Alignments, Stacked
from grafp.index.refine import Refined, Windows, margin, refine
from grafp.model.fingerprint import peak_between

TRIED = 12
"""Tracks of which a query's alignment is refined; the answers, and what is reached elsewhere."""
_LONG = 600  # fingerprints of a query that is not refined between grid points
_SKETCH = 16  # fingerprints along an alignment that tell whether two tracks have the same music
_MIN_OVERLAP = 0.5  # of the query or the track, whichever is shorter
_ROWS_AT_ONCE = 1 << 13  # reference fingerprints read while scoring: 4 MB, which caches hold
_REFINED_AT_ONCE = 1 << 13  # in windows that are refined together


@dataclass(frozen=True)
class Match:
    """One position in the catalog that a query may come from."""

    ordinal: int
    start: float
    """Where in the track the query's first fingerprint lies, in query hops; interpolated."""
    speed: float
    """At which the track plays in the query, 1 as cataloged."""
    score: float
    """Mean inner product over the aligned fingerprints."""
    rank_score: float
    """Eq. 8 with zeros where the query sticks out of the track; ranks the matches."""
    grid_score: float
    """`rank_score` at the proposed start; chooses which tracks are refined."""
    first: int
    last: int
    """The query's fingerprints that lie within the track, both included."""
    sketch_SD: np.ndarray = field(repr=False, compare=False)
    """Fingerprints of the track spread evenly along the query, float16; zeros outside of it."""


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
        return self._products(Stacked.of([asked]), stride)

    def matches(
        self, asked: Sequence[Alignments], stride: int, tried: int, change: float
    ) -> list[list[Match]]:
        """For each query the best alignment in each of its `tried` best tracks, best first.

        `change` is the greatest change of the speed, tried in the best of them. Queries of one
        length are scored together, which takes a fraction of the time.
        """
        found: list[list[Match]] = [[] for _ in asked]
        for length in {len(one.query_MD) for one in asked}:
            group = [n for n, one in enumerate(asked) if len(one.query_MD) == length]
            window = length + 2 * margin(length, change)
            at_once = max(1, _REFINED_AT_ONCE // (tried * window))
            for first in range(0, len(group), at_once):
                some = group[first : first + at_once]
                stacked = Stacked.of([asked[n] for n in some])
                for n, match in self._matches(stacked, stride, tried, change):
                    found[some[n]].append(match)
        return [best_of([matches], tried) for matches in found]

    def _products(self, asked: Stacked, stride: int) -> np.ndarray:
        position_C = self.positions(asked.ordinal_C)
        count_C, first_row_C = self.counts_T[position_C], self.first_rows_T[position_C]
        hop_CM = np.rint(asked.start_C[:, None] + asked.speed_C[:, None] * np.arange(asked.length))
        hop_CM = hop_CM.astype(np.int64)
        span_C = np.where(count_C > 0, (count_C - 1) * stride + 1, 0)  # in query hops
        within_CM = (hop_CM >= 0) & (hop_CM < span_C[:, None])
        least_C = np.maximum(1, _MIN_OVERLAP * np.minimum(asked.length, span_C))
        within_CM &= (within_CM.sum(axis=1) >= least_C)[:, None]
        pair_C, pair_M = np.nonzero(within_CM & (hop_CM % stride == 0))
        row_P = first_row_C[pair_C] + hop_CM[pair_C, pair_M] // stride
        products_CM = np.full(within_CM.shape, np.nan, np.float32)
        for first in range(0, len(row_P), _ROWS_AT_ONCE):
            c_P, m_P = (pair[first : first + _ROWS_AT_ONCE] for pair in (pair_C, pair_M))
            reference_PD = self.vectors_ND[row_P[first : first + _ROWS_AT_ONCE]]
            reference_PD = reference_PD.astype(np.float32, copy=False)
            query_PD = asked.queries_QMD[asked.query_C[c_P], m_P]
            products_CM[c_P, m_P] = np.einsum("pd,pd->p", reference_PD, query_PD)
        return products_CM

    def _matches(
        self, asked: Stacked, stride: int, tried: int, change: float
    ) -> Iterator[tuple[int, Match]]:
        """The number of a query, and a match of it."""
        products_CM = self._products(asked, stride)
        rank_C = _rank_scores(products_CM, asked, stride)
        possible = np.flatnonzero(~np.isnan(products_CM).all(axis=1))
        chosen_W = possible[asked.only(possible).best_tracks(rank_C[possible], tried)]
        if not len(chosen_W):
            return
        some = asked.only(chosen_W)
        if asked.length > _LONG:
            refined = self._along(some, stride)
        else:
            windows = self._windows(some, stride, change)
            query_WMD = asked.queries_QMD[some.query_C]
            refined = refine(query_WMD, windows, some.start_C, some.speed_C, change)
        sketch_WSD = self._sketches(some, refined, stride)
        yield from _described(some, refined, sketch_WSD, rank_C[chosen_W], stride)

    def _windows(self, asked: Stacked, stride: int, change: float) -> Windows:
        """The fingerprints of each track along its alignment at any speed, with a margin.

        All windows of a length are equally wide, or rounding would depend on other queries.
        """
        last = asked.length - 1
        around = margin(asked.length, change) + change * last
        low_W = np.floor((asked.start_C - around) / stride).astype(np.int64)
        row_WK = low_W[:, None] + np.arange(int(np.ceil((last + 2 * around) / stride)) + 3)
        vectors_WKD, inside_WK = self._rows(asked.ordinal_C, row_WK)
        return Windows(vectors_WKD, inside_WK, low_W, stride)

    def _along(self, asked: Stacked, stride: int) -> Refined:
        """The best start of a long query at the proposed speed; windows would fill the memory."""
        steps_5 = np.arange(-2, 3)
        start_W5 = asked.start_C[:, None] + steps_5
        look = asked.only(np.repeat(np.arange(len(start_W5)), 5))
        look = replace(look, start_C=start_W5.ravel())
        products = self._products(look, stride)
        rank_W5 = _rank_scores(products, look, stride).reshape(-1, 5)
        w, h_W = np.arange(len(rank_W5)), 1 + rank_W5[:, 1:4].argmax(axis=1)
        peak_W = peak_between(*(rank_W5[w, h_W + side] for side in (-1, 0, 1)))
        return Refined(
            start_W5[w, h_W] + peak_W,
            asked.speed_C,
            products.reshape(*rank_W5.shape, -1)[w, h_W],
            rank_W5[w, h_W],
        )

    def _sketches(self, asked: Stacked, refined: Refined, stride: int) -> np.ndarray:
        """The tracks' fingerprints spread evenly along the query; see `Match`."""
        at_S = np.linspace(0, asked.length - 1, min(_SKETCH, asked.length))
        row_WS = refined.start_W[:, None] + refined.speed_W[:, None] * at_S
        row_WS = row_WS / stride
        # Fingerprints far apart have nothing between them.
        low_WS = (np.floor(row_WS) if stride == 1 else np.rint(row_WS)).astype(np.int64)
        part_WS1 = (row_WS - low_WS)[..., None] if stride == 1 else 0.0
        low_WSD, _ = self._rows(asked.ordinal_C, low_WS)
        high_WSD, _ = self._rows(asked.ordinal_C, low_WS + 1)
        vectors_WSD = (1 - part_WS1) * low_WSD + part_WS1 * high_WSD
        length_WS1 = np.linalg.norm(vectors_WSD, axis=2, keepdims=True)
        unit_WSD: np.ndarray = vectors_WSD / np.where(length_WS1 > 0, length_WS1, 1.0)
        return unit_WSD.astype(np.float16)

    def _rows(self, ordinal_W: np.ndarray, row_WK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fingerprints of tracks by number, float32, zeros outside; and which are inside."""
        position_W = self.positions(ordinal_W)
        count_W1 = self.counts_T[position_W][:, None]
        inside_WK = (row_WK >= 0) & (row_WK < count_W1)
        kept_WK = row_WK.clip(0, np.maximum(count_W1, 1) - 1)
        rows = (self.first_rows_T[position_W][:, None] + kept_WK).ravel()
        vectors_WKD = self.vectors_ND[rows].astype(np.float32, copy=False)
        vectors_WKD = vectors_WKD.reshape(*row_WK.shape, -1)
        vectors_WKD[~inside_WK] = 0.0
        return vectors_WKD, inside_WK


def best_of(parts: Iterable[Sequence[Match]], tried: int) -> list[Match]:
    """The best of matches found in several sets of tracks, best first."""
    found = sorted(
        (match for part in parts for match in part),
        key=lambda match: (-match.grid_score, match.ordinal),
    )
    return sorted(found[:tried], key=lambda match: (-match.rank_score, match.ordinal))


def _rank_scores(products_CM: np.ndarray, asked: Stacked, stride: int) -> np.ndarray:
    """Eq. 8; where the query sticks out of the track, its fingerprints count as zeros."""
    number_M = np.arange(products_CM.shape[1])
    hop_CM = np.rint(asked.start_C[:, None] + asked.speed_C[:, None] * number_M)
    comparable_C = (hop_CM % stride == 0).sum(axis=1)
    rank_C: np.ndarray = np.nansum(products_CM, axis=1) / np.maximum(comparable_C, 1)
    return rank_C


def _described(
    asked: Stacked,
    refined: Refined,
    sketch_WSD: np.ndarray,
    grid_score_W: np.ndarray,
    stride: int,
) -> Iterator[tuple[int, Match]]:
    length = asked.length
    covered_WM = ~np.isnan(refined.products_WM)
    count_W = covered_WM.sum(axis=1)
    first_W, after_W = covered_WM.argmax(axis=1), length - covered_WM[:, ::-1].argmax(axis=1)
    # Between two fingerprints of the track nothing was compared, but it lies within.
    first_W = np.where(first_W < stride, 0, first_W)
    last_W = np.where(after_W > length - stride, length, after_W) - 1
    score_W = np.nansum(refined.products_WM, axis=1) / np.maximum(count_W, 1)
    columns = {
        "ordinal": asked.ordinal_C,
        "start": refined.start_W,
        "speed": refined.speed_W,
        "score": score_W,
        "rank_score": refined.rank_score_W,
        "grid_score": grid_score_W,
        "first": first_W,
        "last": last_W,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    for n, row, sketch_SD, count in zip(asked.query_C, rows, sketch_WSD, count_W, strict=True):
        if count:
            yield int(n), Match(**dict(zip(columns, row, strict=True)), sketch_SD=sketch_SD)
