"""The index: its size rules, its bytes, and what it finds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from grafp.errors import CatalogError
from grafp.index import gpu, ivfpq
from grafp.index.ids import fingerprint_ids
from grafp.index.ivfpq import choose_lists, open_index, parse_index, populate, search, train_index
from grafp.index.size import CODE_BYTES, IndexParameters


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def nearest(index: faiss.IndexIVF, queries: np.ndarray, k: int, nprobe: int) -> tuple:
    return search(index, choose_lists(index, queries, nprobe), k)


def clustered(count: int, seed: int = 0, clusters: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((clusters, 128))
    return unit(centers[rng.integers(clusters, size=count)] + rng.standard_normal((count, 128)))


@pytest.mark.parametrize("fingerprints", [1, 2, 38, 39, 1000, 9_999, 10_000, 10**5, 10**6, 10**8])
def test_an_index_is_never_larger_than_what_can_train_it(fingerprints: int) -> None:
    parameters = IndexParameters.for_size(fingerprints)
    assert 1 <= parameters.nprobe <= parameters.nlist
    assert 1 <= parameters.training_points <= fingerprints
    assert parameters.nlist == 1 or parameters.nlist * 39 <= parameters.training_points
    assert parameters.codec == "SQfp16" or parameters.training_points >= 10_000
    assert parameters.training_points * 512 < 3e9  # bytes: it fits a worker's memory


def test_lists_grow_with_the_square_root_up_to_what_suits_a_shard() -> None:
    for fingerprints in (10**5, 10**6, 10**7, 10**8):
        parameters = IndexParameters.for_size(fingerprints)
        assert 2 <= parameters.nlist / min(fingerprints, 10**6 + 10**5) ** 0.5 <= 4
        assert parameters.codec == "PQ64x4fs"
        visited = fingerprints * parameters.nprobe / parameters.nlist
        assert visited <= 0.07 * fingerprints


def test_a_grown_catalog_outgrows_its_template_but_not_at_once() -> None:
    small = IndexParameters.for_size(5_000)
    assert not small.outgrown_by(6_000)
    assert small.outgrown_by(20_000)  # enough now to train a product quantizer
    large = IndexParameters.for_size(10**5)
    assert not large.outgrown_by(2 * 10**5)
    assert large.outgrown_by(30 * 10**5)
    assert not IndexParameters.for_size(2 * 10**6).outgrown_by(10**9)  # no more lists than that


def test_ids_tell_track_and_segment() -> None:
    ids = fingerprint_ids(3, np.array([0, 1, 1_048_575]))
    assert ids.dtype == np.int64
    assert ids.tolist() == [3 << 20, (3 << 20) + 1, (4 << 20) - 1]
    assert fingerprint_ids(2**40, np.array([5]))[0] == (2**40 << 20) + 5


@pytest.mark.parametrize("count", [1, 2, 30, 300])
def test_a_tiny_catalog_finds_all_that_is_in_it(count: int) -> None:
    vectors = clustered(count)
    trained = train_index(vectors, IndexParameters.for_size(count))
    assert parse_index(trained).ntotal == 0
    index = parse_index(populate(trained, vectors, np.arange(count)))
    similarity, found = nearest(index, vectors, 1, 32)
    assert found[:, 0].tolist() == list(range(count))
    np.testing.assert_allclose(similarity[:, 0], 1.0, atol=2e-3)


@pytest.fixture(scope="module")
def trained() -> bytes:
    return train_index(clustered(10_000), IndexParameters.for_size(10_000))


def test_most_true_neighbors_are_found(trained: bytes) -> None:
    vectors, queries = clustered(10_000), clustered(10_000)[::50]
    noise = np.random.default_rng(1).standard_normal(queries.shape)
    queries = unit(queries + 0.4 * noise / np.linalg.norm(noise, axis=1, keepdims=True))
    index = parse_index(populate(trained, vectors, np.arange(10_000)))
    nprobe = IndexParameters.for_size(10_000).nprobe
    assert nprobe <= index.nlist / 8
    _, found = nearest(index, queries, 20, nprobe)
    true = (queries @ vectors.T).argsort(axis=1)[:, ::-1]
    nearest_found = (found == true[:, :1]).any(axis=1)
    assert nearest_found.mean() > 0.97
    recall = np.mean([len(set(f) & set(t)) / 20 for f, t in zip(found, true[:, :20], strict=True)])
    assert recall > 0.9


def test_the_same_fingerprints_give_the_same_bytes(trained: bytes) -> None:
    vectors, ids = clustered(3_000, seed=2), np.arange(3_000) + (7 << 20)
    first = populate(trained, vectors, ids)
    faiss.omp_set_num_threads(2)
    assert populate(trained, vectors, ids) == first
    assert faiss.omp_get_max_threads() == 2
    assert populate(trained, vectors.astype(np.float16), ids) != trained


def test_the_same_sample_trains_the_same_template() -> None:
    parameters = IndexParameters.for_size(2_000)
    assert train_index(clustered(2_000), parameters) == train_index(clustered(2_000), parameters)


def test_no_more_answers_than_fingerprints(trained: bytes) -> None:
    index = parse_index(populate(trained, clustered(3), np.arange(3)))
    _, found = nearest(index, clustered(1), 20, 10_000)
    assert sorted(found[0].tolist()) == [-1] * 17 + [0, 1, 2]


def damaged(data: bytes) -> list[bytes]:
    cuts = [data[: int(part * len(data))] for part in (0.0, 0.0001, 0.01, 0.5, 0.9, 0.999)]
    return [*cuts, b"not an index" + data, bytes(len(data)), data[1:], b"x"]


def test_damaged_bytes_are_a_catalog_error(trained: bytes, tmp_path: Path) -> None:
    whole = populate(trained, clustered(500), np.arange(500))
    for number, data in enumerate(damaged(whole)):
        with pytest.raises(CatalogError, match="damaged index") as error:
            parse_index(data)
        assert "\n" not in str(error.value)
        path = tmp_path / f"{number}.faiss"
        path.write_bytes(data)
        with pytest.raises(CatalogError, match=f"{number}.faiss: a damaged index"):
            open_index(str(path))


def test_a_mapped_file_answers_as_the_bytes_do(trained: bytes, tmp_path: Path) -> None:
    vectors = clustered(2_000)
    data = populate(trained, vectors, np.arange(2_000))
    (tmp_path / "shard.faiss").write_bytes(data)
    mapped = open_index(str(tmp_path / "shard.faiss"))
    for ours, theirs in zip(
        nearest(mapped, vectors[:50], 5, 8),
        nearest(parse_index(data), vectors[:50], 5, 8),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("codec", CODE_BYTES)
def test_centroids_elsewhere_make_the_same_index(codec: str) -> None:
    """What a GPU is handed, handed to the CPU; tests/gpu has the GPU itself."""
    vectors, ids = clustered(2_000), np.arange(2_000) + (7 << 20)
    parameters = replace(IndexParameters.for_size(2_000), codec=codec)
    trained = train_index(vectors, parameters)
    empty = ivfpq._untrained(parameters, len(vectors), seed=0)
    assert ivfpq._trained(empty, vectors, faiss.IndexFlatIP(128)) == trained
    index = parse_index(trained)
    centroids = faiss.clone_index(index.quantizer)
    assert ivfpq._populated(index, vectors, ids, centroids) == populate(trained, vectors, ids)


def test_without_a_gpu_the_cpu_does_it() -> None:
    """A machine with one, but with FAISS for CPUs, is the same."""
    if gpu.is_there():
        pytest.skip("FAISS sees a GPU here")
    vectors, parameters = clustered(1_000), IndexParameters.for_size(1_000)
    trained = train_index(vectors, parameters)
    assert train_index(vectors, parameters, gpu=True) == trained
    ids = np.arange(1_000)
    assert populate(trained, vectors, ids, gpu=True) == populate(trained, vectors, ids)


def test_faiss_that_fails_on_a_gpu_is_tried_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "is_there", lambda: True)

    def work(on: bool) -> bool:
        if on:
            faiss.deserialize_index(np.zeros(1, np.uint8))  # FAISS's own error
        return on

    assert gpu.tried(work, True) is False
    assert gpu.tried(lambda on: on, True) is True
    assert gpu.tried(lambda on: on, False) is False
