"""The index on random fingerprints, and sequence matching on catalogues whose truth is known."""

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest

from grafp.errors import CatalogueError
from grafp.index import (
    IndexParameters,
    fill,
    fingerprint_ids,
    open_index,
    parse_index,
    search,
    train_template,
)
from grafp.matching import Match, Shard, align, find_matches

FINE = 10  # points of a synthetic recording per hop


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(count: int, seed: int = 0, clusters: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, 128))
    return unit(centres[rng.integers(clusters, size=count)] + rng.standard_normal((count, 128)))


# The index


@pytest.mark.parametrize("fingerprints", [1, 2, 38, 39, 1000, 9983, 9984, 10**5, 10**6, 10**8])
def test_an_index_is_never_larger_than_what_can_train_it(fingerprints: int) -> None:
    parameters = IndexParameters.for_size(fingerprints)
    assert 1 <= parameters.nprobe <= parameters.nlist
    assert 1 <= parameters.training_points <= fingerprints
    assert parameters.nlist == 1 or parameters.nlist * 39 <= parameters.training_points
    assert parameters.codec == "SQfp16" or parameters.training_points >= 256 * 39
    assert parameters.training_points * 512 < 3e9  # bytes: it fits a worker's memory


def test_lists_grow_with_the_square_root_and_queries_visit_few() -> None:
    for fingerprints in (10**6, 10**7, 10**8):
        parameters = IndexParameters.for_size(fingerprints)
        assert 2 <= parameters.nlist / fingerprints**0.5 <= 4
        assert parameters.codec == "PQ64"
        visited = fingerprints * parameters.nprobe / parameters.nlist
        assert visited <= 0.04 * fingerprints


def test_a_grown_catalogue_outgrows_its_template_but_not_at_once() -> None:
    small = IndexParameters.for_size(5_000)
    assert not small.outgrown_by(6_000)
    assert small.outgrown_by(20_000)  # enough now to train a product quantiser
    large = IndexParameters.for_size(10**6)
    assert not large.outgrown_by(2 * 10**6)
    assert large.outgrown_by(30 * 10**6)


def test_ids_tell_track_and_segment() -> None:
    ids = fingerprint_ids(3, np.array([0, 1, 1_048_575]))
    assert ids.dtype == np.int64
    assert ids.tolist() == [3 << 20, (3 << 20) + 1, (4 << 20) - 1]
    assert fingerprint_ids(2**40, np.array([5]))[0] == (2**40 << 20) + 5


@pytest.mark.parametrize("count", [1, 2, 30, 300])
def test_a_tiny_catalogue_finds_all_that_is_in_it(count: int) -> None:
    vectors = clustered(count)
    template = train_template(vectors, IndexParameters.for_size(count))
    assert parse_index(template).ntotal == 0
    index = parse_index(fill(template, vectors, np.arange(count)))
    similarity, found = search(index, vectors, 1, 32)
    assert found[:, 0].tolist() == list(range(count))
    np.testing.assert_allclose(similarity[:, 0], 1.0, atol=2e-3)


@pytest.fixture(scope="module")
def template() -> bytes:
    return train_template(clustered(10_000), IndexParameters.for_size(10_000))


def test_most_true_neighbours_are_found(template: bytes) -> None:
    vectors, queries = clustered(10_000), clustered(10_000)[::50]
    noise = np.random.default_rng(1).standard_normal(queries.shape)
    queries = unit(queries + 0.4 * noise / np.linalg.norm(noise, axis=1, keepdims=True))
    index = parse_index(fill(template, vectors, np.arange(10_000)))
    nprobe = IndexParameters.for_size(10_000).nprobe
    assert nprobe <= index.nlist / 8
    _, found = search(index, queries, 20, nprobe)
    true = (queries @ vectors.T).argsort(axis=1)[:, ::-1]
    nearest_found = (found == true[:, :1]).any(axis=1)
    assert nearest_found.mean() > 0.97
    recall = np.mean([len(set(f) & set(t)) / 20 for f, t in zip(found, true[:, :20], strict=True)])
    assert recall > 0.9


def test_the_same_fingerprints_give_the_same_bytes(template: bytes) -> None:
    vectors, ids = clustered(3_000, seed=2), np.arange(3_000) + (7 << 20)
    first = fill(template, vectors, ids)
    faiss.omp_set_num_threads(2)
    assert fill(template, vectors, ids) == first
    assert faiss.omp_get_max_threads() == 2
    assert fill(template, vectors.astype(np.float16), ids) != template


def test_the_same_sample_trains_the_same_template() -> None:
    parameters = IndexParameters.for_size(2_000)
    assert train_template(clustered(2_000), parameters) == train_template(
        clustered(2_000), parameters
    )


def test_no_more_answers_than_fingerprints(template: bytes) -> None:
    index = parse_index(fill(template, clustered(3), np.arange(3)))
    _, found = search(index, clustered(1), 20, 10_000)
    assert sorted(found[0].tolist()) == [-1] * 17 + [0, 1, 2]


def damaged(data: bytes) -> list[bytes]:
    cuts = [data[: int(part * len(data))] for part in (0.0, 0.0001, 0.01, 0.5, 0.9, 0.999)]
    return [*cuts, b"not an index" + data, bytes(len(data)), data[1:], b"x"]


def test_damaged_bytes_are_a_catalogue_error(template: bytes, tmp_path: Path) -> None:
    whole = fill(template, clustered(500), np.arange(500))
    for number, data in enumerate(damaged(whole)):
        with pytest.raises(CatalogueError, match="damaged index") as error:
            parse_index(data)
        assert "\n" not in str(error.value)
        path = tmp_path / f"{number}.faiss"
        path.write_bytes(data)
        with pytest.raises(CatalogueError, match=f"{number}.faiss: a damaged index"):
            open_index(str(path))


def test_a_mapped_file_answers_as_the_bytes_do(template: bytes, tmp_path: Path) -> None:
    vectors = clustered(2_000)
    data = fill(template, vectors, np.arange(2_000))
    (tmp_path / "shard.faiss").write_bytes(data)
    mapped = open_index(str(tmp_path / "shard.faiss"))
    for ours, theirs in zip(
        search(mapped, vectors[:50], 5, 8),
        search(parse_index(data), vectors[:50], 5, 8),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


# Matching


def recording(hops: int, seed: int) -> np.ndarray:
    """Fingerprints that change smoothly, ten points to a hop; neighbours on the grid are 0.9 alike.

    Shape (FINE * hops, 128).
    """
    rng = np.random.default_rng(seed)
    width = 1.5 * FINE
    kernel = np.exp(-0.5 * (np.arange(-4 * width, 4 * width + 1) / width) ** 2)
    noise = rng.standard_normal((FINE * hops + len(kernel) - 1, 128))
    spectrum = np.fft.rfft(noise, axis=0) * np.fft.rfft(kernel, len(noise))[:, None]
    return unit(np.fft.irfft(spectrum, len(noise), axis=0)[len(kernel) - 1 :])


def on_grid(fine_ND: np.ndarray) -> np.ndarray:
    return fine_ND[::FINE]


def clip(fine_ND: np.ndarray, start: float, hops: int, noise: float = 0.0) -> np.ndarray:
    """A query of `hops` fingerprints from `start`, in hops, with noise of this length added."""
    first = round(start * FINE)
    query = fine_ND[first : first + FINE * hops : FINE]
    assert len(query) == hops
    added = np.random.default_rng(first).standard_normal(query.shape)
    return unit(query + noise * unit(added))


def shards_of(tracks: dict[int, np.ndarray], count: int = 1) -> list[Shard]:
    """A catalogue of these ordinals, dealt out to `count` shards filled from one template."""
    everything = np.concatenate(list(tracks.values()))
    template = train_template(everything, IndexParameters.for_size(len(everything)))
    ordinals = sorted(tracks)
    return [shard_of(template, {o: tracks[o] for o in ordinals[n::count]}) for n in range(count)]


def shard_of(template: bytes, tracks: dict[int, np.ndarray]) -> Shard:
    counts = np.array([len(vectors) for vectors in tracks.values()])
    vectors = np.concatenate(list(tracks.values()))
    ids = np.concatenate([fingerprint_ids(o, np.arange(len(v))) for o, v in tracks.items()])
    return Shard(
        index=parse_index(fill(template, vectors, ids)),
        vectors_ND=vectors.astype(np.float16),
        ordinals_T=np.array(list(tracks)),
        first_rows_T=np.concatenate([[0], np.cumsum(counts)[:-1]]),
        counts_T=counts,
    )


def best(query: np.ndarray, shards: list[Shard]) -> Match:
    [[match]] = find_matches([query], shards)
    return match


ORDINALS = (0, 1, 2, 3, 7, 40, 41, 500, 1_000_000)


@pytest.fixture(scope="module")
def fine() -> dict[int, np.ndarray]:
    return {ordinal: recording(120, ordinal) for ordinal in ORDINALS}


@pytest.fixture(scope="module")
def tracks(fine: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    return {ordinal: on_grid(vectors) for ordinal, vectors in fine.items()}


@pytest.fixture(scope="module")
def shards(tracks: dict[int, np.ndarray]) -> list[Shard]:
    return shards_of(tracks)


@pytest.mark.parametrize("noise", [0.0, 1.0, 2.0])
def test_noisy_clips_are_found_in_their_track_at_their_place(
    noise: float, fine: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    places = [(ordinal, start) for ordinal in ORDINALS for start in (0, 13, 57, 105)]
    queries = [clip(fine[ordinal], start, 15, noise) for ordinal, start in places]
    answers = find_matches(queries, shards)
    assert len(answers) == len(queries)
    for (ordinal, start), [match] in zip(places, answers, strict=True):
        assert match.ordinal == ordinal
        assert match.start == pytest.approx(start, abs=0.1 + 0.1 * noise)
        assert (match.first, match.last) == (0, 14)
        assert match.score == pytest.approx((1 + noise**2) ** -0.5, abs=0.1)
        assert match.rank_score == pytest.approx(match.score)


@pytest.mark.parametrize("start", [20.1, 20.3, 20.5, 20.7, 20.9])
def test_a_start_between_two_fingerprints_is_interpolated(
    start: float, fine: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    for ordinal in ORDINALS:
        match = best(clip(fine[ordinal], start, 10), shards)
        assert match.ordinal == ordinal
        assert match.start == pytest.approx(start, abs=0.1)


def test_one_fingerprint_is_enough_to_be_found(
    fine: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    for start in (0, 50, 119):
        match = best(clip(fine[40], start, 1), shards)
        assert match.ordinal == 40
        assert match.start == pytest.approx(start, abs=0.1)
        assert (match.first, match.last) == (0, 0)


def test_the_score_is_equation_8(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    query = clip(fine[7], 33, 12, noise=0.7)
    match = best(query, shards)
    reference = tracks[7].astype(np.float16).astype(np.float64)
    products = [float(query[i] @ reference[33 + i]) for i in range(12)]
    assert match.score == pytest.approx(sum(products) / 12, abs=1e-5)
    assert match.rank_score == pytest.approx(sum(products) / 12, abs=1e-5)


def test_no_answer_reaches_from_one_track_into_the_next(
    tracks: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    """Tracks 40 and 41 follow each other in the shard, and so do their fingerprints."""
    for of_first in (4, 5, 6):
        query = np.concatenate([tracks[40][-of_first:], tracks[41][: 10 - of_first]])
        [matches] = find_matches([query], shards, top_k=3)
        assert 0.35 < matches[0].rank_score < 0.75
        for match in matches[: 1 if of_first != 5 else 2]:
            ends_in_40 = (40, 120 - of_first, 0, of_first - 1)
            begins_in_41 = (41, -of_first, of_first, 9)
            place = (match.ordinal, match.start, match.first, match.last)
            assert place in (ends_in_40, begins_in_41)
            assert match.score == pytest.approx(1.0, abs=0.01)
        if of_first != 5:
            assert matches[0].ordinal == (41 if of_first < 5 else 40)


def test_a_query_longer_than_the_track_finds_it_inside(tracks: dict[int, np.ndarray]) -> None:
    jingle = on_grid(recording(8, seed=77))
    query = np.concatenate([on_grid(recording(6, 78)), jingle, on_grid(recording(16, 79))])
    match = best(query, shards_of({**tracks, 50: jingle}))
    assert (match.ordinal, match.first, match.last) == (50, 6, 13)
    assert match.start == pytest.approx(-6, abs=0.1)
    assert match.score == pytest.approx(1.0, abs=0.01)
    assert match.rank_score == pytest.approx(8 / 30, abs=0.1)


@pytest.mark.parametrize(("start", "place"), [(-4, (4, 11)), (113, (0, 6))])
def test_a_query_may_stick_out_at_either_end(
    start: int, place: tuple[int, int], tracks: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    around = [on_grid(recording(12, 81)), tracks[2], on_grid(recording(12, 82))]
    query = np.concatenate(around)[12 + start : 24 + start]
    match = best(query, shards)
    assert (match.ordinal, match.first, match.last) == (2, *place)
    assert match.start == pytest.approx(start, abs=0.1)
    assert match.score == pytest.approx(1.0, abs=0.01)


def test_a_withdrawn_track_is_never_returned(
    fine: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    [shard] = shards
    counts = np.where(shard.ordinals_T == 3, 0, shard.counts_T)
    without = Shard(shard.index, shard.vectors_ND, shard.ordinals_T, shard.first_rows_T, counts)
    query = clip(fine[3], 40, 15)
    assert best(query, shards).ordinal == 3
    [matches] = find_matches([query], [without], top_k=100)
    assert matches
    assert 3 not in {match.ordinal for match in matches}
    assert matches[0].score < 0.6


def test_silence_and_nothing_have_no_answer(shards: list[Shard]) -> None:
    silent, empty = np.zeros((10, 128), np.float32), np.zeros((0, 128), np.float32)
    assert find_matches([silent, empty], shards) == [[], []]
    assert find_matches([], shards) == []


def test_a_query_whose_beginning_is_drowned_is_found_by_the_rest(
    fine: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    query = clip(fine[500], 25, 15)
    query[:10] = unit(np.random.default_rng(0).standard_normal((10, 128)))
    match = best(query, shards)
    assert match.ordinal == 500
    assert match.start == pytest.approx(25, abs=0.3)
    assert (match.first, match.last) == (0, 14)


def test_silence_within_a_query_only_lowers_its_score(
    fine: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    query = clip(fine[1], 60, 12)
    query[3:6] = 0.0
    match = best(query, shards)
    assert match.ordinal == 1
    assert match.start == pytest.approx(60, abs=0.1)
    assert match.score == pytest.approx(9 / 12, abs=0.01)


def test_neighbouring_queries_do_not_mix(fine: dict[int, np.ndarray], shards: list[Shard]) -> None:
    queries = [clip(fine[0], 5, 3), np.zeros((4, 128), np.float32), clip(fine[500], 80, 9)]
    together = find_matches(queries, shards, top_k=3)
    assert together == [find_matches([query], shards, top_k=3)[0] for query in queries]


def test_the_number_of_shards_does_not_change_the_best_answer(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    queries = [
        clip(fine[o], start, 12, noise=1.0) for o in ORDINALS for start in (0.0, 50.4, 100.0)
    ]
    answers = [find_matches(queries, shards_of(tracks, count)) for count in (1, 2, 5)]
    for matches in zip(*answers, strict=True):
        [first], *others = matches
        for [other] in others:
            assert (other.ordinal, other.first, other.last) == (
                first.ordinal,
                first.first,
                first.last,
            )
            assert other.start == pytest.approx(first.start, abs=1e-4)
            assert other.score == pytest.approx(first.score, abs=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_the_best_tracks_come_once_each_in_order(
    count: int, fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    """A piece of one track occurs again in others, clearly or faintly."""
    source = clip(fine[0], 30, 20)
    copies = {
        60: np.concatenate([tracks[1][:30], unit(source + 0.6 * tracks[1][30:50]), tracks[1][50:]]),
        61: np.concatenate([tracks[2][:50], unit(source + 1.0 * tracks[2][50:70]), tracks[2][70:]]),
    }
    catalogue = shards_of({0: tracks[0], **copies, 3: tracks[3], 7: tracks[7]}, count)
    [matches] = find_matches([source], catalogue, top_k=4)
    assert [match.ordinal for match in matches[:3]] == [0, 60, 61]
    assert [round(match.start) for match in matches[:3]] == [30, 30, 50]
    scores = [match.rank_score for match in matches]
    assert scores == sorted(scores, reverse=True)
    assert len({match.ordinal for match in matches}) == len(matches)
    for wanted in (1, 2):
        assert find_matches([source], catalogue, top_k=wanted)[0] == matches[:wanted]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_equal_tracks_come_in_the_order_of_the_catalogue(
    count: int, fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    copies = dict.fromkeys((8, 3, 900), tracks[7])
    catalogue = shards_of({0: tracks[0], 1: tracks[1], **copies}, count)
    query = clip(fine[7], 44, 10, noise=0.5)
    [matches] = find_matches([query], catalogue, top_k=3)
    assert [match.ordinal for match in matches] == [3, 8, 900]
    assert len({match.rank_score for match in matches}) == 1
    assert find_matches([query], catalogue[::-1], top_k=3) == [matches]


def test_aligning_with_one_recording_agrees_with_searching_for_it(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray], shards: list[Shard]
) -> None:
    for start in (0, 20.4, 105):
        query = clip(fine[7], start, 15, noise=0.5)
        found, aligned = best(query, shards), align(query, tracks[7].astype(np.float16))
        assert aligned is not None
        assert found.ordinal == 7
        assert aligned.start == pytest.approx(found.start, abs=1e-3)
        assert aligned.score == pytest.approx(found.score, abs=1e-5)
    assert align(tracks[7], tracks[7][30:40]).start == pytest.approx(-30, abs=0.1)
    nothing = np.zeros((0, 128), np.float32)
    assert align(nothing, tracks[7]) is None
    assert align(tracks[7], nothing) is None
