"""Search by random-hyperplane hashes, for evaluations; never a part of a catalog.

The transformer systems of the paper's Table II look fingerprints up by hash codes. Here all codes
are compared, so nothing is lost to buckets: what differs from the index is the codes alone.
"""

from dataclasses import dataclass, field

import faiss
import numpy as np

from grafp.index.ids import fingerprint_ids
from grafp.index.shards import SPARE, Shard, ShardSearch, merge_nearest
from grafp.model.fingerprint import DIMENSION

HASH_BITS = 256
"""Hyperplanes; 32 bytes a fingerprint, as many as the codes of the index."""


@dataclass
class HashSearch(ShardSearch):
    """`ShardSearch` whose nearest fingerprints are those whose codes differ in the fewest bits."""

    _codes: list[tuple[faiss.IndexLSH, np.ndarray]] = field(init=False, repr=False)
    """Of each shard: the codes, and whose they are, with -1 in front for FAISS's row -1."""

    def __post_init__(self) -> None:
        self._codes = [_hash(shard) for shard in self.shards]

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Like `Searcher.nearest`; a similarity is the cosine that the differing bits tell of."""
        queries_QD = np.ascontiguousarray(queries_QD, np.float32)
        found = []
        for codes, id_N in self._codes:
            bits_QK, row_QK = codes.search(queries_QD, k + SPARE)
            cosine_QK = np.cos(np.pi / HASH_BITS * bits_QK)
            found.append((np.where(row_QK < 0, -np.inf, cosine_QK), id_N[row_QK + 1]))
        return merge_nearest(found, k)


def _hash(shard: Shard) -> tuple[faiss.IndexLSH, np.ndarray]:
    """Codes of all that can be found: neither withdrawn tracks nor silence, which is zeros."""
    codes = faiss.IndexLSH(DIMENSION, HASH_BITS)  # the same hyperplanes every time
    ids = [np.array([-1])]
    for ordinal, first, count in zip(
        shard.ordinals_T.tolist(), shard.first_rows_T.tolist(), shard.counts_T.tolist(), strict=True
    ):
        vectors_ND = np.asarray(shard.vectors_ND[np.arange(first, first + count)], np.float32)
        heard_N = np.flatnonzero(vectors_ND.any(axis=1))
        codes.add(np.ascontiguousarray(vectors_ND[heard_N]))
        ids.append(fingerprint_ids(ordinal, heard_N))
    return codes, np.concatenate(ids)
