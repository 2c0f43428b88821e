"""The index: its size rules, its codes, and what it finds."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import faiss
import numpy as np
import pytest

from grafp.errors import CatalogError
from grafp.index import gpu, ivfpq
from grafp.index.codes import Codes
from grafp.index.ids import fingerprint_ids
from grafp.index.ivfpq import choose_lists, decode, encode, parse_index, quantizer_of, train_index
from grafp.index.lists import Lists, recall
from grafp.index.size import CODE_BYTES, IndexParameters


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def whole(trained: bytes, vectors: np.ndarray, ids: np.ndarray) -> Lists:
    """All lists, with these fingerprints in them."""
    index = parse_index(trained)
    return Lists.filled(index, encode(trained, vectors, ids), range(index.nlist))


def nearest(trained: bytes, lists: Lists, queries: np.ndarray, k: int, nprobe: int) -> tuple:
    return lists.nearest(choose_lists(quantizer_of(parse_index(trained)), queries, nprobe), k)


def equal(one: Codes, other: Codes) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("list_N", "id_N", "code_NB")
    )


def clustered(count: int, seed: int = 0, clusters: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((clusters, 128))
    return unit(centers[rng.integers(clusters, size=count)] + rng.standard_normal((count, 128)))


@pytest.mark.parametrize("fingerprints", [1, 2, 38, 39, 1000, 9_999, 10_000, 10**5, 10**6, 10**8])
def test_an_index_is_never_larger_than_what_can_train_it(fingerprints: int) -> None:
    parameters = IndexParameters.for_size(fingerprints)
    assert 1 <= parameters.nprobe <= parameters.nlist
    assert 1 <= parameters.training_points <= fingerprints
    assert parameters.nlist == 1 or parameters.nlist * 39 <= fingerprints
    assert parameters.training_points >= 8 * parameters.nlist or parameters.nlist == 1
    assert parameters.codec == "SQfp16" or parameters.training_points >= 10_000
    assert parameters.training_points * 512 < 3e9  # bytes: it fits a worker's memory


def test_what_a_fingerprint_visits_grows_slower_than_the_catalog() -> None:
    visited = []
    for fingerprints in (10**6, 10**7, 10**8, 10**9):
        parameters = IndexParameters.for_size(fingerprints)
        assert parameters.codec == "PQ64x4fs"
        assert 8 <= parameters.nlist / fingerprints**0.5 <= 16
        visited.append(fingerprints * parameters.nprobe / parameters.nlist)
    assert all(after < 6 * before for before, after in itertools.pairwise(visited))


def test_a_grown_catalog_outgrows_its_template_but_not_at_once() -> None:
    small = IndexParameters.for_size(5_000)
    assert not small.outgrown_by(6_000)
    assert small.outgrown_by(20_000)  # enough now to train a product quantizer
    large = IndexParameters.for_size(10**5)
    assert not large.outgrown_by(2 * 10**5)
    assert large.outgrown_by(30 * 10**5)
    assert not IndexParameters.for_size(10**11).outgrown_by(10**13)  # no more lists than that


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
    lists = whole(trained, vectors, np.arange(count))
    similarity, found = nearest(trained, lists, vectors, 1, 32)
    assert found[:, 0].tolist() == list(range(count))
    np.testing.assert_allclose(similarity[:, 0], 1.0, atol=2e-3)


@pytest.fixture(scope="module")
def trained() -> bytes:
    return train_index(clustered(10_000), IndexParameters.for_size(10_000))


def test_most_true_neighbors_are_found(trained: bytes) -> None:
    vectors, queries = clustered(10_000), clustered(10_000)[::50]
    noise = np.random.default_rng(1).standard_normal(queries.shape)
    queries = unit(queries + 0.4 * noise / np.linalg.norm(noise, axis=1, keepdims=True))
    parameters = IndexParameters.for_size(10_000)
    assert parameters.nprobe <= parameters.nlist / 8
    lists = whole(trained, vectors, np.arange(10_000))
    _, found = nearest(trained, lists, queries, 20, parameters.nprobe)
    true = (queries @ vectors.T).argsort(axis=1)[:, ::-1]
    nearest_found = (found == true[:, :1]).any(axis=1)
    assert nearest_found.mean() > 0.97
    part = np.mean([len(set(f) & set(t)) / 20 for f, t in zip(found, true[:, :20], strict=True)])
    assert part > 0.9


def test_the_same_fingerprints_have_the_same_codes(trained: bytes) -> None:
    vectors, ids = clustered(3_000, seed=2), np.arange(3_000) + (7 << 20)
    first = encode(trained, vectors, ids)
    faiss.omp_set_num_threads(2)
    assert equal(encode(trained, vectors, ids), first)
    order = np.random.default_rng(0).permutation(3_000)
    assert equal(encode(trained, vectors[order], ids[order]), first)
    halves = encode(trained, vectors.astype(np.float16), ids)
    assert (halves.list_N == first.list_N).mean() > 0.99


def test_silence_has_no_code(trained: bytes) -> None:
    vectors = clustered(100)
    vectors[::2] = 0
    assert sorted(encode(trained, vectors, np.arange(100)).id_N.tolist()) == list(range(1, 100, 2))
    assert len(encode(trained, np.zeros((5, 128), np.float16), np.arange(5))) == 0
    assert len(encode(trained, np.zeros((0, 128), np.float16), np.arange(0))) == 0


@pytest.mark.parametrize("codec", CODE_BYTES)
def test_lists_in_parts_answer_as_all_together(codec: str) -> None:
    vectors, ids = clustered(2_000), np.arange(2_000) + (7 << 20)
    parameters = replace(IndexParameters.for_size(2_000), codec=codec)
    trained = train_index(vectors, parameters)
    index, codes = parse_index(trained), encode(trained, vectors, ids)
    assert codes.code_NB.shape == (2_000, CODE_BYTES[codec])
    probes = choose_lists(quantizer_of(index), vectors[:50], 8)
    expected, found = Lists.filled(index, codes, range(index.nlist)).nearest(probes, 5)
    assert (found[:, 0] == ids[:50]).all()
    cut = index.nlist // 3
    parts = [
        Lists.filled(index, codes.within(lists), lists)
        for lists in (range(cut), range(cut, index.nlist))
    ]
    similarity = np.concatenate([part.nearest(probes, 5)[0] for part in parts], axis=1)
    np.testing.assert_allclose(-np.sort(-similarity, axis=1)[:, :5], expected, atol=1e-6)
    assert sum(part.sizes_L.sum() for part in parts) == 2_000
    alike = np.einsum("nd,nd->n", decode(index, codes), vectors[codes.id_N - (7 << 20)])
    assert alike.mean() > 0.8
    assert recall(index, codes, vectors, ids) > 0.9


def test_many_lists_are_trained_in_two_levels_and_found_by_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ivfpq, "ONE_LEVEL", 64)
    monkeypatch.setattr(ivfpq, "FLAT_LISTS", 128)
    vectors = clustered(10_000)
    parameters = replace(IndexParameters.for_size(10_000), nlist=200)
    trained = train_index(vectors, parameters)
    assert train_index(vectors, parameters) == trained
    index = parse_index(trained)
    assert isinstance(quantizer_of(index), faiss.IndexIVF)
    assert (index.nlist, index.quantizer.ntotal) == (200, 200)
    codes = encode(trained, vectors, np.arange(10_000))
    assert codes.imbalance(range(200)) < 2
    lists = Lists.filled(index, codes, range(200))
    _, found = nearest(trained, lists, vectors[::100], 1, 8)
    assert (found[:, 0] == np.arange(0, 10_000, 100)).mean() > 0.97


def test_centroids_are_shared_out_by_size() -> None:
    assert ivfpq._shares([10, 20, 70], 10) == [1, 2, 7]
    assert sum(ivfpq._shares([3, 3, 3], 4)) == 4
    assert ivfpq._shares([1, 0, 99], 50)[1] == 0


def test_imbalance_is_one_for_even_lists() -> None:
    even = Codes(np.repeat(np.arange(4), 5), np.arange(20), np.zeros((20, 1), np.uint8))
    assert even.imbalance(range(4)) == 1
    assert even.imbalance(range(8)) == 2  # half of them empty


def test_the_same_sample_trains_the_same_index() -> None:
    parameters = IndexParameters.for_size(2_000)
    assert train_index(clustered(2_000), parameters) == train_index(clustered(2_000), parameters)


def test_no_more_answers_than_fingerprints(trained: bytes) -> None:
    lists = whole(trained, clustered(3), np.arange(3))
    _, found = nearest(trained, lists, clustered(1), 20, 10_000)
    assert sorted(found[0].tolist()) == [-1] * 17 + [0, 1, 2]


def damaged(data: bytes) -> list[bytes]:
    cuts = [data[: int(part * len(data))] for part in (0.0, 0.0001, 0.01, 0.5, 0.9, 0.999)]
    return [*cuts, b"not an index" + data, bytes(len(data)), data[1:], b"x"]


def test_damaged_bytes_are_a_catalog_error(trained: bytes) -> None:
    for data in damaged(trained):
        with pytest.raises(CatalogError, match="damaged index") as error:
            parse_index(data)
        assert "\n" not in str(error.value)


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
    assert equal(ivfpq._encoded(index, vectors, ids, centroids), encode(trained, vectors, ids))


def test_without_a_gpu_the_cpu_does_it() -> None:
    """A machine with one, but with FAISS for CPUs, is the same."""
    if gpu.is_there():
        pytest.skip("FAISS sees a GPU here")
    vectors, parameters = clustered(1_000), IndexParameters.for_size(1_000)
    trained = train_index(vectors, parameters)
    assert train_index(vectors, parameters, gpu=True) == trained
    ids = np.arange(1_000)
    assert equal(encode(trained, vectors, ids, gpu=True), encode(trained, vectors, ids))


def test_faiss_that_fails_on_a_gpu_is_tried_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "is_there", lambda: True)

    def work(on: bool) -> bool:
        if on:
            faiss.deserialize_index(np.zeros(1, np.uint8))  # FAISS's own error
        return on

    assert gpu.tried(work, True) is False
    assert gpu.tried(lambda on: on, True) is True
    assert gpu.tried(lambda on: on, False) is False
