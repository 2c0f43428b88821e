"""Shards opened for search: nearest fingerprints, and scores of alignments."""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from grafp.index.alignment import CANDIDATES, NEIGHBORS
from grafp.index.ids import ordinals_of, segments_of
from grafp.index.ivfpq import Probes, choose_lists, search
from grafp.index.scoring import Alignments, Match, Tracks, best_of
from grafp.model.fingerprint import DIMENSION

SPARE = 32  # codes are coarse and many equal: which of them are among the k must not be chance
_HALVES = faiss.ScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_fp16)


@dataclass(frozen=True)
class Shard(Tracks):
    """One part of a catalog, opened: its tracks are in no other part."""

    index: faiss.IndexIVF

    def nearest(self, probes: Probes, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Like `Searcher.nearest`, unsorted."""
        similarity_QK, id_QK = search(self.index, probes, k)
        count_QK = self.counts_T[self.positions(ordinals_of(id_QK))]
        none_QK = (id_QK < 0) | (count_QK == 0)
        return np.where(none_QK, -np.inf, similarity_QK), np.where(none_QK, -1, id_QK)


@dataclass
class ShardSearch:
    """The shards of a catalog in this process, of one trained index; a `Searcher`."""

    shards: Sequence[Shard]
    nprobe: int = 1
    stride: int = 1
    offset_correction: float = 0.0
    neighbors: int = NEIGHBORS
    candidates: int = CANDIDATES

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
                    products_CM[here] = shard.products(one.only(here), self.stride)
            results.append(products_CM)
        return results

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        return [
            best_of(
                [
                    shard.matches(one.only(shard.holds(one.ordinal_C)), self.stride, tried, change)
                    for shard in self.shards
                ],
                tried,
            )
            for one in asked
        ]


def merge_nearest(
    found: Sequence[tuple[np.ndarray, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of several answers of `Searcher.nearest`."""
    similarity = np.concatenate([similarity for similarity, _ in found], axis=1)
    ids = np.concatenate([ids for _, ids in found], axis=1)
    order = np.lexsort((ids, -similarity), axis=1)[:, :k]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(ids, order, 1)


@dataclass(frozen=True)
class HalfVectors:
    """float16 fingerprints, perhaps mapped from a file; rows are float32.

    FAISS turns half floats into floats twice as fast as NumPy.
    """

    vectors_ND: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float32 (rows, 128)."""
        return _HALVES.decode(self.vectors_ND[rows].view(np.uint8))

    def __len__(self) -> int:
        return len(self.vectors_ND)


class DecodedVectors:
    """Fingerprints decoded from the index's own codes, for catalogs whose vectors do not fit.

    Holds the codes in id order, in memory: 32 bytes a fingerprint.
    """

    def __init__(
        self, index: faiss.IndexIVF, ordinals_T: np.ndarray, first_rows_T: np.ndarray
    ) -> None:
        self._index = index
        self._packed = isinstance(index, faiss.IndexIVFFastScan)
        lists = _unpacked(index) if isinstance(index, faiss.IndexIVFFastScan) else index.invlists
        rows, codes = [], []
        for number in range(index.nlist):
            size = lists.list_size(number)
            if size == 0:
                continue
            id_N = faiss.rev_swig_ptr(lists.get_ids(number), size)
            position_N = np.searchsorted(ordinals_T, ordinals_of(id_N))
            rows.append(first_rows_T[position_N] + segments_of(id_N))
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
        position = np.searchsorted(self._row_N, rows).clip(max=len(self._row_N) - 1)
        vectors_ND = np.zeros((len(rows), DIMENSION), np.float32)
        known = np.flatnonzero(self._row_N[position] == rows)
        if len(known):
            code_NB = self._code_NB[position[known]]
            decode = self._index.pq.decode if self._packed else self._index.sa_decode
            vectors_ND[known] = decode(code_NB)
            faiss.normalize_L2(vectors_ND)  # a code is shorter than what it stands for
        return vectors_ND


def _unpacked(index: faiss.IndexIVFFastScan) -> faiss.ArrayInvertedLists:
    """Its lists with one code after another, not interleaved for the CPU's registers."""
    lists = faiss.ArrayInvertedLists(index.nlist, index.code_size)
    index.orig_invlists = lists
    try:
        index.reconstruct_orig_invlists()
    finally:
        index.orig_invlists = None
    return lists
