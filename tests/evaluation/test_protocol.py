"""Clips of the two protocols, wrong answers to look at, and invented tracks."""

from dataclasses import replace

import numpy as np
import pytest

from grafp.audio import SAMPLE_RATE, synthesis
from grafp.evaluation.failures import make_case, spectrogram, worst
from grafp.evaluation.hit_rates import ClipAnswer
from grafp.evaluation.protocol import Clip, draw_clips, make_clip
from pipelines.evaluating.distractors import distractor


def rms(samples_S: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples_S, dtype=np.float64))))


@pytest.fixture(scope="module")
def track_S() -> np.ndarray:
    """Twelve seconds, of which the second half is ten times quieter."""
    music_S = synthesis.piece(3, 12.0)
    music_S[len(music_S) // 2 :] *= 0.1
    return music_S


def one_clip(grid_s: float | None, **values: object) -> Clip:
    [clip] = [
        clip
        for clip in draw_clips(["a"], seconds=[2.0], snr_db=[6.0], queries=1, seed=4, grid_s=grid_s)
        if not clip.reverb
    ]
    return replace(clip, **{"position": 0.903, **values})


@pytest.mark.parametrize("grid_s", [None, 0.1])
def test_a_protocol_says_where_clips_begin_and_what_the_ratio_refers_to(
    grid_s: float | None, track_S: np.ndarray
) -> None:
    clip, noises = one_clip(grid_s), [synthesis.noise(1, 5.0), synthesis.noise(2, 1.0)]
    start, clip_S = make_clip(clip, track_S, noises, [])
    clean_S = track_S[start : start + 2 * SAMPLE_RATE]
    assert start / len(track_S) == pytest.approx(0.903 * 10 / 12, abs=0.01)
    assert (start % 1_600 == 0) == (grid_s is not None)
    level = rms(clean_S) if grid_s is None else rms(track_S)
    assert rms(clip_S - clean_S) == pytest.approx(level * 10 ** (-6 / 20), rel=1e-3)
    assert rms(track_S) > 3 * rms(clean_S)
    again, again_S = make_clip(clip, track_S, noises, [])
    assert again == start
    assert np.array_equal(again_S, clip_S)
    reverberant_S = make_clip(
        replace(clip, reverb=True), track_S, noises, [synthesis.impulse_response(1)]
    )[1]
    assert reverberant_S.shape == clip_S.shape


def test_all_lengths_of_a_cut_begin_at_the_same_sample(track_S: np.ndarray) -> None:
    clips = draw_clips(["a"], seconds=[1.0, 5.0], snr_db=[0.0], queries=3, seed=1)
    starts = [
        make_clip(c, track_S, [synthesis.noise(1, 5.0)], [synthesis.impulse_response(1)])[0]
        for c in clips
    ]
    assert all(len(set(starts[n : n + 4])) == 1 for n in (0, 4, 8))
    assert len(set(starts)) == 3


def answer(clip: Clip, track: str, score: float, **values: object) -> ClipAnswer:
    known = ClipAnswer(
        query=f"clip {clip.number}", track=track, start_s=1.0, score=score, matched=score > 0.5,
        error=None, true_track=clip.track, true_start_s=1.0, threshold=0.5,
        false_positive_rate=1e-4, best_wrong=None, best_wrong_score=None,
    )  # fmt: skip
    return replace(known, **values)


def test_the_worst_answers_come_first_one_of_each_cut(track_S: np.ndarray) -> None:
    base = one_clip(None)
    clips = [replace(base, number=n, position=n / 10) for n in range(7)]
    clips.append(replace(clips[1], number=7, snr_db=0.0))  # another ratio of the second cut
    answers = [
        answer(clips[0], "a", 0.99),
        answer(clips[1], "b", 0.6),
        answer(clips[2], "b", 0.9),
        answer(clips[3], "a", 0.95, start_s=4.0),
        answer(clips[4], "b", 0.8, true_track=None),
        answer(clips[5], "b", 0.4, true_track=None),
        answer(clips[6], "b", 0.3),
        answer(clips[7], "b", 0.7),
    ]
    assert [clip.number for clip, _ in worst(clips, answers)] == [2, 4, 7, 6, 3]
    assert [clip.number for clip, _ in worst(clips, answers, count=2)] == [2, 4]

    clip, wrong = worst(clips, answers)[0]
    recordings = {"a": track_S, "b": synthesis.piece(5, 4.0)}
    noises = [synthesis.noise(1, 5.0)]
    case = make_case(clip, replace(wrong, start_s=-0.5), noises, [], recordings.get)
    assert [name for name, _ in case.spectrograms] == ["the clip", "its recording", "the answer"]
    for _, mel_FT in case.spectrograms:
        assert mel_FT.shape == (64, 2 * 32)
        assert 0 <= mel_FT.min() < mel_FT.max() <= 1
    start, clip_S = make_clip(clip, track_S, noises, [])
    assert np.array_equal(case.spectrograms[0][1], spectrogram(clip_S))
    clean_S = track_S[start : start + 2 * SAMPLE_RATE]
    assert np.array_equal(case.spectrograms[1][1], spectrogram(clean_S))
    assert not case.spectrograms[2][1][:, :15].any()  # before the track's beginning
    assert make_case(clip, wrong, noises, [], {}.get).spectrograms == []


def test_distractors_are_mixed_of_tracks_and_are_none_of_them() -> None:
    random = np.random.default_rng(0)
    material = []
    for length in (300, 500, 400, 200, 350):
        vectors_ND = np.cumsum(random.normal(size=(length, 128)), axis=0)
        vectors_ND -= vectors_ND.mean(axis=0)
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        material.append(vectors_ND.astype(np.float16))
    material[2][7] = 0.0
    drawn = [distractor(material, number) for number in range(10)]
    assert [len(vectors_ND) for vectors_ND in drawn] == [300, 500, 400, 200, 350] * 2
    assert all(vectors_ND.dtype == np.float16 for vectors_ND in drawn)
    assert not drawn[2][7].any()
    assert np.linalg.norm(np.delete(drawn[2], 7, axis=0).astype(float), axis=1) == pytest.approx(
        1.0, abs=2e-3
    )
    assert np.array_equal(drawn[3], distractor(material, 3))
    assert not np.array_equal(drawn[3], distractor(material, 8))
    assert not np.array_equal(drawn[3], distractor(material, 3, seed=1))
    for vectors_ND, own_ND in zip(drawn, material * 2, strict=True):
        alike = (vectors_ND.astype(float) * own_ND).sum(axis=1).mean()
        assert 0.4 < alike < 0.75
        steps = (vectors_ND[1:].astype(float) * vectors_ND[:-1]).sum(axis=1)
        assert np.median(steps) > 0.9  # it moves as slowly as they do


def test_one_track_is_enough_for_distractors() -> None:
    vectors_ND = np.eye(128, dtype=np.float16)
    assert not np.array_equal(distractor([vectors_ND], 0), vectors_ND)
    assert not np.array_equal(distractor([vectors_ND], 0), distractor([vectors_ND], 1))
