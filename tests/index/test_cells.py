"""The nearest of many centroids, by cells."""

import faiss
import numpy as np
import pytest
from vectors import unit

from grafp.index.cells import CellAssignment, in_cells, look


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


@pytest.mark.parametrize("wanted", [16, 48])
def test_a_look_into_some_cells_finds_nearly_all_that_are_nearest(wanted: int) -> None:
    rng = np.random.default_rng(0)
    centers = unit(rng.standard_normal((300, 128)))
    vectors = unit(np.repeat(centers, 60, 0) + 0.07 * rng.standard_normal((18_000, 128)))
    queries = unit(vectors[::600] + 0.06 * rng.standard_normal((30, 128))).astype(np.float32)
    cells = in_cells(vectors.astype(np.float32))
    params = look(cells, wanted)
    assert params.nprobe < cells.nlist / 2
    _, found = cells.search(queries, wanted, params=params)
    nearest = np.argsort(-(queries @ vectors.T), axis=1)[:, :wanted]
    rates = [len(np.intersect1d(*pair)) / wanted for pair in zip(found, nearest, strict=True)]
    assert np.mean(rates) > 0.97


def test_few_centroids_and_no_fingerprints() -> None:
    centroids = np.eye(128, dtype=np.float32)[:5]
    cells = CellAssignment(centroids)
    assert cells.nearest(centroids[::-1]).tolist() == [4, 3, 2, 1, 0]
    assert cells.nearest(centroids[:0]).tolist() == []
