"""The nearest of very many centroids, for fingerprints by the ten thousand.

A graph of centroids (HNSW) is made for one query at a time. Here centroids are put into cells, and
all fingerprints near a cell are compared with its centroids at once, as one product of matrices.
"""

import faiss
import numpy as np

from grafp.index.size import CELLS
from grafp.model.fingerprint import DIMENSION

_ITERATIONS = 4  # of k-means over centroids, which only has to keep neighbors together


class CellAssignment:
    """Centroids in about as many cells as each has centroids."""

    def __init__(self, centroids_LD: np.ndarray) -> None:
        """`centroids_LD`: float32 unit vectors, (lists, 128)."""
        count = round(len(centroids_LD) ** 0.5)
        cells = faiss.Kmeans(
            DIMENSION, count, niter=_ITERATIONS, seed=1, min_points_per_centroid=1,
            max_points_per_centroid=1 << 30, spherical=True,
        )  # fmt: skip
        cells.train(centroids_LD)
        self._cells = cells.index
        _, cell_L1 = self._cells.search(centroids_LD, 1)
        self._lists = np.argsort(cell_L1[:, 0], kind="stable")
        self._first_C = np.searchsorted(cell_L1[self._lists, 0], np.arange(count + 1))
        self._centroids_LD = centroids_LD[self._lists]

    def nearest(self, vectors_ND: np.ndarray) -> np.ndarray:
        """The list of each fingerprint, float32 (fingerprints, 128); nearly always the nearest."""
        _, cell_NP = self._cells.search(vectors_ND, min(CELLS, len(self._first_C) - 1))
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
