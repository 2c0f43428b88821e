"""The worst wrong answers, with spectrograms of the clip and of the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from grafp.audio import SAMPLE_RATE
from grafp.audio.mixing import to_float
from grafp.evaluation.hit_rates import ClipAnswer
from grafp.evaluation.protocol import Clip, make_clip
from grafp.model.features import log_mel
from grafp.model.fingerprint import SEGMENT_SAMPLES


@dataclass(frozen=True)
class Case:
    """One wrong answer to look at."""

    clip: Clip
    answer: ClipAnswer
    spectrograms: list[tuple[str, np.ndarray]]
    """What each shows, and its log-mel spectrogram (64, frames), 0..1."""


def worst(
    clips: Sequence[Clip], answers: Sequence[ClipAnswer], count: int = 6
) -> list[tuple[Clip, ClipAnswer]]:
    """The wrong answers with the highest scores, one of each cut.

    Wrong tracks and accepted unknown clips come before right tracks at a wrong offset.
    """
    wrong = [pair for pair in zip(clips, answers, strict=True) if pair[1].wrong]
    wrong.sort(key=lambda pair: (pair[1].right_track, -(pair[1].score or 0.0)))
    first_of_cut: dict[tuple[str, float], tuple[Clip, ClipAnswer]] = {}
    for clip, answer in wrong:
        first_of_cut.setdefault((clip.track, clip.position), (clip, answer))
    return list(first_of_cut.values())[:count]


def make_case(
    clip: Clip,
    answer: ClipAnswer,
    noises: Sequence[np.ndarray],
    rirs: Sequence[np.ndarray],
    recording: Callable[[str], np.ndarray | None],
) -> Case:
    """Cut a clip again, and show it beside its undegraded source and the answered excerpt.

    `recording` returns a decoded track by its URI, or None if it is not available.
    """
    spectrograms = []
    source_S = recording(clip.track)
    if source_S is not None:
        start, clip_S = make_clip(clip, source_S, noises, rirs)
        spectrograms.append(("the clip", spectrogram(clip_S)))
        spectrograms.append(("its recording", spectrogram(_excerpt(source_S, start, clip.seconds))))
    found_S = None if answer.track is None else recording(answer.track)
    if found_S is not None and answer.start_s is not None:
        start = round(answer.start_s * SAMPLE_RATE)
        spectrograms.append(("the answer", spectrogram(_excerpt(found_S, start, clip.seconds))))
    return Case(clip, answer, spectrograms)


def spectrogram(samples_S: np.ndarray) -> np.ndarray:
    """The encoder's input for a clip's whole seconds, side by side: (64, 32 * seconds), 0..1."""
    segments_BS = to_float(torch.tensor(samples_S)).unfold(0, SEGMENT_SAMPLES, SEGMENT_SAMPLES)
    mel_FT: np.ndarray = torch.cat(list(log_mel(segments_BS)), dim=1).numpy()
    return mel_FT


def _excerpt(track_S: np.ndarray, start: int, seconds: float) -> np.ndarray:
    """An excerpt; it is silent outside the track."""
    excerpt_S = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    inside_S = track_S[max(0, start) : max(0, start + len(excerpt_S))]
    first = max(0, -start)
    excerpt_S[first : first + len(inside_S)] = inside_S
    return excerpt_S
