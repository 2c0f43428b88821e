"""Test queries: excerpts cut anywhere, with reverberation and noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grafp.audio import SAMPLE_RATE
from grafp.audio.degrade import cut_degraded


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
