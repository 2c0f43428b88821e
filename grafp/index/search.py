"""Lists and tracks of a catalog opened in one process: nearest fingerprints, and alignments."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import faiss
import numpy as np

from grafp.index.alignment import CANDIDATES, NEIGHBORS, Effort
from grafp.index.codes import Codes
from grafp.index.ids import ordinals_of, segments_of
from grafp.index.ivfpq import Probes, choose_lists, decode
from grafp.index.lists import Lists
from grafp.index.proposals import Alignments
from grafp.index.scoring import Match, Tracks, best_of
from grafp.model.fingerprint import DIMENSION

SPARE = 32  # codes are coarse and many equal: which of them are among the k must not be chance
_HALVES = faiss.ScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_fp16)


@dataclass(frozen=True)
class Spent:
    """What searching took so far."""

    codes: int = 0
    """Codes that were compared, padding of lists apart."""
    seconds: float = 0.0
    """In `within`, of all processes together."""

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.codes + other.codes, self.seconds + other.seconds)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.codes - other.codes, self.seconds - other.seconds)


@dataclass
class IndexSearch:
    """Some lists and some tracks of a catalog in this process; with all of both, a `Searcher`."""

    by_lists: ClassVar[bool] = True
    """Whether `within` looks into the lists that were chosen, and nowhere else."""

    quantizer: faiss.Index | None
    """Which lists are nearest; None if others choose them, and ask for `within`."""
    lists: Sequence[Lists]
    tracks: Sequence[Tracks]
    effort: Effort
    stride: int = 1
    offset_correction: float = 0.0
    neighbors: int = NEIGHBORS
    candidates: int = CANDIDATES
    gone_T: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Tracks in the lists that are no answer any more, ascending."""
    spent: Spent = Spent()

    def nearest(
        self, queries_QD: np.ndarray, k: int, nprobe: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self.quantizer
        return self.within(choose_lists(self.quantizer, queries_QD, nprobe or self.effort.lists), k)

    def within(self, probes: Probes, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`nearest` of those that are in the lists here."""
        began = time.monotonic()
        found = [lists.nearest(probes, k + SPARE) for lists in self.lists]
        codes = sum(lists.scanned(probes) for lists in self.lists)
        self.spent += Spent(codes, time.monotonic() - began)
        return merge_nearest([self._live(*one) for one in found], k, len(probes.queries_QD))

    def _live(self, similarity_QK: np.ndarray, id_QK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(self.gone_T):
            return similarity_QK, id_QK
        gone_QK = np.isin(ordinals_of(id_QK), self.gone_T)
        return np.where(gone_QK, -np.inf, similarity_QK), np.where(gone_QK, -1, id_QK)

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        results = []
        for one in asked:
            products_CM = np.full((len(one.start_C), len(one.query_MD)), np.nan, np.float32)
            for tracks in self.tracks:
                here = np.flatnonzero(tracks.holds(one.ordinal_C))
                if len(here):
                    products_CM[here] = tracks.products(one.only(here), self.stride)
            results.append(products_CM)
        return results

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        parts = [
            part.matches(
                [one.only(part.holds(one.ordinal_C)) for one in asked], self.stride, tried, change
            )
            for part in self.tracks
        ]
        return [best_of([found[n] for found in parts], tried) for n in range(len(asked))]


def merge_nearest(
    found: Sequence[tuple[np.ndarray, np.ndarray]], k: int, queries: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of several answers of `Searcher.nearest` to so many queries."""
    empty = np.zeros((queries, 0), np.float32), np.zeros((queries, 0), np.int64)
    similarity = np.concatenate([empty[0], *(similarity for similarity, _ in found)], axis=1)
    ids = np.concatenate([empty[1], *(ids for _, ids in found)], axis=1)
    order = np.lexsort((ids, -similarity), axis=1)[:, :k]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(ids, order, 1)


def decoded_halves(halves_NB: np.ndarray) -> np.ndarray:
    """Bytes of float16 (rows, 256) to float32 (rows, 128); FAISS is twice as fast as NumPy."""
    return _HALVES.decode(halves_NB)


class DecodedVectors:
    """Fingerprints of some tracks decoded from their codes, where exact ones are not at hand.

    Holds the codes in memory: 32 bytes a fingerprint.
    """

    def __init__(
        self, trained: faiss.IndexIVF, codes: Codes, ordinals_T: np.ndarray, rows_T: np.ndarray
    ) -> None:
        """`rows_T`: the first row of each track, as `Tracks` counts them."""
        position_N = np.searchsorted(ordinals_T, ordinals_of(codes.id_N))
        row_N = rows_T[position_N] + segments_of(codes.id_N)
        order = np.argsort(row_N)
        self._trained, self._row_N, self._codes = trained, row_N[order], codes.at(order)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float32 (rows, 128); zeros for silent segments, which the index does not hold."""
        position = np.searchsorted(self._row_N, rows).clip(max=len(self._row_N) - 1)
        vectors_ND = np.zeros((len(rows), DIMENSION), np.float32)
        known = np.flatnonzero(self._row_N[position] == rows)
        if len(known):
            vectors_ND[known] = decode(self._trained, self._codes.at(position[known]))
        return vectors_ND
