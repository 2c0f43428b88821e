"""Fingerprints of the clips that benchmarks/acceptance.py asks: of music, and of what is none."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from accuracy import part

LONGEST_S, _SAMPLES = 10.0, 160_000
_CUTS = 5


@dataclass(frozen=True)
class Clips:
    """Fingerprints of clips, and what they are."""

    vectors_NMD: np.ndarray
    track_N: list[str]

    def cut(self, seconds: float) -> "Clips":
        """Shorter clips out of these, side by side, at most `_CUTS` of each."""
        cuts = min(_CUTS, int(LONGEST_S / seconds))
        length = 1 + round((seconds - 1.0) * 10)
        firsts = np.linspace(0, self.vectors_NMD.shape[1] - length, cuts).astype(int)
        parts = [self.vectors_NMD[:, first : first + length] for first in firsts]
        return Clips(np.concatenate(parts), self.track_N * cuts)


def degraded(
    chosen: argparse.Namespace,
    name: str,
    items: Sequence,
    count: int,
    snr: tuple[float, float],
    reverb: float,
    split: str = "test",
) -> Clips:
    """Degraded clips of these recordings, from the file that keeps their fingerprints or made."""
    from grafp.datasets import waveforms

    path = f"{chosen.out}/{name}-{count}.npz"
    if not os.path.exists(path):
        os.makedirs(chosen.out, exist_ok=True)
        kinds = ("noise", "rir")
        shared = ray.put({what: waveforms(part(chosen.corpus, split, what)) for what in kinds})
        per = -(-count // len(items))
        work = [
            _cut_and_embed.remote(item.location, per, n, snr, reverb, shared, chosen.model)
            for n, item in enumerate(items)
        ]
        tracks = np.array([item.uri for item in items for _ in range(per)])
        np.savez(path, vectors=np.concatenate(ray.get(work)), track=tracks)
    with np.load(path) as kept:
        return Clips(kept["vectors"], kept["track"].tolist())


@ray.remote(num_cpus=1)
def _cut_and_embed(
    location: str, count: int, seed: int, snr: tuple, reverb: float, parts: dict, model: str
) -> np.ndarray:
    """Fingerprints of degraded clips of one recording, float16."""
    from grafp import load_model, storage
    from grafp.audio import decode
    from grafp.audio.degrade import random_clip

    fingerprint = load_model(model).fingerprint
    random = np.random.default_rng([seed, count])
    track_S = decode(storage.read(location))
    vectors = []
    for _ in range(count):
        clip_S = random_clip(
            track_S, LONGEST_S, parts["noise"], parts["rir"], random, snr_db=snr, reverb=reverb
        )
        vectors.append(fingerprint(clip_S).astype(np.float16))
    return np.stack(vectors)


def of(clips: Clips, items: Sequence) -> Clips:
    """The clips of some recordings."""
    uris = {item.uri for item in items}
    return _chosen(clips, [n for n, track in enumerate(clips.track_N) if track in uris])


def first_of(clips: Clips, count: int) -> Clips:
    """So many of the clips, of all recordings."""
    return _chosen(clips, np.linspace(0, len(clips.track_N) - 1, count).astype(int).tolist())


def _chosen(clips: Clips, rows: list[int]) -> Clips:
    return Clips(clips.vectors_NMD[rows], [clips.track_N[row] for row in rows])


def embedded(make: Callable, count: int, model: str) -> np.ndarray:
    parts = np.array_split(np.arange(count), 4)
    return np.concatenate(ray.get([_embed.remote(make, part, model) for part in parts]))


@ray.remote(num_cpus=1)
def _embed(make: Callable, numbers: np.ndarray, model: str) -> np.ndarray:
    from grafp import load_model

    fingerprint = load_model(model).fingerprint
    clips = [fingerprint(make(int(number))) for number in numbers]
    return np.stack(clips).astype(np.float16)


def speech(items: Sequence, number: int) -> np.ndarray:
    from grafp import storage
    from grafp.audio import decode

    random = np.random.default_rng(number)
    talk_S = decode(storage.read(items[number % len(items)].location))
    talk_S = np.resize(talk_S, max(len(talk_S), _SAMPLES))
    first = int(random.integers(len(talk_S) - _SAMPLES + 1))
    return talk_S[first : first + _SAMPLES]


def synthesized(number: int) -> np.ndarray:
    from grafp.audio import synthesis

    samples_S: np.ndarray = synthesis.piece(50_000 + number, LONGEST_S + 1)
    return samples_S[:_SAMPLES]


def tones(number: int) -> np.ndarray:
    """A few tones, each of another length."""
    random = np.random.default_rng(number)
    time_S = np.arange(_SAMPLES) / 16_000
    tones_S = np.zeros(_SAMPLES)
    for _ in range(int(random.integers(1, 6))):
        on_S = (time_S * random.uniform(0.2, 4.0) + random.random()) % 1 < random.uniform(0.3, 1)
        tones_S += on_S * np.sin(2 * np.pi * 60 * 2 ** random.uniform(0, 6) * time_S)
    return (0.1 * tones_S).astype(np.float32)


def hum(number: int) -> np.ndarray:
    """Mains hum and a little noise."""
    random = np.random.default_rng(number)
    time_S = np.arange(_SAMPLES) / 16_000
    hum_S = random.normal(0, random.uniform(1e-4, 3e-3), _SAMPLES)
    base = random.choice([50.0, 60.0])
    for harmonic in range(1, int(random.integers(2, 12))):
        phase = random.uniform(0, 2 * np.pi)
        hum_S += 0.02 / harmonic * np.sin(2 * np.pi * base * harmonic * time_S + phase)
    return hum_S.astype(np.float32)
