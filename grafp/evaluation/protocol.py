"""Test queries: excerpts cut anywhere, with reverberation and noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio

from grafp.audio import SAMPLE_RATE
from grafp.audio.mixing import add_at_snr, direct_first, to_float

PAST_SECONDS = 1.0  # of music before the clip, whose reverberation is heard in the clip


def cut_degraded(
    track_S: np.ndarray,
    start: int,
    seconds: float,
    *,
    snr_db: float | None = None,
    noise_S: np.ndarray | None = None,
    rir_S: np.ndarray | None = None,
    track_level: bool = False,
) -> np.ndarray:
    """Cut a clip at a sample and degrade it.

    Args:
        track_S: float32 or int16 waveform, 16 kHz mono.
        start: first sample of the clip.
        seconds: length of the clip, s.
        snr_db: ratio of the clip's RMS to the noise's over this clip, dB.
        noise_S: at least one sample; repeated when shorter than the clip.
        rir_S: impulse response; it is applied to up to a second of music before the clip too.
        track_level: the ratio refers to the RMS of the whole track, not of the clip.

    Returns float32 (seconds * 16000,).
    """
    length = round(seconds * SAMPLE_RATE)
    past = min(start, round(PAST_SECONDS * SAMPLE_RATE)) if rir_S is not None else 0
    clip_S = to_float(torch.tensor(track_S[start - past : start + length]))
    if rir_S is not None:
        rir = direct_first(torch.tensor(rir_S))
        whole = len(clip_S) + len(rir) - 1
        # Padding makes the length of the FFT a power of two, which is several times as fast.
        rir = F.pad(rir, (0, (1 << (whole - 1).bit_length()) - whole))
        clip_S = torchaudio.functional.fftconvolve(clip_S, rir)[: len(clip_S)]
    clip_S = clip_S[past:]
    if noise_S is not None and snr_db is not None:
        noise = to_float(torch.tensor(np.resize(noise_S, len(clip_S))))
        level = torch.tensor([[_rms(track_S)]]) if track_level else None
        clip_S = add_at_snr(clip_S[None], noise[None], torch.tensor([[snr_db]]), level)[0]
    degraded_S: np.ndarray = clip_S.numpy()
    return degraded_S


def _rms(track_S: np.ndarray) -> float:
    scale = 32768.0 if track_S.dtype == np.int16 else 1.0
    norm = float(np.linalg.norm(track_S.astype(np.float32)))
    return norm / (scale * math.sqrt(max(1, len(track_S))))


@dataclass(frozen=True)
class Clip:
    """One query to make: where it is cut and how it is degraded."""

    number: int
    track: str
    position: float
    """Where it begins, as a share of the possible starts in the track, 0..1."""
    seconds: float
    longest: float
    """Length of the longest clip of this cut, s: all lengths begin at the same sample."""
    snr_db: float
    reverb: bool
    seed: int
    grid_s: float | None
    """None is the protocol `field`: the clip begins at any sample, and the ratio is measured on
    the clip. A hop in s is the protocol `paper`: the clip begins at a multiple of the hop, and the
    ratio refers to the whole track."""


def draw_clips(
    tracks: Sequence[str],
    *,
    seconds: Sequence[float],
    snr_db: Sequence[float],
    queries: int,
    seed: int,
    grid_s: float | None = None,
) -> list[Clip]:
    """`queries` cuts, each at every length and ratio, with noise alone and with reverberation."""
    random = np.random.default_rng(seed)
    clips: list[Clip] = []
    for _ in range(queries):
        track, position = tracks[int(random.integers(len(tracks)))], float(random.random())
        for reverb in (False, True):
            for length in seconds:
                for ratio in snr_db:
                    clips.append(
                        Clip(
                            number=len(clips),
                            track=track,
                            position=position,
                            seconds=length,
                            longest=max(seconds),
                            snr_db=ratio,
                            reverb=reverb,
                            seed=int(random.integers(1 << 62)),
                            grid_s=grid_s,
                        )
                    )
    return clips


def make_clip(
    clip: Clip, track_S: np.ndarray, noises: Sequence[np.ndarray], rirs: Sequence[np.ndarray]
) -> tuple[int, np.ndarray]:
    """Cut and degrade one clip of its decoded track; the same arguments give the same samples.

    Args:
        track_S: float32 waveform, 16 kHz mono, of at least `clip.longest` seconds.
        noises, rirs: waveforms, among which the clip's seed chooses.

    Returns the clip's first sample in the track, and float32 (seconds * 16000,).
    """
    random = np.random.default_rng(clip.seed)
    start = int(clip.position * (len(track_S) - clip.longest * SAMPLE_RATE))
    if clip.grid_s:
        start -= start % round(clip.grid_s * SAMPLE_RATE)
    noise_S = noises[int(random.integers(len(noises)))]
    noise_starts = max(1, len(noise_S) - int(clip.seconds * SAMPLE_RATE))
    noise_S = noise_S[int(random.integers(noise_starts)) :]
    rir_S = rirs[int(random.integers(len(rirs)))] if clip.reverb else None
    clip_S = cut_degraded(
        track_S,
        start,
        clip.seconds,
        snr_db=clip.snr_db,
        noise_S=noise_S,
        rir_S=rir_S,
        track_level=clip.grid_s is not None,
    )
    return start, clip_S
