"""Search by random-hyperplane hashes, for evaluations only.

The transformer systems of the paper's Table II look up fingerprints by hash codes. Here every code
is compared, so no bucket hides a neighbor: only the codes differ from the index.
"""

import time
from dataclasses import dataclass, field

import faiss
import numpy as np

from grafp.index.ids import fingerprint_ids
from grafp.index.ivfpq import Probes
from grafp.index.scoring import Tracks
from grafp.index.search import SPARE, IndexSearch, Spent, merge_nearest
from grafp.model.fingerprint import DIMENSION

HASH_BITS = 256
"""Hyperplanes. A code takes 32 bytes, like the codes of the index."""


@dataclass
class HashSearch(IndexSearch):
    """`IndexSearch` whose nearest fingerprints are those whose codes differ in the fewest bits."""

    by_lists = False
    _codes: list[tuple[faiss.IndexLSH, np.ndarray]] = field(init=False, repr=False)
    """Of each part of the tracks; the fingerprint IDs have -1 first for FAISS's row -1."""

    def __post_init__(self) -> None:
        self._codes = [_hash(part) for part in self.tracks]

    def within(self, probes: Probes, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of all; a similarity is the cosine estimated from the differing bits."""
        queries_QD = probes.queries_QD
        found = []
        began = time.monotonic()
        for codes, id_N in self._codes:
            bits_QK, row_QK = codes.search(queries_QD, k + SPARE)
            cosine_QK = np.cos(np.pi / HASH_BITS * bits_QK)
            found.append((np.where(row_QK < 0, -np.inf, cosine_QK), id_N[row_QK + 1]))
        count = sum(codes.ntotal for codes, _ in self._codes) * len(queries_QD)
        self.spent += Spent(count, time.monotonic() - began)
        return merge_nearest(found, k, len(queries_QD))


def _hash(tracks: Tracks) -> tuple[faiss.IndexLSH, np.ndarray]:
    """Codes of some tracks, without removed tracks and without silence (zero vectors)."""
    codes = faiss.IndexLSH(DIMENSION, HASH_BITS)  # the same hyperplanes every time
    ids = [np.array([-1])]
    for ordinal, first, count in zip(
        tracks.ordinals_T.tolist(),
        tracks.first_rows_T.tolist(),
        tracks.counts_T.tolist(),
        strict=True,
    ):
        vectors_ND = np.asarray(tracks.vectors_ND[np.arange(first, first + count)], np.float32)
        audible_N = np.flatnonzero(vectors_ND.any(axis=1))
        codes.add(np.ascontiguousarray(vectors_ND[audible_N]))
        ids.append(fingerprint_ids(ordinal, audible_N))
    return codes, np.concatenate(ids)
