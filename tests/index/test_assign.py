"""The nearest of many centroids, by cells."""

import faiss
import numpy as np
from vectors import unit

from grafp.index.assign import CellAssignment


def test_nearly_all_fingerprints_get_the_nearest_centroid() -> None:
    rng = np.random.default_rng(0)
    centers = unit(rng.standard_normal((300, 128)))
    centroids = unit(np.repeat(centers, 10, 0) + 0.04 * rng.standard_normal((3_000, 128)))
    centroids = centroids.astype(np.float32)
    near = rng.integers(len(centroids), size=4_000)
    vectors = unit(centroids[near] + 0.05 * rng.standard_normal((4_000, 128))).astype(np.float32)
    exact = faiss.IndexFlatIP(128)
    exact.add(centroids)
    _, expected = exact.search(vectors, 1)
    found = CellAssignment(centroids).nearest(vectors)
    assert (found == expected[:, 0]).mean() > 0.98
    again = CellAssignment(centroids).nearest(vectors[::-1])[::-1]
    assert (again == found).mean() > 0.999


def test_few_centroids_and_no_fingerprints() -> None:
    centroids = np.eye(128, dtype=np.float32)[:5]
    cells = CellAssignment(centroids)
    assert cells.nearest(centroids[::-1]).tolist() == [4, 3, 2, 1, 0]
    assert cells.nearest(centroids[:0]).tolist() == []
