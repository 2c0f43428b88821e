"""Search by hashes against exact search, where the truth is known."""

from dataclasses import replace

import faiss
import numpy as np
import pytest

from grafp.evaluation.hashing import HashSearch
from grafp.index.alignment import Effort, align, find_matches
from grafp.index.ids import SEGMENT_BITS, fingerprint_ids
from grafp.index.scoring import Tracks
from grafp.model.fingerprint import DIMENSION
from pipelines.jobs import evaluate

TRACKS, LENGTH = 12, 50


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=-1, keepdims=True)).astype(np.float32)


def part(tracks: dict[int, np.ndarray]) -> Tracks:
    starts = LENGTH * np.arange(len(tracks))
    counts = np.full(len(tracks), LENGTH)
    vectors = np.concatenate(list(tracks.values())).astype(np.float16)
    return Tracks(vectors, np.array(list(tracks)), starts, counts)


def search_of(*parts: Tracks) -> HashSearch:
    """Without lists, which are not to be used."""
    one_list = faiss.IndexFlatIP(DIMENSION)
    one_list.add(np.zeros((1, DIMENSION), np.float32))
    return HashSearch(one_list, [], parts, Effort(None, 1))


@pytest.fixture(scope="module")
def tracks() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    return {7 * n: unit(rng.standard_normal((LENGTH, DIMENSION))) for n in range(TRACKS)}


@pytest.fixture(scope="module")
def queries(tracks: dict[int, np.ndarray]) -> list[np.ndarray]:
    """Ten noisy fingerprints of each track from its fifth on, at a cosine of about 0.7."""
    rng = np.random.default_rng(1)
    noise = 1.0 / DIMENSION**0.5
    return [unit(v[5:15] + noise * rng.standard_normal((10, DIMENSION))) for v in tracks.values()]


def test_hashes_find_what_exact_search_finds(
    tracks: dict[int, np.ndarray], queries: list[np.ndarray]
) -> None:
    found = find_matches(queries, search_of(part(tracks)), tried=1)
    for query, (ordinal, vectors), [match] in zip(queries, tracks.items(), found, strict=True):
        exact = align(query, vectors)
        assert exact
        assert match.ordinal == ordinal
        assert match.start == pytest.approx(exact.start, abs=0.01)
        assert match.score == pytest.approx(exact.score, abs=1e-3)


def test_a_similarity_is_about_the_cosine(
    tracks: dict[int, np.ndarray], queries: list[np.ndarray]
) -> None:
    vectors = np.concatenate(list(tracks.values()))
    similarity, ids = search_of(part(tracks)).nearest(queries[0], 40)
    row = (ids >> SEGMENT_BITS) // 7 * LENGTH + (ids & ((1 << SEGMENT_BITS) - 1))
    cosine = np.einsum("qkd,qd->qk", vectors[row], queries[0])
    assert (np.diff(similarity, axis=1) <= 0).all()
    assert (ids[:, 0] == fingerprint_ids(0, np.arange(5, 15))).all()
    assert np.abs(similarity[:, 0] - cosine[:, 0]).max() < 0.3
    assert np.abs(similarity[:, 0] - cosine[:, 0]).mean() < 0.1


def test_no_division_into_shards_changes_the_answers(
    tracks: dict[int, np.ndarray], queries: list[np.ndarray]
) -> None:
    one = search_of(part(tracks))
    three = search_of(
        *(part({o: v for o, v in tracks.items() if o // 7 % 3 == n}) for n in range(3))
    )
    asked = np.concatenate(queries)
    for first, second in zip(one.nearest(asked, 40), three.nearest(asked, 40), strict=True):
        np.testing.assert_array_equal(first, second)


def test_removed_tracks_and_silence_are_not_found(
    tracks: dict[int, np.ndarray], queries: list[np.ndarray]
) -> None:
    silent = tracks | {7: np.zeros((LENGTH, DIMENSION), np.float32)}
    whole = part(silent)
    search = search_of(replace(whole, counts_T=np.where(whole.ordinals_T == 0, 0, LENGTH)))
    _, ids = search.nearest(np.concatenate([queries[0], queries[1]]), 1000)
    found = set((ids[ids >= 0] >> SEGMENT_BITS).tolist())
    assert found == set(tracks) - {0, 7}
    assert (ids == -1).any()
    empty = search_of(replace(whole, counts_T=np.zeros(TRACKS, int)))
    assert find_matches(queries, empty) == [[] for _ in queries]


def test_only_the_two_searches_can_be_chosen(capsys: pytest.CaptureFixture) -> None:
    needed = [f"--{name}=x" for name in ("catalog", "audio", "noise", "rir", "out")]
    assert evaluate.options(needed).search == "index"
    with pytest.raises(SystemExit):
        evaluate.options([*needed, "--search", "hash"])
    assert "--search" in capsys.readouterr().err
