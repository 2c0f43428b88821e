"""Search by random-hyperplane hashes, for evaluations only.

The transformer systems of the paper's Table II look up fingerprints by hash codes. Here every code
is compared, so no bucket hides a neighbor: only the codes differ from the index.
"""

from dataclasses import dataclass, field

import faiss
import numpy as np

from grafp.index.ids import fingerprint_ids
from grafp.index.shards import SPARE, Shard, ShardSearch, merge_nearest
from grafp.model.fingerprint import DIMENSION

HASH_BITS = 256
"""Hyperplanes. A code takes 32 bytes, like the codes of the index."""


@dataclass
class HashSearch(ShardSearch):
    """`ShardSearch` whose nearest fingerprints are those whose codes differ in the fewest bits."""

    _codes: list[tuple[faiss.IndexLSH, np.ndarray]] = field(init=False, repr=False)
    """For each shard its codes and their fingerprint IDs, with -1 first for FAISS's row -1."""

    def __post_init__(self) -> None:
        self._codes = [_hash(shard) for shard in self.shards]

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Like `Searcher.nearest`; a similarity is the cosine estimated from the differing bits."""
        queries_QD = np.ascontiguousarray(queries_QD, np.float32)
        found = []
        for codes, id_N in self._codes:
            bits_QK, row_QK = codes.search(queries_QD, k + SPARE)
            cosine_QK = np.cos(np.pi / HASH_BITS * bits_QK)
            found.append((np.where(row_QK < 0, -np.inf, cosine_QK), id_N[row_QK + 1]))
        return merge_nearest(found, k)


def _hash(shard: Shard) -> tuple[faiss.IndexLSH, np.ndarray]:
    """Codes of a shard, without removed tracks and without silence (zero vectors)."""
    codes = faiss.IndexLSH(DIMENSION, HASH_BITS)  # the same hyperplanes every time
    ids = [np.array([-1])]
    for ordinal, first, count in zip(
        shard.ordinals_T.tolist(), shard.first_rows_T.tolist(), shard.counts_T.tolist(), strict=True
    ):
        vectors_ND = np.asarray(shard.vectors_ND[np.arange(first, first + count)], np.float32)
        audible_N = np.flatnonzero(vectors_ND.any(axis=1))
        codes.add(np.ascontiguousarray(vectors_ND[audible_N]))
        ids.append(fingerprint_ids(ordinal, audible_N))
    return codes, np.concatenate(ids)
