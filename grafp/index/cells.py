"""Very many vectors divided into cells, so that the nearest are found without comparing all.

Used for the centroids of an index, and for a quick look at the background.
"""

import faiss
import numpy as np

from grafp.index.size import CELLS, cells_in_view

_ROUNDS = 4  # of k-means, which only has to keep neighbors together
_POINTS = 64  # for each cell, which are enough for that


def in_cells(vectors_ND: np.ndarray, count: int | None = None) -> faiss.IndexIVF:
    """The vectors as they are, float32 (vectors, dimension), in cells of neighbors.

    `count`: cells; default: as many as each has vectors.
    """
    index = _empty(vectors_ND, count)
    index.add(vectors_ND)
    return index


def _empty(vectors_ND: np.ndarray, count: int | None = None) -> faiss.IndexIVF:
    count = min(len(vectors_ND), count or max(1, round(len(vectors_ND) ** 0.5)))
    index = faiss.index_factory(vectors_ND.shape[1], f"IVF{count},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed, index.cp.spherical = _ROUNDS, 1, True
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _POINTS
    index.train(vectors_ND)
    return index


def look(cells: faiss.IndexIVF, wanted: int) -> faiss.SearchParametersIVF:
    """How to search for so many of its vectors: in enough cells to find nearly all of them."""
    return faiss.SearchParametersIVF(nprobe=cells_in_view(cells.nlist, cells.ntotal, wanted))


class CellAssignment:
    """The nearest centroid of fingerprints by the ten thousand.

    All fingerprints near a cell are compared with its centroids at once, as one product of
    matrices.
    """

    def __init__(self, centroids_LD: np.ndarray) -> None:
        """`centroids_LD`: float32 unit vectors, (lists, 128)."""
        self._index = _empty(centroids_LD)
        _, cell_L1 = self._index.quantizer.search(centroids_LD, 1)
        self._lists = np.argsort(cell_L1[:, 0], kind="stable")
        cells = np.arange(self._index.nlist + 1)
        self._first_C = np.searchsorted(cell_L1[self._lists, 0], cells)
        self._centroids_LD = centroids_LD[self._lists]

    def nearest(self, vectors_ND: np.ndarray) -> np.ndarray:
        """The list of each fingerprint, float32 (fingerprints, 128); nearly always the nearest."""
        _, cell_NP = self._index.quantizer.search(vectors_ND, min(CELLS, self._index.nlist))
        order = np.argsort(cell_NP, axis=None, kind="stable")
        row_R = order // cell_NP.shape[1]
        cuts = np.searchsorted(cell_NP.ravel()[order], np.arange(len(self._first_C)))
        best_N = np.full(len(vectors_ND), -np.inf, np.float32)
        place_N = np.zeros(len(vectors_ND), np.int64)
        for cell in np.flatnonzero(np.diff(cuts) * np.diff(self._first_C)).tolist():
            rows = row_R[cuts[cell] : cuts[cell + 1]]
            first, after = self._first_C[cell : cell + 2]
            product_RG = vectors_ND[rows] @ self._centroids_LD[first:after].T
            near_R = product_RG.argmax(axis=1)
            found_R = product_RG[np.arange(len(rows)), near_R]
            nearer = found_R > best_N[rows]
            best_N[rows[nearer]] = found_R[nearer]
            place_N[rows[nearer]] = first + near_R[nearer]
        list_N: np.ndarray = self._lists[place_N]
        return list_N
