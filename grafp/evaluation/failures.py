"""The answers that went most wrong, with spectrograms of the clip and of what it was taken for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch

from grafp.audio import SAMPLE_RATE
from grafp.audio.mixing import to_float
from grafp.evaluation.hit_rates import CONDITIONS, ClipAnswer
from grafp.evaluation.protocol import Clip, make_clip
from grafp.model.features import log_mel
from grafp.model.fingerprint import SEGMENT_SAMPLES
from grafp.reports.charts import picture


@dataclass(frozen=True)
class Case:
    """One wrong answer to look at."""

    clip: Clip
    answer: ClipAnswer
    pictures: list[tuple[str, np.ndarray]]
    """What each shows, and its log-mel spectrogram (64, frames), 0..1."""


def worst(
    clips: Sequence[Clip], answers: Sequence[ClipAnswer], count: int = 6
) -> list[tuple[Clip, ClipAnswer]]:
    """The wrong answers with the highest scores, one of each cut.

    Wrong tracks and unknown clips that were accepted come before right tracks at a wrong second.
    """
    wrong = [
        (clip, answer)
        for clip, answer in zip(clips, answers, strict=True)
        if (answer.matched if answer.true_track is None else not answer.right_place)
    ]
    wrong.sort(key=lambda pair: (pair[1].right_track, -(pair[1].score or 0.0)))
    first_of_cut: dict[tuple[str, float], tuple[Clip, ClipAnswer]] = {}
    for clip, answer in wrong:
        first_of_cut.setdefault((clip.track, clip.place), (clip, answer))
    return list(first_of_cut.values())[:count]


def show(
    clip: Clip,
    answer: ClipAnswer,
    noises: Sequence[np.ndarray],
    rooms: Sequence[np.ndarray],
    recording: Callable[[str], np.ndarray | None],
) -> Case:
    """Cut a clip again and picture it beside its own place, undegraded, and the answered place.

    `recording` gives a decoded track by its URI, or None where it cannot be had.
    """
    pictures = []
    own_S = recording(clip.track)
    if own_S is not None:
        start, clip_S = make_clip(clip, own_S, noises, rooms)
        pictures.append(("the clip", spectrogram(clip_S)))
        pictures.append(("its recording", spectrogram(_excerpt(own_S, start, clip.seconds))))
    found_S = None if answer.track is None else recording(answer.track)
    if found_S is not None and answer.start_s is not None:
        start = round(answer.start_s * SAMPLE_RATE)
        pictures.append(("the answer", spectrogram(_excerpt(found_S, start, clip.seconds))))
    return Case(clip, answer, pictures)


def spectrogram(samples_S: np.ndarray) -> np.ndarray:
    """What the encoder sees of a clip's whole seconds, side by side: (64, 32 * seconds), 0..1."""
    segments_BS = to_float(torch.tensor(samples_S)).split(SEGMENT_SAMPLES)
    whole = [segment_S for segment_S in segments_BS if len(segment_S) == SEGMENT_SAMPLES]
    return torch.cat(list(log_mel(torch.stack(whole))), dim=1).numpy()


def section(cases: Sequence[Case]) -> str:
    """HTML: each case with its pictures."""
    if not cases:
        return "<p>Nothing: every known clip has the right answer, no unknown one was accepted.</p>"
    shown = ""
    for case in cases:
        clip, answer = case.clip, case.answer
        unknown = f"{escape(clip.track)}, not in the catalog"
        truth = _place(answer.true_track, answer.true_start_s, unknown)
        found = _place(answer.track, answer.start_s, "nothing")
        images = "".join(
            f"<figure><figcaption>{name}</figcaption>"
            f"{picture(values_FT, f'spectrogram: {name}', 128)}</figure>"
            for name, values_FT in case.pictures
        )
        shown += (
            f"<article><h3>{escape(answer.query)}: {clip.seconds:g} s, {clip.snr_db:g} dB, "
            f"{CONDITIONS[clip.reverb]}</h3><p>Truth: {truth}<br>Answer: {found}, score "
            f"{answer.score or 0.0:.3f}, {'accepted' if answer.matched else 'refused'} "
            f"(threshold {answer.threshold:.2f})</p>"
            f'<div class="pictures">{images}</div></article>\n'
        )
    return (
        "<p>Wrong tracks and unknown clips that were accepted, the highest scores first; then "
        "right tracks at a wrong second. Log-mel spectrograms as the encoder sees them, each "
        "second scaled to its own peak, 50 Hz at the bottom, 8 kHz at the top.</p>"
        f'<div class="cases">{shown}</div>'
    )


def _place(track: str | None, start_s: float | None, nothing: str) -> str:
    if track is None:
        return nothing
    return escape(track) + ("" if start_s is None else f" at {start_s:.2f} s")


def _excerpt(track_S: np.ndarray, start: int, seconds: float) -> np.ndarray:
    """An excerpt; silence where it sticks out of the track."""
    excerpt_S = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    inside_S = track_S[max(0, start) : max(0, start + len(excerpt_S))]
    first = max(0, -start)
    excerpt_S[first : first + len(inside_S)] = inside_S
    return excerpt_S
