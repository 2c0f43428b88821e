"""Shards opened for search: nearest fingerprints, and inner products along alignments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np

from grafp.index.ivfpq import SEGMENT_BITS, Probes, choose_lists, search
from grafp.model.fingerprint import DIMENSION

_MIN_OVERLAP = 0.5  # of the query or the track, whichever is shorter
SPARE = 32  # codes are coarse and many equal: which of them are among the k must not be chance
_HALVES = faiss.ScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_fp16)
_ROWS_AT_ONCE = 1 << 17  # reference fingerprints in memory while scoring: 64 MB


@dataclass(frozen=True)
class Alignments:
    """A query laid beside tracks: every pair of ordinal and start is one alignment to judge."""

    query_MD: np.ndarray
    ordinal_C: np.ndarray
    start_C: np.ndarray
    """Where in the track the query's first fingerprint lies, in query hops; may be negative."""


class Searcher(Protocol):
    """A whole catalog that can be searched, wherever its shards are."""

    stride: int
    """Query hops between two fingerprints of the catalog."""

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest fingerprints of each query: similarities and ids, (queries, k).

        Best first, equals by id; id -1 where there are no more.
        """

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        """Inner products of query and track for each alignment, float32 (alignments, query).

        NaN where the track has no fingerprint: outside of it, between two of a catalog with a
        longer hop, or everywhere if query and track hardly overlap.
        """


class Vectors(Protocol):
    """A shard's fingerprints in id order; rows can be picked, (rows, 128)."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Shard:
    """One part of a catalog, opened: its tracks are in no other part."""

    index: faiss.IndexIVF | None
    vectors_ND: Vectors
    """float16 fingerprints, perhaps mapped from a file, or decoded ones (`DecodedVectors`)."""
    ordinals_T: np.ndarray
    """The tracks, ascending."""
    first_rows_T: np.ndarray
    counts_T: np.ndarray
    """Segments of each track; 0 for one that must not be found any more."""

    def nearest(self, probes: Probes, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Like `Searcher.nearest`, unsorted."""
        similarity_QK, id_QK = search(self.index, probes, k)
        place_QK = self._places(id_QK >> SEGMENT_BITS)
        dead_QK = (id_QK < 0) | (self.counts_T[place_QK] == 0)
        return np.where(dead_QK, -np.inf, similarity_QK), np.where(dead_QK, -1, id_QK)

    def holds(self, ordinal_C: np.ndarray) -> np.ndarray:
        """Which of these tracks are here."""
        return self.ordinals_T[self._places(ordinal_C)] == ordinal_C

    def products(self, asked: Alignments, stride: int) -> np.ndarray:
        """Like `Searcher.products`, of tracks that are here."""
        place_C = self._places(asked.ordinal_C)
        count_C, first_row_C = self.counts_T[place_C], self.first_rows_T[place_C]
        position_CM = asked.start_C[:, None] + np.arange(len(asked.query_MD))
        span_C = np.where(count_C > 0, (count_C - 1) * stride + 1, 0)  # in query hops
        within_CM = (position_CM >= 0) & (position_CM < span_C[:, None])
        least_C = np.maximum(1, _MIN_OVERLAP * np.minimum(len(asked.query_MD), span_C))
        within_CM &= (within_CM.sum(axis=1) >= least_C)[:, None]
        pair_C, pair_M = np.nonzero(within_CM & (position_CM % stride == 0))
        row_P = first_row_C[pair_C] + position_CM[pair_C, pair_M] // stride
        products_CM = np.full(within_CM.shape, np.nan, np.float32)
        for first in range(0, len(row_P), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            reference_PD = _float32(self.vectors_ND[row_P[part]])
            query_PD = asked.query_MD[pair_M[part]]
            products_CM[pair_C[part], pair_M[part]] = np.einsum("pd,pd->p", reference_PD, query_PD)
        return products_CM

    def _places(self, ordinals: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.ordinals_T, ordinals).clip(max=len(self.ordinals_T) - 1)


def _float32(vectors_ND: np.ndarray) -> np.ndarray:
    """FAISS turns half floats into floats twice as fast as NumPy."""
    if vectors_ND.dtype != np.float16:
        return vectors_ND.astype(np.float32, copy=False)
    return _HALVES.decode(vectors_ND.view(np.uint8))


@dataclass
class ShardSearch:
    """The shards of a catalog in this process, filled from one template; a `Searcher`."""

    shards: Sequence[Shard]
    nprobe: int = 1
    stride: int = 1

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        probes = choose_lists(self.shards[0].index, queries_QD, self.nprobe)
        return merge_nearest([shard.nearest(probes, k + SPARE) for shard in self.shards], k)

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        results = []
        for one in asked:
            products_CM = np.full((len(one.start_C), len(one.query_MD)), np.nan, np.float32)
            for shard in self.shards:
                here = np.flatnonzero(shard.holds(one.ordinal_C))
                if len(here):
                    mine = Alignments(one.query_MD, one.ordinal_C[here], one.start_C[here])
                    products_CM[here] = shard.products(mine, self.stride)
            results.append(products_CM)
        return results


def merge_nearest(
    found: Sequence[tuple[np.ndarray, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of several answers of `Searcher.nearest`."""
    similarity = np.concatenate([similarity for similarity, _ in found], axis=1)
    ids = np.concatenate([ids for _, ids in found], axis=1)
    order = np.lexsort((ids, -similarity), axis=1)[:, :k]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(ids, order, 1)


class DecodedVectors:
    """Fingerprints decoded from the index's own codes, for catalogs whose vectors do not fit.

    Holds the codes in id order, in memory: 32 bytes a fingerprint.
    """

    def __init__(
        self, index: faiss.IndexIVF, ordinals_T: np.ndarray, first_rows_T: np.ndarray
    ) -> None:
        self._index = index
        self._packed = isinstance(index, faiss.IndexIVFFastScan)
        lists = _unpacked(index) if self._packed else index.invlists
        rows, codes = [], []
        for number in range(index.nlist):
            size = lists.list_size(number)
            if size == 0:
                continue
            id_N = faiss.rev_swig_ptr(lists.get_ids(number), size)
            place_N = np.searchsorted(ordinals_T, id_N >> SEGMENT_BITS)
            rows.append(first_rows_T[place_N] + (id_N & ((1 << SEGMENT_BITS) - 1)))
            code_NB = faiss.rev_swig_ptr(lists.get_codes(number), size * index.code_size)
            code_NB = code_NB.reshape(size, -1).copy()
            if not self._packed:  # sa_decode wants the list in front of the code
                prefix = np.frombuffer(number.to_bytes(8, "little"), np.uint8)
                prefix = prefix[: index.sa_code_size() - index.code_size]
                code_NB = np.hstack([np.tile(prefix, (size, 1)), code_NB])
            codes.append(code_NB)
        row_N = np.concatenate(rows)
        order = np.argsort(row_N)
        self._row_N, self._code_NB = row_N[order], np.concatenate(codes)[order]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float32 (rows, 128); zeros for silent segments, which the index does not hold."""
        place = np.searchsorted(self._row_N, rows).clip(max=len(self._row_N) - 1)
        vectors_ND = np.zeros((len(rows), DIMENSION), np.float32)
        known = np.flatnonzero(self._row_N[place] == rows)
        if len(known):
            code_NB = self._code_NB[place[known]]
            decode = self._index.pq.decode if self._packed else self._index.sa_decode
            vectors_ND[known] = decode(code_NB)
            faiss.normalize_L2(vectors_ND)  # a code is shorter than what it stands for
        return vectors_ND


def _unpacked(index: faiss.IndexIVFFastScan) -> faiss.ArrayInvertedLists:
    """Its lists with one code after another, not interleaved for the processor's registers."""
    lists = faiss.ArrayInvertedLists(index.nlist, index.code_size)
    index.orig_invlists = lists
    try:
        index.reconstruct_orig_invlists()
    finally:
        index.orig_invlists = None
    return lists
