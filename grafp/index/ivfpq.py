"""IVF-PQ over fingerprints with FAISS (paper, section II-D): one trained index, many shards.

An index is trained once on a sample of the whole catalog, and stays empty. Every shard is a copy
of it with fingerprints added, so shards are built in parallel and their answers compare.
"""

from dataclasses import dataclass

import faiss
import numpy as np

from grafp.errors import CatalogError, OptionError
from grafp.index import gpu as on_gpu
from grafp.index.size import IndexParameters, default_nprobe
from grafp.model.fingerprint import DIMENSION

_RECALL_PROBES = 200


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
        centroids = on_gpu.copy_of(index.quantizer) if on else None
        return _trained(index, sample_ND, centroids)

    return on_gpu.tried(work, gpu)


def _untrained(parameters: IndexParameters, points: int, seed: int) -> faiss.IndexIVF:
    """Raises OptionError, see `train_index`."""
    index = faiss.index_factory(
        DIMENSION, f"IVF{parameters.nlist},{parameters.codec}", faiss.METRIC_INNER_PRODUCT
    )
    coded = parameters.codec.startswith("PQ")
    for option, value, least in (
        ("--lists", parameters.nlist, parameters.nlist),
        ("--codec", parameters.codec, index.pq.ksub if coded else 1),
    ):
        if points < least:
            raise OptionError(
                f"{option} {value}: takes {least:,} fingerprints to train, and the catalog has "
                f"{points:,} that are not silent; index more music, or do without the option"
            )
    index.cp.niter, index.cp.seed = 10, seed + 1
    index.cp.min_points_per_centroid = 1  # small catalogs work; the size rule warns nobody
    if coded:
        index.pq.cp.niter, index.pq.cp.seed = 10, seed + 1
        index.pq.cp.min_points_per_centroid = 1
    if isinstance(index, faiss.IndexIVFPQ):
        index.do_polysemous_training = False  # most of its time, for a filter that is not used
    return index


def _trained(
    index: faiss.IndexIVF, sample_ND: np.ndarray, centroids: faiss.Index | None = None
) -> bytes:
    """`centroids`: an empty flat index in which k-means looks for the nearest, on a GPU say."""
    index.clustering_index = centroids
    index.train(sample_ND)
    index.clustering_index = None
    return faiss.serialize_index(index).tobytes()


def populate(
    trained_index: bytes, vectors_ND: np.ndarray, ids_N: np.ndarray, *, gpu: bool = False
) -> bytes:
    """A shard: the trained index with these fingerprints; the same input gives the same bytes.

    Zeros stand for silence (grafp.model.inference) and are left out.

    Args:
        gpu: choose lists on a GPU if one is there; a fingerprint between two centroids may then
            be in the other one's list.
    """

    def work(on: bool) -> bytes:
        index = parse_index(trained_index)
        centroids = on_gpu.copy_of(index.quantizer) if on else None
        return _populated(index, vectors_ND, ids_N, centroids)

    return on_gpu.tried(work, gpu)


def _populated(
    index: faiss.IndexIVF,
    vectors_ND: np.ndarray,
    ids_N: np.ndarray,
    centroids: faiss.Index | None = None,
) -> bytes:
    """`centroids`: a copy of the index's own, on a GPU say."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # order of insertion decides the bytes
    try:
        for start in range(0, len(ids_N), 65_536):
            part = slice(start, start + 65_536)
            heard_N = vectors_ND[part].any(axis=1)
            part_ND = vectors_ND[part][heard_N].astype(np.float32)
            if centroids is None:
                index.add_with_ids(part_ND, ids_N[part][heard_N])
            else:
                _add(index, part_ND, ids_N[part][heard_N], centroids)
    finally:
        faiss.omp_set_num_threads(threads)
    return faiss.serialize_index(index).tobytes()


def _add(
    index: faiss.IndexIVF, vectors_ND: np.ndarray, ids_N: np.ndarray, centroids: faiss.Index
) -> None:
    """`add_with_ids` with the lists that `centroids` choose."""
    if isinstance(index, faiss.IndexIVFFastScan):  # takes no lists; its codes are no residuals
        own, index.quantizer = index.quantizer, centroids
        try:
            index.add_with_ids(vectors_ND, ids_N)
        finally:
            index.quantizer = own
        return
    _, list_N1 = centroids.search(vectors_ND, 1)
    pointers = [faiss.swig_ptr(array) for array in (vectors_ND, ids_N, list_N1)]
    index.add_core(len(ids_N), *pointers)


def health(index: faiss.IndexIVF, vectors_ND: np.ndarray, ids_N: np.ndarray) -> tuple[float, float]:
    """How well a shard's index works: imbalance of its lists, and recall of its probes.

    Recall probes are 200 of its own fingerprints with noise, at a cosine of about 0.8 to what is
    stored, as those of a good recording are. Recall is the share found among 20 neighbors.
    """
    rng = np.random.default_rng(0)
    heard = np.flatnonzero(vectors_ND.any(axis=1))
    rows = rng.choice(heard, size=min(_RECALL_PROBES, len(heard)), replace=False)
    noise_QD = rng.normal(0.0, 0.75 / DIMENSION**0.5, (len(rows), DIMENSION))
    probes = choose_lists(index, vectors_ND[rows] + noise_QD, default_nprobe(index.nlist))
    _, id_QK = search(index, probes, 20)
    recall = (id_QK == ids_N[rows][:, None]).any(axis=1).mean() if len(rows) else 1.0
    return round(float(index.invlists.imbalance_factor()), 3), round(float(recall), 4)


def parse_index(data: bytes) -> faiss.IndexIVF:
    """Raises CatalogError when the bytes are not a whole index."""
    try:
        return faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as error:
        raise CatalogError(f"a damaged index file: {str(error).splitlines()[0][:200]}") from error


def open_index(path: str) -> faiss.IndexIVF:
    """A shard's index; FAISS maps the file where the codec allows, and loads a `PQ64x4fs`."""
    try:
        return faiss.read_index(path, faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise CatalogError(f"{path}: a damaged index file") from error


@dataclass(frozen=True)
class Probes:
    """Queries with the lists to search for each, the same in all shards of a trained index."""

    queries_QD: np.ndarray
    similarity_QL: np.ndarray
    list_QL: np.ndarray


def choose_lists(index: faiss.IndexIVF, queries_QD: np.ndarray, nprobe: int) -> Probes:
    """The `nprobe` lists nearest to each query."""
    queries_QD = np.ascontiguousarray(queries_QD, np.float32)
    return Probes(queries_QD, *index.quantizer.search(queries_QD, min(nprobe, index.nlist)))


def search(index: faiss.IndexIVF, probes: Probes, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest fingerprints of each query: similarities and ids, (queries, k); id -1: none."""
    index.nprobe = probes.list_QL.shape[1]
    return index.search_preassigned(probes.queries_QD, k, probes.list_QL, probes.similarity_QL)
