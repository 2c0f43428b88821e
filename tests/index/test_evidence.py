"""What an answer is worth, on synthetic catalogs: other music, copies of the same, a background."""

import numpy as np
import pytest
from vectors import clip, on_grid, recording, shards_of, unit

from grafp.index.alignment import Effort, find_matches
from grafp.index.background import BackgroundSearch, steadiness
from grafp.index.evidence import NOTHING, PART, Answer, Beside, identify, reached
from grafp.index.scoring import TRIED
from grafp.index.search import IndexSearch
from grafp.model.background import Background

TRACKS = 25
ASKED = 3
"""The track that queries are cut from."""


@pytest.fixture(scope="module")
def fine() -> dict[int, np.ndarray]:
    return {ordinal: recording(150, ordinal) for ordinal in range(TRACKS)}


@pytest.fixture(scope="module")
def tracks(fine: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    return {ordinal: on_grid(vectors) for ordinal, vectors in fine.items()}


@pytest.fixture(scope="module")
def catalog(tracks: dict[int, np.ndarray]) -> IndexSearch:
    return shards_of(tracks)


@pytest.fixture(scope="module")
def query(fine: dict[int, np.ndarray]) -> np.ndarray:
    return clip(fine[ASKED], 40.3, 31, noise=1.2)


def asked(query: np.ndarray, catalog: IndexSearch, beside: float = 0.0, **how) -> list[Answer]:
    [answers] = identify([query], catalog, [Beside(beside)], change=0.0, **how)
    return answers


def encodings(track_ND: np.ndarray, count: int) -> dict[int, np.ndarray]:
    """The same recording again, a little different each time, most after a lead-in of its own."""
    made = {}
    for number in range(count):
        random = np.random.default_rng(number)
        lead = on_grid(recording(1 + 3 * number % 40, 5_000 + number))[: 3 * number % 40]
        added = 0.25 * unit(random.standard_normal(track_ND.shape))
        made[1_000 + number] = np.concatenate([lead, unit(track_ND + added)])
    return made


def test_evidence_is_the_score_less_a_part_of_the_best_other(
    query: np.ndarray, catalog: IndexSearch
) -> None:
    [first, second, *_] = find_matches([query], catalog, change=0.0)[0]
    answer, other = asked(query, catalog, top_k=2)
    assert (answer.match, other.match) == (first, second)
    assert (answer.match.ordinal, answer.piece, other.piece) == (ASKED, 0, 1)
    assert answer.reached == first.rank_score
    assert answer.elsewhere == second.rank_score > 0
    assert answer.evidence == pytest.approx(first.rank_score - PART * second.rank_score)
    assert answer.match.score - answer.beside == pytest.approx(answer.evidence)
    assert other.elsewhere < second.rank_score  # the best answer is none of its rivals


def test_a_stranger_has_no_evidence(query: np.ndarray, catalog: IndexSearch) -> None:
    strangers = [clip(recording(60, 700 + n), 5, 31) for n in range(8)]
    found = identify(strangers, catalog, [NOTHING] * len(strangers), change=0.0)
    best = max(answers[0].evidence for answers in found)
    assert best < 0.15 < 0.4 < asked(query, catalog)[0].evidence


@pytest.mark.parametrize("count", [2, 5, 50])
def test_copies_of_a_recording_share_its_evidence(
    count: int, query: np.ndarray, tracks: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    [alone] = asked(query, catalog)
    copies = encodings(tracks[ASKED], count)
    crowded = shards_of({o: v for o, v in tracks.items() if o != ASKED} | copies, 3)
    answers = asked(query, crowded, top_k=2)
    same = [answer for answer in answers if answer.piece == 0]
    assert {answer.match.ordinal for answer in same} == set(copies)
    for answer in same:
        lead = 3 * (answer.match.ordinal - 1_000) % 40
        assert answer.match.start == pytest.approx(lead + 40.3, abs=0.5)
    assert len({answer.evidence for answer in same}) == 1
    assert same[0].evidence == pytest.approx(alone.evidence, abs=0.03)
    [other] = answers[count:]
    assert other.piece == 1
    assert other.match.ordinal in set(tracks) - {ASKED}
    assert [a.match for a in asked(query, crowded)] == [a.match for a in same]
    assert (len(same) > TRIED) == (count == 50)


def test_the_next_pieces_may_have_copies_too(tracks: dict[int, np.ndarray]) -> None:
    """Two tracks share a chord with the query, one of them twice in the catalog."""
    source = tracks[0][20:50]
    like = {
        40: np.concatenate([tracks[1][:30], unit(source + 1.3 * tracks[1][30:60])]),
        41: np.concatenate([tracks[2][:10], unit(source + 1.6 * tracks[2][10:40])]),
    }
    like[42] = like[40] + np.float32(1e-4)
    catalog = shards_of({**tracks, **like})
    answers = asked(source, catalog, top_k=3)
    assert [(a.match.ordinal, a.piece) for a in answers] == [(0, 0), (40, 1), (42, 1), (41, 2)]
    assert answers[0].elsewhere == max(answers[1].reached, answers[2].reached)
    assert answers[1].elsewhere == answers[2].elsewhere == answers[3].match.rank_score
    assert answers[1].evidence == answers[2].evidence


def test_a_query_that_many_tracks_resemble_is_no_evidence(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    """A chord that all have: the same score is worth less than where one track has it."""
    chord = on_grid(recording(31, 900))
    alike = {
        ordinal: np.concatenate([vectors[:50], unit(vectors[50:81] + chord), vectors[81:]])
        for ordinal, vectors in tracks.items()
    }
    [common] = asked(chord, shards_of(alike))
    [rare] = asked(clip(fine[ASKED], 40.0, 31, noise=1.0), catalog)
    assert common.match.score == pytest.approx(rare.match.score, abs=0.15)
    assert common.evidence < rare.evidence - 0.25


def test_without_other_tracks_the_background_counts(
    query: np.ndarray, tracks: dict[int, np.ndarray]
) -> None:
    only = shards_of({ASKED: tracks[ASKED]})
    [alone], [beside] = asked(query, only), asked(query, only, beside=0.3)
    assert alone.evidence == alone.reached == alone.match.rank_score
    assert beside.elsewhere == 0.3
    assert beside.evidence == pytest.approx(alone.evidence - 0.3 * PART)
    crowded = shards_of({ASKED: tracks[ASKED]} | encodings(tracks[ASKED], 4))
    for answer in asked(query, crowded, beside=0.3):
        assert (answer.piece, answer.elsewhere) == (0, 0.3)


def test_the_larger_of_background_and_catalog_counts(
    query: np.ndarray, catalog: IndexSearch
) -> None:
    [plain], [little], [much] = (asked(query, catalog, beside=b) for b in (0.0, 0.01, 0.5))
    assert little == plain
    assert much.elsewhere == 0.5 > plain.elsewhere


@pytest.mark.parametrize("top_k", [1, 3, 8])
def test_top_k_counts_pieces(top_k: int, query: np.ndarray, tracks: dict[int, np.ndarray]) -> None:
    catalog = shards_of(tracks | encodings(tracks[ASKED], 3))
    answers = asked(query, catalog, top_k=top_k)
    pieces = [answer.piece for answer in answers]
    assert pieces == sorted(pieces)
    assert set(pieces) == set(range(top_k))
    assert pieces.count(0) == 4
    first = asked(query, catalog)
    assert [a.match.ordinal for a in answers[:4]] == [a.match.ordinal for a in first]


def test_copies_take_no_other_pieces_place(
    query: np.ndarray, tracks: dict[int, np.ndarray]
) -> None:
    """Of two pieces that the query has something of, each is in the catalog eight times."""
    mixed = unit(query + 0.5 * tracks[7][60:91])
    again = {100 + o: v for o, v in encodings(tracks[7], 7).items()}
    catalog = shards_of(tracks | encodings(tracks[ASKED], 7) | again)
    answers = asked(mixed, catalog, top_k=3)
    assert [answer.piece for answer in answers] == [0] * 8 + [1] * 8 + [2]
    assert {answer.match.ordinal for answer in answers[8:16]} == {7, *again}


def test_a_query_that_sticks_out_of_its_track_has_less_evidence(
    tracks: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    within, outside = tracks[5][100:130], on_grid(recording(10, 800))
    [whole] = asked(within, catalog)
    [part] = asked(np.concatenate([tracks[5][130:], outside]), catalog)
    assert part.match.ordinal == 5
    assert part.match.score == pytest.approx(whole.match.score, abs=0.01)
    assert part.evidence == pytest.approx(2 / 3 - PART * part.elsewhere, abs=0.05)


def test_the_number_of_shards_changes_nothing(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    everything = tracks | encodings(tracks[ASKED], 14)
    queries = [clip(fine[o], 20.4, 31, noise=1.0) for o in (0, ASKED, 7)]
    queries += [clip(recording(60, 701), 5, 31), np.zeros((31, 128), np.float32)]
    beside = [Beside(score) for score in (0.0, 0.2, 0.0, 0.1, 0.0)]
    one, three, eight = (
        identify(queries, shards_of(everything, n), beside, top_k=2, change=0.05) for n in (1, 3, 8)
    )
    assert one == three == eight
    assert [len(answers) for answers in one] == [2, 16, 2, 2, 0]


@pytest.fixture(scope="module")
def background(fine: dict[int, np.ndarray]) -> Background:
    """A track of 60 fingerprints that is in no catalog, and sounds of 40 and 20."""
    parts = [on_grid(recording(count, 600 + count)) for count in (60, 40, 20)]
    counts_T = np.array([len(part) for part in parts], np.int32)
    return Background(
        np.zeros((1, 91, 128), np.float16),
        np.zeros(1, np.int32),
        np.concatenate(parts).astype(np.float16),
        counts_T,
        np.zeros(18, np.float32),
        np.zeros((5, 2), np.float32),
    )


def test_what_is_reached_in_the_background(background: Background, query: np.ndarray) -> None:
    search = BackgroundSearch.of(background, 0.1)
    own = [clip(recording(count, 600 + count), 5, 12, noise=0.5) for count in (60, 40, 20)]
    silence = np.zeros((12, 128), np.float32)
    scores = [one.score for one in reached([*own, query, silence], search)]
    assert scores[:3] == pytest.approx([1.25**-0.5] * 3, abs=0.06)
    assert 0 < scores[3] < 0.4
    assert scores[4] == 0.0
    assert reached([query], None) == [NOTHING]
    for number, mine in enumerate(own):
        others = BackgroundSearch.of(background, 0.1, without=number)
        assert len(others.vectors_ND) == 120 - (60, 40, 20)[number]
        assert reached([mine], others)[0].score < 0.5


def test_a_quick_look_at_the_background_finds_what_is_near(background: Background) -> None:
    """Of noise it may find less than the whole look, never more."""
    search = BackgroundSearch.of(background, 0.1)
    own = [clip(recording(count, 600 + count), 5, 12, noise=0.5) for count in (60, 40, 20)]
    noise = unit(np.random.default_rng(0).standard_normal((12, 128))).astype(np.float32)
    quick, whole = (
        [one.score for one in reached([*own, noise], search, effort=Effort(6, lists))]
        for lists in (2, 1_000)
    )
    assert quick[:3] == pytest.approx(whole[:3], abs=1e-6)
    assert 0 < quick[3] <= whole[3] + 1e-6


def test_a_background_has_the_hop_of_the_query(background: Background) -> None:
    search = BackgroundSearch.of(background, 0.05)
    fine_ND = recording(60, 660)
    query = fine_ND[50:350:5].astype(np.float32)  # twice as many in the same time
    assert reached([query], search)[0].score > 0.95
    assert search.tracks.counts_T.tolist() == [119, 79, 39]


def test_sounds_of_the_background_speak_against_tracks_with_the_same_sound(
    background: Background, tracks: dict[int, np.ndarray]
) -> None:
    """Hum is in many recordings, so it is no music of its own."""
    query = clip(recording(40, 640), 5, 12, noise=0.8)
    catalog = shards_of(tracks | {900: on_grid(recording(40, 640))})
    beside = reached([query], BackgroundSearch.of(background, 0.1), change=0.0)
    [[answer]] = identify([query], catalog, beside, change=0.0)
    assert answer.match.ordinal == 900
    assert answer.elsewhere == beside[0].score > 0.7


def test_music_of_the_background_does_not_speak_against_itself(
    background: Background, tracks: dict[int, np.ndarray]
) -> None:
    """A catalog may hold a track that the background is made of."""
    query = clip(recording(60, 660), 5, 31, noise=0.8)
    search = BackgroundSearch.of(background, 0.1)
    catalog = shards_of(tracks | {900: on_grid(recording(60, 660))})
    beside = reached([query], search, change=0.0)
    assert beside[0].score > 0.7
    [[answer]] = identify([query], catalog, beside, change=0.0)
    assert answer.match.ordinal == 900
    assert answer.elsewhere < 0.4
    [[without]] = identify([query], catalog, [Beside(beside[0].score)], change=0.0)
    assert without.evidence < answer.evidence - 0.2


def test_steadiness_is_the_mean_of_fingerprints_that_are_apart() -> None:
    query_MD = clip(recording(30, 7), 0, 30, noise=0.3)
    pairs = [query_MD[i] @ query_MD[j] for i in range(30) for j in range(i + 10, 30)]
    assert len(pairs) == 20 * 21 / 2
    assert steadiness(query_MD, 10) == pytest.approx(np.mean(pairs), abs=1e-5)
    both = steadiness(np.stack([query_MD, np.ones_like(query_MD) / 128**0.5]), 10)
    assert both == pytest.approx([np.mean(pairs), 1.0], abs=1e-5)


def test_what_is_steadier_than_music_has_less_evidence(
    background: Background, query: np.ndarray, tracks: dict[int, np.ndarray]
) -> None:
    search = BackgroundSearch.of(background, 0.1)
    note_D = recording(1, 4_000)[0]
    noise_MD = 0.5 * unit(np.random.default_rng(0).standard_normal((31, 128)))
    note_MD = unit(note_D + noise_MD).astype(np.float32)
    hum, music, short = reached([note_MD, query, note_MD[:10]], search, change=0.0)
    assert 0.5 < hum.too_steady < 0.8
    assert (music.too_steady, short.too_steady) == (0.0, 0.0)
    catalog = shards_of(tracks | {900: on_grid(unit(np.tile(note_D, (400, 1))))})
    [[answer]] = identify([note_MD], catalog, [hum], change=0.0)
    [[without]] = identify([note_MD], catalog, [Beside(hum.score)], change=0.0)
    assert answer.match.ordinal == 900
    assert answer.evidence == pytest.approx(without.evidence - hum.too_steady)
    assert answer.match.score - answer.beside == pytest.approx(answer.evidence)
