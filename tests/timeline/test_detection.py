"""Detections in long recordings, on synthetic fingerprints whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from vectors import clip, on_grid, recording, shards_of, unit

from grafp.index.evidence import Answer
from grafp.index.search import IndexSearch
from grafp.timeline.detection import Detection, find_detections
from grafp.timeline.sequence import timeline

HOP = 0.1
SECOND = 10  # hops


def threshold(seconds: float) -> float:
    return float(np.interp(seconds, [1.0, 5.0], [0.85, 0.7]))


def points(answer: Answer) -> bool:
    return answer.match.score >= threshold(5.0)


def accepts(detection: Detection) -> bool:
    return detection.score >= threshold(detection.heard_s)


@pytest.fixture(scope="module")
def fine() -> dict[int, np.ndarray]:
    """Tracks of 60 s."""
    return {ordinal: recording(600, ordinal) for ordinal in (0, 1, 2, 7)}


@pytest.fixture(scope="module")
def tracks(fine: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    return {ordinal: on_grid(vectors) for ordinal, vectors in fine.items()}


@pytest.fixture(scope="module")
def catalog(tracks: dict[int, np.ndarray]) -> IndexSearch:
    return shards_of(tracks, 2)


def stranger(seconds: float, seed: int) -> np.ndarray:
    """Sound that no track has."""
    return on_grid(recording(round(seconds * SECOND), 1_000 + seed))


def cut(track: np.ndarray, start_s: float, end_s: float, noise: float = 0.6) -> np.ndarray:
    return clip(track, start_s * SECOND, round((end_s - start_s) * SECOND), noise)


def found(programme_MD: np.ndarray, catalog: IndexSearch) -> list[Detection]:
    detections = timeline(find_detections(programme_MD, catalog, None, HOP, points), accepts)
    for detection in detections:
        assert detection.score >= threshold(detection.heard_s)
    return detections


def check(
    detection: Detection, ordinal: int, start_s: float, end_s: float, track_start_s: float
) -> None:
    """Times to 0.3 s; `start_s` and `end_s` are of fingerprints that are all music."""
    assert detection.ordinal == ordinal
    assert detection.track_start_s - detection.start_s == pytest.approx(
        track_start_s - start_s, abs=0.1
    )
    assert detection.start_s == pytest.approx(start_s + 0.45, abs=0.3)
    assert detection.end_s == pytest.approx(end_s + 0.45, abs=0.3)


def test_plays_among_unknown_sound_have_their_times(
    fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    programme = np.concatenate(
        [
            stranger(12, 0),
            cut(fine[1], 20, 32),
            stranger(15, 1),
            cut(fine[7], 3, 40),
            stranger(9, 2),
        ]
    )
    first, second = found(programme, catalog)
    check(first, 1, 12, 24, 20)
    check(second, 7, 39, 76, 3)
    assert first.score == pytest.approx((1 + 0.6**2) ** -0.5, abs=0.05)


def test_a_track_that_is_played_again_is_another_play(
    fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    piece = cut(fine[2], 10, 25)
    programme = np.concatenate(
        [piece, stranger(6, 3), piece, cut(fine[2], 40, 55), stranger(6, 21)]
    )
    once, again, elsewhere = found(programme, catalog)
    assert (once.start_s, once.track_start_s) == (0.0, pytest.approx(10, abs=0.1))
    check(again, 2, 21, 36, 10)
    check(elsewhere, 2, 36, 51, 40)


@pytest.mark.parametrize(("gap", "count"), [(6, 1), (14, 2)])
def test_a_short_gap_is_bridged(
    gap: float, count: int, fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    """Somebody talks, and the music goes on where it would have been."""
    music = cut(fine[0], 5, 45)
    music[150 : 150 + round(gap * SECOND)] = stranger(gap, 4)
    detections = found(np.concatenate([stranger(10, 5), music, stranger(10, 6)]), catalog)
    assert len(detections) == count
    assert detections[0].start_s == pytest.approx(10.45, abs=0.3)
    assert detections[-1].end_s == pytest.approx(50.45, abs=0.3)
    assert sum(detection.heard_s for detection in detections) == pytest.approx(40 - gap, abs=1.0)
    assert all(
        detection.track_start_s - detection.start_s == pytest.approx(-5, abs=0.1)
        for detection in detections
    )


def test_a_gap_may_be_silent(fine: dict[int, np.ndarray], catalog: IndexSearch) -> None:
    silence = np.zeros((400, 128), np.float32)
    [detection] = found(np.concatenate([silence, cut(fine[0], 5, 20), silence]), catalog)
    check(detection, 0, 40, 55, 5)


@pytest.mark.parametrize("fade", [2, 4])
def test_a_cross_fade_is_cut_in_its_middle(
    fade: int, fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    one, other = cut(fine[1], 10, 30), cut(fine[2], 33, 53)
    share = np.linspace(0, 1, fade * SECOND)[:, None].astype(np.float32)
    both = unit((1 - share) * one[-len(share) :] + share * other[: len(share)])
    first, second = found(np.concatenate([one[: -len(share)], both, other[len(share) :]]), catalog)
    assert (first.ordinal, second.ordinal) == (1, 2)
    assert first.end_s <= second.start_s
    assert first.end_s == pytest.approx(20 - fade / 2 + 0.45, abs=0.5)
    assert second.start_s == pytest.approx(20 - fade / 2 + 0.45, abs=0.5)


def test_a_loop_gives_one_play(tracks: dict[int, np.ndarray]) -> None:
    """Eight seconds of beginning, then eight more five times, which fit five places."""
    beginning, loop = on_grid(recording(80, 50)), on_grid(recording(80, 51))
    looped = np.concatenate([beginning, *[loop] * 5])
    catalog = shards_of({**tracks, 50: looped})
    added = np.random.default_rng(0).standard_normal((440, 128))
    music = unit(looped[:440] + 0.6 * unit(added))
    [detection] = found(np.concatenate([stranger(8, 7), music, stranger(8, 8)]), catalog)
    assert (detection.ordinal, detection.start_s) == (50, 8.0)
    assert detection.end_s == pytest.approx(52.45, abs=0.3)
    assert detection.track_start_s == pytest.approx(0, abs=0.1)


def test_of_a_track_within_another_the_longer_play_stays(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    catalog = shards_of({**tracks, 60: np.concatenate([stranger(20, 9), tracks[1][200:320]])})
    [detection] = found(np.concatenate([stranger(5, 10), cut(fine[1], 10, 40)]), catalog)
    assert detection.ordinal == 1
    assert detection.start_s == pytest.approx(5.45, abs=0.3)
    assert detection.end_s == pytest.approx(35 + 0.9)


def test_unknown_sound_and_silence_have_no_plays(catalog: IndexSearch) -> None:
    assert found(stranger(120, 11), catalog) == []
    assert found(np.zeros((1_000, 128), np.float32), catalog) == []
    assert found(np.zeros((0, 128), np.float32), catalog) == []
    assert found(stranger(1, 12)[:1], catalog) == []


def test_a_whole_track_has_its_own_bounds(
    tracks: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    """What comes before and after is no part of it, even if it is alike by chance."""
    programme = np.concatenate([stranger(10, 13), tracks[7], stranger(10, 14)])
    [detection] = found(programme, catalog)
    assert detection.start_s == pytest.approx(10.0)
    assert detection.track_start_s == pytest.approx(0.0, abs=0.01)
    assert detection.end_s == pytest.approx(10 + 59.9 + 1.0)


def test_the_end_of_a_track_at_the_beginning_of_a_recording(
    fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    [detection] = found(np.concatenate([cut(fine[0], 54, 60), stranger(30, 15)]), catalog)
    assert (detection.ordinal, detection.start_s) == (0, 0.0)
    assert detection.end_s == pytest.approx(6.9)
    assert detection.track_start_s == pytest.approx(54, abs=0.1)


def test_a_sparser_catalog_finds_the_same_plays(
    fine: dict[int, np.ndarray], tracks: dict[int, np.ndarray]
) -> None:
    sparse = shards_of({ordinal: vectors[::5] for ordinal, vectors in tracks.items()}, stride=5)
    programme = np.concatenate([stranger(10, 16), cut(fine[1], 22, 50), stranger(10, 17)])
    [detection] = found(programme, sparse)
    assert detection.ordinal == 1
    assert detection.track_start_s - detection.start_s == pytest.approx(12, abs=0.1)
    assert detection.start_s == pytest.approx(10.45, abs=0.6)
    assert detection.end_s == pytest.approx(38.45, abs=0.6)


@pytest.mark.parametrize("seam", [200, 290, 345, 390, 470])
def test_a_seam_neither_loses_nor_doubles_a_play(
    seam: int, fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    """A seam before, at the beginning of, within, and after a detection, and within a short one."""
    programme = np.concatenate(
        [
            stranger(32, 18),
            cut(fine[1], 20, 28),
            stranger(4, 19),
            cut(fine[7], 3, 45),
            stranger(9, 20),
        ]
    )
    overlap = 20 * SECOND
    parts = find_detections(programme[:seam], catalog, None, HOP, points)
    parts += find_detections(
        programme[seam - overlap :], catalog, None, HOP, points, (seam - overlap) * HOP
    )
    whole, seamed = found(programme, catalog), timeline(parts, accepts)
    assert [detection.ordinal for detection in whole] == [1, 7]
    for one, other in zip(whole, seamed, strict=True):
        assert one.ordinal == other.ordinal
        assert other.start_s == pytest.approx(one.start_s, abs=0.2)
        assert other.end_s == pytest.approx(one.end_s, abs=0.2)
        assert other.track_at(0.0) == pytest.approx(one.track_at(0.0), abs=0.05)
        assert other.heard_s <= other.end_s - other.start_s


def detection(ordinal: int, start_s: float, end_s: float, score: float = 0.9) -> Detection:
    return Detection(ordinal, start_s, end_s, start_s + 100 * ordinal, score, end_s - start_s)


@pytest.mark.parametrize(
    ("detections", "spans"),
    [
        pytest.param([(1, 0, 40, 0.9), (2, 36, 80, 0.8)], [(1, 0, 38), (2, 38, 80)], id="fade"),
        pytest.param([(1, 0, 40, 0.9), (2, 5, 38, 0.95)], [(1, 0, 40)], id="heavier within"),
        pytest.param([(1, 0, 40, 0.9), (2, 5, 46, 0.8)], [(1, 0, 40)], id="nearly within"),
        pytest.param([(1, 0, 40, 0.9), (2, 25, 60, 0.8)], [(1, 0, 40), (2, 40, 60)], id="trimmed"),
        pytest.param([(1, 0, 60, 0.6), (2, 20, 50, 0.95)], [(2, 20, 50)], id="both sides"),
        pytest.param([(1, 0, 9, 0.6)], [], id="below the threshold"),
        pytest.param([(1, 0, 2.5, 0.99)], [], id="too short"),
    ],
)
def test_plays_that_overlap(detections: list, spans: list) -> None:
    for order in (1, -1):
        kept = timeline([detection(*one) for one in detections[::order]], accepts)
        assert [(p.ordinal, p.start_s, p.end_s) for p in kept] == spans
        assert all(p.track_start_s == p.start_s + 100 * p.ordinal for p in kept)


def test_the_offset_correction_moves_where_in_the_track(
    fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    programme = np.concatenate([stranger(9, 31), cut(fine[1], 20, 40), stranger(9, 32)])
    [before] = found(programme, catalog)
    [after] = found(programme, replace(catalog, offset_correction=-0.4))
    assert after == replace(before, track_start_s=after.track_start_s)
    assert after.track_start_s == pytest.approx(before.track_start_s + 0.4 * HOP)
