"""Sequence matching on synthetic catalogs whose truth is known."""

import tracemalloc
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from vectors import clip, index_of, on_grid, recording, shards_of, unit

from grafp.index import alignment
from grafp.index.scoring import Match
from grafp.index.search import DecodedVectors, IndexSearch

# At the speed as cataloged: other speeds have tests of their own, below.
find_matches = partial(alignment.find_matches, change=0.0)
align = partial(alignment.align, change=0.0)
ORDINALS = (0, 1, 2, 3, 7, 40, 41, 500, 1_000_000)


def best(query: np.ndarray, shards: IndexSearch) -> Match:
    [[match]] = find_matches([query], shards, tried=1)
    return match


@pytest.fixture(scope="module")
def fine() -> dict[int, np.ndarray]:
    return {ordinal: recording(120, ordinal) for ordinal in ORDINALS}


@pytest.fixture(scope="module")
def tracks(fine: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    return {ordinal: on_grid(vectors) for ordinal, vectors in fine.items()}


@pytest.fixture(scope="module")
def shards(tracks: dict[int, np.ndarray]) -> IndexSearch:
    return shards_of(tracks)


@pytest.mark.parametrize("noise", [0.0, 1.0, 2.0])
def test_noisy_clips_are_found_in_their_track_at_their_place(
    noise: float, fine: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    places = [(ordinal, start) for ordinal in ORDINALS for start in (0, 13, 57, 105)]
    queries = [clip(fine[ordinal], start, 15, noise) for ordinal, start in places]
    answers = find_matches(queries, shards, tried=1)
    assert len(answers) == len(queries)
    for (ordinal, start), [match] in zip(places, answers, strict=True):
        assert match.ordinal == ordinal
        assert match.start == pytest.approx(start, abs=0.1 + 0.1 * noise)
        assert (match.first, match.last) == (0, 14)
        assert match.score == pytest.approx((1 + noise**2) ** -0.5, abs=0.1)
        assert match.rank_score == pytest.approx(match.score)


@pytest.mark.parametrize("start", [20.1, 20.3, 20.5, 20.7, 20.9])
def test_a_start_between_two_fingerprints_is_interpolated(
    start: float, fine: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    for ordinal in ORDINALS:
        match = best(clip(fine[ordinal], start, 10), shards)
        assert match.ordinal == ordinal
        assert match.start == pytest.approx(start, abs=0.1)


def test_one_fingerprint_is_enough_to_be_found(
    fine: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    for start in (0, 50, 119):
        match = best(clip(fine[40], start, 1), shards)
        assert match.ordinal == 40
        assert match.start == pytest.approx(start, abs=0.1)
        assert (match.first, match.last) == (0, 0)


def test_the_score_is_equation_8(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    query = clip(fine[7], 33, 12, noise=0.7)
    match = best(query, shards)
    reference = tracks[7].astype(np.float16).astype(np.float64)
    products = [float(query[i] @ reference[33 + i]) for i in range(12)]
    assert match.score == pytest.approx(sum(products) / 12, abs=1e-4)
    assert match.rank_score == pytest.approx(sum(products) / 12, abs=1e-4)


def test_no_answer_reaches_from_one_track_into_the_next(
    tracks: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    """Tracks 40 and 41 follow each other in the shard, and so do their fingerprints."""
    for of_first in (4, 5, 6):
        query = np.concatenate([tracks[40][-of_first:], tracks[41][: 10 - of_first]])
        [matches] = find_matches([query], shards, tried=3)
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
    start: int, place: tuple[int, int], tracks: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    around = [on_grid(recording(12, 81)), tracks[2], on_grid(recording(12, 82))]
    query = np.concatenate(around)[12 + start : 24 + start]
    match = best(query, shards)
    assert (match.ordinal, match.first, match.last) == (2, *place)
    assert match.start == pytest.approx(start, abs=0.1)
    assert match.score == pytest.approx(1.0, abs=0.01)


def test_a_removed_track_is_never_returned(
    fine: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    without = replace(shards, gone_T=np.array([3]))
    for start in (0, 40, 105):
        query = clip(fine[3], start, 15)
        assert best(query, shards).ordinal == 3
        [matches] = find_matches([query], without, tried=100)
        assert matches
        assert 3 not in {match.ordinal for match in matches}
        assert matches[0].score < 0.6


def test_silence_and_nothing_have_no_answer(shards: IndexSearch) -> None:
    silent, empty = np.zeros((10, 128), np.float32), np.zeros((0, 128), np.float32)
    assert find_matches([silent, empty], shards) == [[], []]
    assert find_matches([], shards) == []


def test_a_query_whose_beginning_is_drowned_is_found_by_the_rest(
    fine: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    query = clip(fine[500], 25, 15)
    query[:10] = unit(np.random.default_rng(0).standard_normal((10, 128)))
    match = best(query, shards)
    assert match.ordinal == 500
    assert match.start == pytest.approx(25, abs=0.3)
    assert (match.first, match.last) == (0, 14)


def test_silence_within_a_query_only_lowers_its_score(
    fine: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    query = clip(fine[1], 60, 12)
    query[3:6] = 0.0
    match = best(query, shards)
    assert match.ordinal == 1
    assert match.start == pytest.approx(60, abs=0.1)
    assert match.score == pytest.approx(9 / 12, abs=0.01)


def test_neighboring_queries_do_not_mix(fine: dict[int, np.ndarray], shards: IndexSearch) -> None:
    queries = [clip(fine[0], 5, 3), np.zeros((4, 128), np.float32), clip(fine[500], 80, 9)]
    together = find_matches(queries, shards, tried=3)
    assert together == [find_matches([query], shards, tried=3)[0] for query in queries]


def test_the_number_of_shards_does_not_change_the_answers(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    queries = [
        clip(fine[o], start, 12, noise=1.0) for o in ORDINALS for start in (0.0, 50.4, 100.0)
    ]
    answers = [find_matches(queries, shards_of(tracks, n), tried=3) for n in (1, 3, 8)]
    assert answers[0] == answers[1] == answers[2]
    assert all(len(matches) == 3 for matches in answers[0])


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_catalog_with_a_longer_hop_answers_finer_queries(
    noise: float, fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    sparse = shards_of({ordinal: vectors[::5] for ordinal, vectors in tracks.items()}, 2, stride=5)
    for ordinal in ORDINALS:
        for start in (0, 23, 57.4, 101):
            match = best(clip(fine[ordinal], start, 15, noise), sparse)
            assert match.ordinal == ordinal
            assert match.start == pytest.approx(start, abs=0.3 + 0.4 * noise)
            assert (match.first, match.last) == (0, 14)
            assert match.score == pytest.approx((1 + noise**2) ** -0.5, abs=0.25)


def test_a_catalog_with_a_longer_hop_knows_its_tracks_ends(tracks: dict[int, np.ndarray]) -> None:
    sparse = shards_of({ordinal: vectors[::5] for ordinal, vectors in tracks.items()}, stride=5)
    other = on_grid(recording(12, 81))
    match = best(np.concatenate([other[:6], tracks[2][:20]]), sparse)
    assert (match.ordinal, match.start, match.first, match.last) == (2, -6, 6, 25)
    match = best(np.concatenate([tracks[2][100:], other]), sparse)
    assert (match.ordinal, match.start, match.first, match.last) == (2, 100, 0, 15)


@pytest.mark.parametrize("codec", ["PQ64x4fs", "SQfp16"])
def test_codes_alone_answer_nearly_as_well(
    codec: str, fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    many = {**tracks, **{100 + n: on_grid(recording(1_000, 200 + n)) for n in range(10)}}
    many[3] = np.concatenate([np.zeros((7, 128), np.float32), many[3][7:]])
    exact = shards_of(many, 3, codec=codec)
    trained, codes = index_of(many, codec)
    coded = replace(
        exact,
        tracks=[
            replace(
                t,
                vectors_ND=DecodedVectors(
                    trained, codes.of(t.ordinals_T), t.ordinals_T, t.first_rows_T
                ),
            )
            for t in exact.tracks
        ],
    )
    for whole, decoded in zip(exact.tracks, coded.tracks, strict=True):
        rows = np.arange(whole.counts_T.sum())
        exact_ND = whole.vectors_ND[rows]
        silent = ~exact_ND.any(axis=1)
        assert not decoded.vectors_ND[rows[silent]].any()
        alike = np.einsum("nd,nd->n", decoded.vectors_ND[rows], exact_ND)
        assert alike[~silent].mean() > 0.8
        lengths = np.linalg.norm(decoded.vectors_ND[rows[~silent]], axis=1)
        assert lengths == pytest.approx(1, abs=1e-3)
    queries = [clip(fine[ordinal], 40, 15, noise=0.5) for ordinal in ORDINALS]
    for [a], [b] in zip(
        find_matches(queries, exact, tried=1), find_matches(queries, coded, tried=1), strict=True
    ):
        assert (a.ordinal, a.first, a.last) == (b.ordinal, b.first, b.last)
        assert b.start == pytest.approx(a.start, abs=0.3)


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
    catalog = shards_of({0: tracks[0], **copies, 3: tracks[3], 7: tracks[7]}, count)
    [matches] = find_matches([source], catalog, tried=4)
    assert [match.ordinal for match in matches[:3]] == [0, 60, 61]
    assert [round(match.start) for match in matches[:3]] == [30, 30, 50]
    scores = [match.rank_score for match in matches]
    assert scores == sorted(scores, reverse=True)
    assert len({match.ordinal for match in matches}) == len(matches)
    for wanted in (1, 2):
        assert find_matches([source], catalog, tried=wanted)[0] == matches[:wanted]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_equal_tracks_come_in_the_order_of_the_catalog(
    count: int, fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    copies = dict.fromkeys((8, 3, 900), tracks[7])
    catalog = shards_of({0: tracks[0], 1: tracks[1], **copies}, count)
    query = clip(fine[7], 44, 10, noise=0.5)
    [matches] = find_matches([query], catalog, tried=3)
    assert [match.ordinal for match in matches] == [3, 8, 900]
    assert len({match.rank_score for match in matches}) == 1
    backwards = replace(catalog, lists=catalog.lists[::-1], tracks=catalog.tracks[::-1])
    assert find_matches([query], backwards, tried=3) == [matches]


def test_aligning_with_one_recording_agrees_with_searching_for_it(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray], shards: IndexSearch
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


def test_the_offset_correction_moves_starts_and_nothing_else(
    fine: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    query = clip(fine[7], 20.3, 15)
    corrected = replace(shards, offset_correction=-0.25)
    before, after = best(query, shards), best(query, corrected)
    assert after == replace(before, start=before.start + 0.25)
    reference = on_grid(fine[7])
    alone, moved = align(query, reference), align(query, reference, -0.25)
    assert alone is not None
    assert moved == replace(alone, start=alone.start + 0.25)


def test_a_batch_asks_the_catalog_twice(
    fine: dict[int, np.ndarray], shards: IndexSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("nearest", "products", "matches"):
        method = getattr(IndexSearch, name)

        def spy(*given: Any, name: str = name, method: Any = method) -> Any:
            asked.append(name)
            return method(*given)

        monkeypatch.setattr(IndexSearch, name, spy)
    queries = [clip(fine[ordinal], 20, 15) for ordinal in (1, 2, 7)]
    assert [match.ordinal for [match] in find_matches(queries, shards, tried=1)] == [1, 2, 7]
    assert asked == ["nearest", "matches"]


def played(track: np.ndarray, start: float, count: int, speed: float, noise: float) -> np.ndarray:
    """A clip whose fingerprint n lies at start + speed * n of the track."""
    at = np.rint((start + speed * np.arange(count)) * 10).astype(int)
    added = np.random.default_rng(count).standard_normal((count, 128))
    return unit(track[at] + noise * unit(added)).astype(np.float32)


@pytest.fixture(scope="module")
def long() -> dict[int, np.ndarray]:
    return {ordinal: recording(900, 300 + ordinal) for ordinal in (0, 1, 2)}


@pytest.mark.parametrize(
    ("count", "speed"),
    [
        (41, 0.95),
        (41, 1.04),
        *((count, s) for count in (91, 400) for s in (0.95, 0.98, 1.02, 1.04)),
    ],
)
def test_a_clip_at_another_speed_is_found_with_its_speed(
    speed: float, count: int, long: dict[int, np.ndarray]
) -> None:
    shards = shards_of({ordinal: on_grid(vectors) for ordinal, vectors in long.items()})
    for start in (30.0, 250.4):
        query = played(long[1], start, count, speed, noise=0.8)
        [[match]] = alignment.find_matches([query], shards, tried=1, change=0.05)
        assert match.ordinal == 1
        assert match.speed == pytest.approx(speed, abs={41: 0.012, 91: 0.004, 400: 0.002}[count])
        assert match.start == pytest.approx(start, abs=0.5)
        [[fixed]] = alignment.find_matches([query], shards, tried=1, change=0.0)
        assert fixed.speed == 1.0
        assert fixed.rank_score < match.rank_score


def test_a_clip_at_its_own_speed_is_said_to_be(long: dict[int, np.ndarray]) -> None:
    shards = shards_of({ordinal: on_grid(vectors) for ordinal, vectors in long.items()})
    for count in (1, 11, 41, 91):
        query = played(long[2], 100.0, count, 1.0, noise=0.8)
        [[match]] = alignment.find_matches([query], shards, tried=1, change=0.05)
        assert (match.ordinal, match.speed) == (2, 1.0)
        assert match.start == pytest.approx(100, abs=0.3)


def test_a_catalog_with_a_longer_hop_knows_other_speeds(long: dict[int, np.ndarray]) -> None:
    sparse = {ordinal: on_grid(vectors)[::5] for ordinal, vectors in long.items()}
    query = played(long[0], 200.0, 91, 1.03, noise=0.5)
    [[match]] = alignment.find_matches([query], shards_of(sparse, stride=5), tried=1, change=0.05)
    assert match.ordinal == 0
    assert match.speed == pytest.approx(1.03, abs=0.01)
    assert match.start == pytest.approx(200, abs=1.0)


def test_the_number_of_shards_changes_no_answer_at_other_speeds(
    long: dict[int, np.ndarray],
) -> None:
    tracks = {ordinal: on_grid(vectors) for ordinal, vectors in long.items()}
    queries = [played(long[o], 60.0, 61, 0.97, noise=1.0) for o in (0, 1, 2)]
    answers = [alignment.find_matches(queries, shards_of(tracks, n)) for n in (1, 2, 3)]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("start", [20.5, 63.5])
def test_between_two_fingerprints_lies_their_mean(
    start: float, fine: dict[int, np.ndarray], shards: IndexSearch
) -> None:
    """The clip agrees better with the mean of two neighbors than with either."""
    query = clip(fine[7], start, 15)
    match = best(query, shards)
    reference = on_grid(fine[7])
    nearest = max(
        float(np.einsum("md,md->m", query, reference[first : first + 15]).mean())
        for first in (int(start), int(start) + 1)
    )
    assert match.score > nearest


def test_a_query_of_minutes_needs_little_memory(long: dict[int, np.ndarray]) -> None:
    """An hour would need 65 GB if all of it were compared with all of the track."""
    track = on_grid(recording(12_000, 900))
    shards = shards_of({**{o: on_grid(v) for o, v in long.items()}, 9: track})
    query = unit(track[2_000:8_000] + unit(np.random.default_rng(0).standard_normal((6_000, 128))))
    tracemalloc.start()
    [[match]] = alignment.find_matches([query.astype(np.float32)], shards, tried=1, change=0.05)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (match.ordinal, round(match.start), match.speed) == (9, 2_000, 1.0)
    assert peak < 400e6
