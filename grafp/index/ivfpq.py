"""IVF-PQ over fingerprints with FAISS (paper, section II-D): trained once, then only encoded.

An index is trained once on a sample of the whole catalog. It has no fingerprints itself: it says
in which list a fingerprint belongs and what its code is, the same on every machine. So
fingerprints are encoded in parallel and their codes merged by list (grafp.index.lists searches).
"""

from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np

from grafp.errors import CatalogError, OptionError
from grafp.index import gpu as on_gpu
from grafp.index.cells import CellAssignment, in_cells, look
from grafp.index.codes import Codes
from grafp.index.size import FLAT_LISTS, ITERATIONS, ONE_LEVEL, IndexParameters
from grafp.model.fingerprint import DIMENSION

_AT_ONCE = 65_536


def train_index(
    sample_ND: np.ndarray, parameters: IndexParameters, seed: int = 0, *, gpu: bool = False
) -> bytes:
    """Train an empty inner-product index on a random sample, (points, 128) float32.

    Args:
        gpu: find the nearest centroids on a GPU if one is there; up to rounding, the index is
            the same.

    Raises OptionError when the sample is too small for the lists or the codec.
    """
    sample_ND = np.ascontiguousarray(sample_ND, np.float32)

    def work(on: bool) -> bytes:
        index = _untrained(parameters, len(sample_ND), seed)
        if parameters.nlist > ONE_LEVEL:
            centroids_LD = _two_levels(sample_ND, parameters.nlist, seed, on)
            index.quantizer.add(centroids_LD)
            centroids_LD = _means(sample_ND, _lists_of(index, sample_ND), centroids_LD)
            index.quantizer.reset()
            index.quantizer.add(centroids_LD)  # a quantizer that is full is not trained again
            return _trained(index, sample_ND)
        return _trained(index, sample_ND, on_gpu.copy_of(index.quantizer) if on else None)

    return on_gpu.tried(work, gpu)


def _untrained(parameters: IndexParameters, points: int, seed: int) -> faiss.IndexIVF:
    """Raises OptionError, see `train_index`."""
    _check_points(f"--lists {parameters.nlist}", parameters.nlist, points)
    index = faiss.index_factory(
        DIMENSION, f"IVF{parameters.nlist},{parameters.codec}", faiss.METRIC_INNER_PRODUCT
    )
    coded = parameters.codec.startswith("PQ")
    _check_points(f"--codec {parameters.codec}", index.pq.ksub if coded else 1, points)
    index.cp.niter, index.cp.seed = ITERATIONS, seed + 1
    index.cp.spherical = True  # shorter centroids would have fewer fingerprints, and even shorter
    index.cp.min_points_per_centroid = 1  # small catalogs work; the size rule warns nobody
    if coded:
        index.pq.cp.niter, index.pq.cp.seed = ITERATIONS, seed + 1
        index.pq.cp.min_points_per_centroid = 1
    if isinstance(index, faiss.IndexIVFPQ):
        index.do_polysemous_training = False  # most of its time, for a filter that is not used
    return index


def _check_points(option: str, least: int, points: int) -> None:
    if points < least:
        raise OptionError(
            f"{option}: takes {least:,} fingerprints to train, and the catalog has {points:,} that "
            "are not silent; index more music, or do without the option"
        )


def _trained(
    index: faiss.IndexIVF, sample_ND: np.ndarray, centroids: faiss.Index | None = None
) -> bytes:
    """`centroids`: an empty flat index in which k-means looks for the nearest, on a GPU say."""
    index.clustering_index = centroids
    index.train(sample_ND)
    index.clustering_index = None
    return faiss.serialize_index(index).tobytes()


def _two_levels(sample_ND: np.ndarray, nlist: int, seed: int, gpu: bool) -> np.ndarray:
    """Centroids of k-means within the cells of a coarser one, (nlist, 128).

    Each cell gets as many as its share of the sample asks for.
    """
    coarse_CD, cell_N = _k_means(sample_ND, round(nlist**0.5), seed, gpu)
    order = np.argsort(cell_N, kind="stable")
    cells = np.split(order, np.cumsum(np.bincount(cell_N, minlength=len(coarse_CD)))[:-1])
    wanted = _shares([len(cell) for cell in cells], nlist)
    parts = [
        _k_means(sample_ND[cell], count, seed, False)[0]
        for cell, count in zip(cells, wanted, strict=True)
        if count
    ]
    return np.concatenate(parts)


def _shares(sizes: list[int], total: int) -> list[int]:
    """`total` divided in proportion to sizes, the largest remainders first, none above its size."""
    exact_C = np.array(sizes, float) * total / sum(sizes)
    count_C = np.floor(exact_C).astype(int)
    most = np.argsort(count_C - exact_C, kind="stable")[: total - int(count_C.sum())]
    count_C[most] += 1
    return [int(count) for count in count_C]


def _k_means(
    points_ND: np.ndarray, count: int, seed: int, gpu: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids (count, 128), and the nearest of each point."""
    means = faiss.Kmeans(
        DIMENSION, count, niter=ITERATIONS, seed=seed + 1, min_points_per_centroid=1,
        max_points_per_centroid=1 << 30, spherical=True, gpu=gpu,
    )  # fmt: skip
    means.train(points_ND)
    return means.centroids, _nearest(means.index, points_ND)


def _nearest(centroids: faiss.Index, points_ND: np.ndarray) -> np.ndarray:
    _, nearest_N1 = centroids.search(points_ND, 1)
    nearest_N: np.ndarray = nearest_N1[:, 0]
    return nearest_N


def _means(points_ND: np.ndarray, nearest_N: np.ndarray, before_LD: np.ndarray) -> np.ndarray:
    """One more round of k-means over all cells; a centroid without points stays."""
    means_LD = before_LD.copy()
    order = np.argsort(nearest_N, kind="stable")
    lists, first_L = np.unique(nearest_N[order], return_index=True)
    for part in np.array_split(np.arange(len(lists)), max(1, len(points_ND) // _AT_ONCE)):
        if len(part):
            after = first_L[part[-1] + 1] if part[-1] + 1 < len(lists) else len(order)
            chunk = order[first_L[part[0]] : after]
            means_LD[lists[part]] = np.add.reduceat(
                points_ND[chunk], first_L[part] - first_L[part[0]], axis=0
            )
    means_LD /= np.linalg.norm(means_LD, axis=1, keepdims=True)
    return means_LD


def parse_index(data: bytes) -> faiss.IndexIVF:
    """Raises CatalogError when the bytes are not a whole index."""
    try:
        return faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as error:
        raise CatalogError(f"a damaged index file: {str(error).splitlines()[0][:200]}") from error


def quantizer_of(index: faiss.IndexIVF) -> faiss.Index:
    """What chooses lists: the centroids, in cells if they are many."""
    if index.nlist > FLAT_LISTS:
        return in_cells(_centroids(index))
    quantizer = faiss.downcast_index(index.quantizer)
    quantizer.referenced_objects = [index]  # whose memory it is in
    return quantizer


def _centroids(index: faiss.IndexIVF) -> np.ndarray:
    """Of each list, (lists, 128); older catalogs have them in a graph, newer ones flat."""
    return index.quantizer.reconstruct_n(0, index.nlist)


def encode(
    trained_index: bytes, vectors_ND: np.ndarray, ids_N: np.ndarray, *, gpu: bool = False
) -> Codes:
    """List and code of each fingerprint, sorted; the same input gives the same codes.

    Zeros stand for silence (grafp.model.inference) and are left out.

    Args:
        vectors_ND: of any floating type, (fingerprints, 128); `ids_N` int64.
        gpu: choose lists on a GPU if one is there; a fingerprint between two centroids may then
            be in the other one's list.
    """

    def work(on: bool) -> Codes:
        index = parse_index(trained_index)
        on = on and isinstance(faiss.downcast_index(index.quantizer), faiss.IndexFlat)
        return _encoded(index, vectors_ND, ids_N, on_gpu.copy_of(index.quantizer) if on else None)

    return on_gpu.tried(work, gpu)


def _encoded(
    index: faiss.IndexIVF,
    vectors_ND: np.ndarray,
    ids_N: np.ndarray,
    centroids: faiss.Index | None = None,
) -> Codes:
    """`centroids`: a copy of the index's own, on a GPU say."""
    parts = [Codes(np.zeros(0, "i4"), np.zeros(0, "i8"), np.zeros((0, index.code_size), "u1"))]
    cells = _by_cells(index) if centroids is None else None
    nearest = cells.nearest if cells else partial(_nearest, centroids or index.quantizer)
    for start in range(0, len(ids_N), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        heard_N = vectors_ND[part].any(axis=1)
        part_ND = np.ascontiguousarray(vectors_ND[part][heard_N], np.float32)
        if not len(part_ND):
            continue
        list_N = np.ascontiguousarray(nearest(part_ND))
        code_NB = _codes(index, part_ND, list_N)
        parts.append(Codes(list_N.astype(np.int32), ids_N[part][heard_N], code_NB))
    return Codes.together(parts)


def _by_cells(index: faiss.IndexIVF) -> CellAssignment | None:
    return CellAssignment(_centroids(index)) if index.nlist > FLAT_LISTS else None


def _lists_of(index: faiss.IndexIVF, points_ND: np.ndarray) -> np.ndarray:
    """The list of each point, of an index whose quantizer is full."""
    cells = _by_cells(index)
    if cells is None:
        return _nearest(index.quantizer, points_ND)
    parts = range(0, len(points_ND), _AT_ONCE)
    return np.concatenate([cells.nearest(points_ND[n : n + _AT_ONCE]) for n in parts])


def _codes(index: faiss.IndexIVF, vectors_ND: np.ndarray, list_N: np.ndarray) -> np.ndarray:
    if not index.by_residual and hasattr(index, "pq"):
        return index.pq.compute_codes(vectors_ND)
    code_NB = np.empty((len(vectors_ND), index.code_size), np.uint8)
    arrays = (faiss.swig_ptr(array) for array in (vectors_ND, list_N, code_NB))
    index.encode_vectors(len(vectors_ND), *arrays)
    return code_NB


def decode(index: faiss.IndexIVF, codes: Codes) -> np.ndarray:
    """What the codes stand for, float32 (fingerprints, 128), of length 1."""
    if isinstance(index, faiss.IndexIVFPQFastScan):
        vectors_ND = index.pq.decode(codes.code_NB)
    else:  # `sa_decode` wants the list in front of the code
        width = index.sa_code_size() - index.code_size
        list_NB = codes.list_N.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
        vectors_ND = index.sa_decode(np.ascontiguousarray(np.hstack([list_NB, codes.code_NB])))
    faiss.normalize_L2(vectors_ND)  # a code is shorter than what it stands for
    return vectors_ND


@dataclass(frozen=True)
class Probes:
    """Queries with the lists to search for each, nearest first."""

    queries_QD: np.ndarray
    similarity_QL: np.ndarray
    list_QL: np.ndarray

    def only(self, rows: np.ndarray) -> "Probes":
        return Probes(self.queries_QD[rows], self.similarity_QL[rows], self.list_QL[rows])


def choose_lists(quantizer: faiss.Index, queries_QD: np.ndarray, nprobe: int) -> Probes:
    """The `nprobe` lists nearest to each query."""
    queries_QD = np.ascontiguousarray(queries_QD, np.float32)
    nprobe = min(nprobe, quantizer.ntotal)
    params = look(quantizer, nprobe) if isinstance(quantizer, faiss.IndexIVF) else None
    return Probes(queries_QD, *quantizer.search(queries_QD, nprobe, params=params))
