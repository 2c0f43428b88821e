"""Inverted lists filled with codes, as FAISS scans them."""

from dataclasses import dataclass, field
from functools import cached_property

import faiss
import numpy as np

from grafp.index.codes import Codes
from grafp.index.ivfpq import Probes, choose_lists, quantizer_of
from grafp.index.size import default_nprobe
from grafp.model.fingerprint import DIMENSION

_RECALL_PROBES = 200


@dataclass(frozen=True)
class Lists:
    """A range of the lists of a trained index, with all that a catalog has in them."""

    lists: range
    index: faiss.IndexIVF
    """Its list 0 is the first of the range."""
    _kept: object = field(default=None, repr=False)
    """Centroids that the index points to."""

    @classmethod
    def filled(cls, trained: faiss.IndexIVF, codes: Codes, lists: range) -> "Lists":
        """`codes`: sorted, all within the range."""
        inverted = faiss.ArrayInvertedLists(len(lists), trained.code_size)
        first_L = np.searchsorted(codes.list_N, np.arange(lists.start, lists.stop + 1)).tolist()
        code_NB, id_N = np.ascontiguousarray(codes.code_NB), np.ascontiguousarray(codes.id_N)
        for number in np.unique(codes.list_N).tolist():
            low, high = first_L[number - lists.start : number - lists.start + 2]
            inverted.add_entries(
                number - lists.start,
                high - low,
                faiss.swig_ptr(id_N[low:high]),
                faiss.swig_ptr(code_NB[low:high]),
            )
        centroids = _centroids(trained, lists)
        index = _with_lists(trained, centroids, inverted, len(lists), len(codes))
        return cls(lists, index, centroids)

    def nearest(self, probes: Probes, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Like `Searcher.nearest`, of what is here."""
        similarity_QK = np.full((len(probes.list_QL), k), -np.inf, np.float32)
        id_QK = np.full(similarity_QK.shape, -1)
        here_QL = (probes.list_QL >= self.lists.start) & (probes.list_QL < self.lists.stop)
        count_Q = here_QL.sum(axis=1)
        asked = np.flatnonzero(count_Q)
        if len(asked):
            # FAISS wants no more columns than there are lists; -1 for none.
            first_QL = np.argsort(~here_QL[asked], axis=1, kind="stable")[:, : count_Q.max()]
            local_QL = np.where(here_QL, probes.list_QL - self.lists.start, -1)[asked]
            self.index.nprobe = first_QL.shape[1]
            similarity_QK[asked], id_QK[asked] = self.index.search_preassigned(
                probes.queries_QD[asked],
                k,
                np.take_along_axis(local_QL, first_QL, axis=1),
                np.take_along_axis(probes.similarity_QL[asked], first_QL, axis=1),
            )
        similarity_QK[id_QK < 0] = -np.inf
        return similarity_QK, id_QK

    def scanned(self, probes: Probes) -> int:
        """Codes that `nearest` compares, padding apart."""
        here_QL = (probes.list_QL >= self.lists.start) & (probes.list_QL < self.lists.stop)
        return int(self.sizes_L[probes.list_QL[here_QL] - self.lists.start].sum())

    @cached_property
    def sizes_L(self) -> np.ndarray:
        """Fingerprints in each list."""
        lists = self.index.invlists
        return np.array([lists.list_size(number) for number in range(self.index.nlist)])


def _centroids(trained: faiss.IndexIVF, lists: range) -> faiss.IndexFlatIP:
    """Those of the range, where codes are what is left of a fingerprint without its centroid."""
    centroids = faiss.IndexFlatIP(DIMENSION)
    if trained.by_residual:
        centroids.add(trained.quantizer.reconstruct_n(lists.start, len(lists)))
    return centroids


def _with_lists(
    trained: faiss.IndexIVF,
    centroids: faiss.Index,
    inverted: faiss.ArrayInvertedLists,
    nlist: int,
    count: int,
) -> faiss.IndexIVF:
    """An index with these lists and the codec of the trained one."""
    metric, residual = trained.metric_type, trained.by_residual
    if isinstance(trained, faiss.IndexIVFScalarQuantizer):
        scalar = faiss.IndexIVFScalarQuantizer(
            centroids, DIMENSION, nlist, trained.sq.qtype, metric, residual
        )
        scalar.sq = trained.sq
        return _filled(scalar, inverted, count)
    pq = trained.pq
    index = faiss.IndexIVFPQ(centroids, DIMENSION, nlist, pq.M, pq.nbits, metric)
    index.by_residual, index.pq = residual, pq
    _filled(index, inverted, count)
    # Packed in blocks, which FAISS scans in registers.
    return (
        faiss.IndexIVFPQFastScan(index) if isinstance(trained, faiss.IndexIVFPQFastScan) else index
    )


def _filled(
    index: faiss.IndexIVF, inverted: faiss.ArrayInvertedLists, count: int
) -> faiss.IndexIVF:
    index.replace_invlists(inverted, True)
    inverted.this.disown()
    index.is_trained, index.ntotal = True, count
    return index


def recall(
    trained: faiss.IndexIVF, codes: Codes, vectors_ND: np.ndarray, ids_N: np.ndarray
) -> float:
    """How well an index works: the share of recall probes that are found among 20 neighbors.

    Recall probes are 200 of these fingerprints with noise, at a cosine of about 0.8 to what is
    stored, as those of a good recording are.
    """
    rng = np.random.default_rng(0)
    heard = np.flatnonzero(vectors_ND.any(axis=1))
    rows = rng.choice(heard, size=min(_RECALL_PROBES, len(heard)), replace=False)
    if not len(rows):
        return 1.0
    noise_QD = rng.normal(0.0, 0.75 / DIMENSION**0.5, (len(rows), DIMENSION))
    nlist = trained.nlist
    probes = choose_lists(quantizer_of(trained), vectors_ND[rows] + noise_QD, default_nprobe(nlist))
    _, id_QK = Lists.filled(trained, codes, range(nlist)).nearest(probes, 20)
    return round(float((id_QK == ids_N[rows][:, None]).any(axis=1).mean()), 4)
