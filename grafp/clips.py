"""Test queries: excerpts cut anywhere, played in a room, among noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio

from grafp.audio import SAMPLE_RATE
from grafp.augment import add_at_snr, direct_first, to_float

PAST_SECONDS = 1.0  # of music before the clip, whose reverberation is part of the recording


def cut_degraded(
    track_S: np.ndarray,
    start: int,
    seconds: float,
    *,
    snr_db: float | None = None,
    noise_S: np.ndarray | None = None,
    room_S: np.ndarray | None = None,
) -> np.ndarray:
    """Cut a clip at a sample and degrade it.

    Args:
        track_S: float32 or int16 waveform, 16 kHz mono.
        start: first sample of the clip; need not lie on any grid.
        seconds: length of the clip.
        snr_db: ratio of the clip's RMS to the noise's, measured over this clip, dB.
        noise_S: at least one sample; repeated when shorter than the clip.
        room_S: impulse response; the room hears up to a second of music before the clip.

    Returns float32 (seconds * 16000,).
    """
    length = round(seconds * SAMPLE_RATE)
    past = min(start, round(PAST_SECONDS * SAMPLE_RATE)) if room_S is not None else 0
    clip_S = to_float(torch.tensor(track_S[start - past : start + length]))
    if room_S is not None:
        room = direct_first(torch.tensor(room_S))
        clip_S = torchaudio.functional.fftconvolve(clip_S, room)[: len(clip_S)]
    clip_S = clip_S[past:]
    if noise_S is not None and snr_db is not None:
        noise = to_float(torch.tensor(np.resize(noise_S, len(clip_S))))
        clip_S = add_at_snr(clip_S[None], noise[None], torch.tensor([[snr_db]]))[0]
    return clip_S.numpy()


@dataclass(frozen=True)
class Clip:
    """One query to make: where it is cut and what happens to it."""

    number: int
    track: str
    place: float
    """Where it begins, as a share of what the track allows, 0..1."""
    seconds: float
    snr_db: float
    reverb: bool
    seed: int


def draw_clips(
    tracks: list[str],
    *,
    seconds: list[float],
    snr_db: list[float],
    queries: int,
    seed: int,
) -> list[Clip]:
    """`queries` cuts, each at every length and ratio, with noise alone and with reverberation."""
    random = np.random.default_rng(seed)
    clips: list[Clip] = []
    for _ in range(queries):
        track, place = tracks[int(random.integers(len(tracks)))], float(random.random())
        for reverb in (False, True):
            for length in seconds:
                for ratio in snr_db:
                    noise_seed = int(random.integers(1 << 62))
                    clips.append(Clip(len(clips), track, place, length, ratio, reverb, noise_seed))
    return clips


def make_clip(
    clip: Clip,
    track_S: np.ndarray,
    noises: Sequence[np.ndarray],
    rooms: Sequence[np.ndarray],
    longest: float,
) -> tuple[np.ndarray, float]:
    """Cut and degrade a clip as it was drawn.

    Args:
        track_S: waveform of its track, 16 kHz mono, not shorter than the longest clip.
        noises, rooms: waveforms; rooms may be empty if the clip is not reverberant.
        longest: length of the longest clip, s. It must fit, so that all begin at the same place.

    Returns float32 (seconds * 16000,), and the second of the track at which it begins.
    """
    random = np.random.default_rng(clip.seed)
    start = int(clip.place * (len(track_S) - longest * SAMPLE_RATE))
    noise_S = noises[int(random.integers(len(noises)))]
    spare = len(noise_S) - int(clip.seconds * SAMPLE_RATE)
    noise_S = noise_S[int(random.integers(max(1, spare))) :]
    room_S = rooms[int(random.integers(len(rooms)))] if clip.reverb else None
    clip_S = cut_degraded(
        track_S, start, clip.seconds, snr_db=clip.snr_db, noise_S=noise_S, room_S=room_S
    )
    return clip_S, start / SAMPLE_RATE
