"""Where queries may lie in tracks: what eq. 7 proposes and eq. 8 scores. Needs NumPy alone.

Starts count in hops of the query.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alignments:
    """A query laid beside tracks: every pair of ordinal and start is one alignment to score."""

    query_MD: np.ndarray
    ordinal_C: np.ndarray
    start_C: np.ndarray
    """Where in the track the query's first fingerprint lies, in query hops; may be negative."""
    speed_C: np.ndarray
    """1 as cataloged; fingerprint i of the query lies at start + speed * i."""

    def only(self, chosen_C: np.ndarray) -> "Alignments":
        """Some of them, by number or by a mask."""
        return Alignments(
            self.query_MD,
            self.ordinal_C[chosen_C],
            self.start_C[chosen_C],
            self.speed_C[chosen_C],
        )


@dataclass(frozen=True)
class Stacked:
    """Alignments of several queries of one length, which are scored together."""

    queries_QMD: np.ndarray
    query_C: np.ndarray
    """Which query each alignment is of."""
    ordinal_C: np.ndarray
    start_C: np.ndarray
    speed_C: np.ndarray

    @classmethod
    def of(cls, asked: Sequence[Alignments]) -> "Stacked":
        return cls(
            np.stack([one.query_MD for one in asked]),
            np.repeat(np.arange(len(asked)), [len(one.start_C) for one in asked]),
            np.concatenate([one.ordinal_C for one in asked]),
            np.concatenate([one.start_C for one in asked]),
            np.concatenate([one.speed_C for one in asked]),
        )

    @property
    def length(self) -> int:
        return int(self.queries_QMD.shape[1])

    def only(self, chosen_C: np.ndarray) -> "Stacked":
        return Stacked(
            self.queries_QMD,
            self.query_C[chosen_C],
            self.ordinal_C[chosen_C],
            self.start_C[chosen_C],
            self.speed_C[chosen_C],
        )

    def best_tracks(self, rank_C: np.ndarray, tried: int) -> np.ndarray:
        """Numbers of the best alignment in each of the `tried` best tracks of each query."""
        order = np.lexsort((self.ordinal_C, -rank_C, self.query_C))
        by_track = order[np.lexsort((self.ordinal_C[order], self.query_C[order]))]
        track_C2 = np.stack([self.query_C[by_track], self.ordinal_C[by_track]], axis=1)
        first = np.ones(len(by_track), bool)
        first[1:] = (track_C2[1:] != track_C2[:-1]).any(axis=1)
        best = np.zeros(len(by_track), bool)
        best[by_track[first]] = True
        order = order[best[order]]
        query_W = self.query_C[order]
        return order[np.arange(len(order)) - np.searchsorted(query_W, query_W) < tried]
