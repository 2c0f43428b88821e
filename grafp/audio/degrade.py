"""One clip of a recording as a microphone would hear it: reverberant, with noise."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio

from grafp.audio.formats import SAMPLE_RATE
from grafp.audio.mixing import add_at_snr, direct_first, to_float

_PAST_SECONDS = 1.0  # of music before the clip, whose reverberation is heard in the clip


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
    past = min(start, round(_PAST_SECONDS * SAMPLE_RATE)) if rir_S is not None else 0
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


def random_clip(
    track_S: np.ndarray,
    seconds: float,
    noises: Sequence[np.ndarray],
    rirs: Sequence[np.ndarray],
    random: np.random.Generator,
    *,
    snr_db: tuple[float, float],
    reverb: float,
) -> np.ndarray:
    """Cut a clip anywhere and degrade it with noise and an impulse response drawn at random.

    Args:
        track_S: of at least `seconds`; like noises and rirs, see `cut_degraded`. Without any noise
            or impulse response that part is left out.
        snr_db: range of the ratio, dB.
        reverb: probability of an impulse response.

    Returns float32 (seconds * 16000,).
    """
    length = round(seconds * SAMPLE_RATE)
    return cut_degraded(
        track_S,
        int(random.integers(len(track_S) - length + 1)),
        seconds,
        snr_db=float(random.uniform(*snr_db)),
        noise_S=noise_excerpt(_one(noises, random), length, random) if noises else None,
        rir_S=_one(rirs, random) if rirs and random.random() < reverb else None,
    )


def _one(sounds: Sequence[np.ndarray], random: np.random.Generator) -> np.ndarray:
    return sounds[int(random.integers(len(sounds)))]


def noise_excerpt(noise_S: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """A noise from a random sample on, as long as a clip where it lasts."""
    return noise_S[int(random.integers(max(1, len(noise_S) - length + 1))) :]


def _rms(track_S: np.ndarray) -> float:
    scale = 32768.0 if track_S.dtype == np.int16 else 1.0
    norm = float(np.linalg.norm(track_S.astype(np.float32)))
    return norm / (scale * math.sqrt(max(1, len(track_S))))
