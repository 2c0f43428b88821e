"""Many short tracks for `large.py`: mixtures of synthesized pieces, written to a store."""

import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from grafp import storage
from grafp.audio import SAMPLE_RATE, encode, synthesis

TRACK_SECONDS, CLIP_SECONDS = 12.0, 5.0
_PIECES = 2000
_SNR_DB = 10.0


def bank(path: Path, pieces: int = _PIECES) -> Path:
    """A file of int16 (pieces, samples): what tracks are mixed of; made once."""
    if not path.exists():
        with multiprocessing.get_context("spawn").Pool() as pool:
            rows = pool.map(_piece, range(pieces), chunksize=20)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path.with_suffix(".tmp.npy"), np.stack(rows))
        os.replace(path.with_suffix(".tmp.npy"), path)
    return path


def _piece(seed: int) -> np.ndarray:
    samples_S = synthesis.piece(seed, TRACK_SECONDS)
    return (32767 * samples_S / np.abs(samples_S).max()).astype(np.int16)


def track(pieces_PS: np.ndarray, number: int) -> np.ndarray:
    """float32 (samples,): two pieces at other speeds and from other moments, drawn by number."""
    rng = np.random.default_rng([7, number])
    one, other = rng.choice(len(pieces_PS), 2, replace=False)
    mixed_S = np.zeros(pieces_PS.shape[1], np.float32)
    for piece, level in ((one, 0.7), (other, 0.35)):
        speed, begin = rng.uniform(0.8, 1.25), rng.integers(pieces_PS.shape[1])
        at_S = (begin + speed * np.arange(pieces_PS.shape[1])) % (pieces_PS.shape[1] - 1)
        piece_S = pieces_PS[piece].astype(np.float32) / 32767
        mixed_S += level * np.interp(at_S, np.arange(len(piece_S)), piece_S).astype(np.float32)
    return mixed_S


def clip(pieces_PS: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    """A noisy excerpt of a track, float32 (samples,), and the second at which it begins."""
    rng = np.random.default_rng([11, number])
    begin_s = float(rng.uniform(0, TRACK_SECONDS - CLIP_SECONDS))
    first = round(begin_s * SAMPLE_RATE)
    samples_S = track(pieces_PS, number)[first : first + round(CLIP_SECONDS * SAMPLE_RATE)]
    noise_S = rng.standard_normal(len(samples_S)).astype(np.float32)
    level = np.sqrt(np.mean(samples_S**2)) * 10 ** (-_SNR_DB / 20)
    return 0.7 * (samples_S + level * noise_S), first / SAMPLE_RATE


def track_key(number: int) -> str:
    return f"{number // 1000:04d}/{number:07d}.flac"


def write_tracks(pieces: Path, uri: str, numbered: Sequence[tuple[int, int]]) -> None:
    """Write tracks below a URI: each has the name of the first number, the music of the second."""
    _spread(_write_track, pieces, uri, numbered)


def write_clips(pieces: Path, uri: str, numbers: Sequence[int]) -> list[tuple[int, float]]:
    """Write a clip of each track below a URI; returns their numbers and true offsets in s."""
    return _spread(_write_clip, pieces, uri, numbers)


def _spread(function, pieces: Path, uri: str, work: Sequence) -> list:
    calls = [(str(pieces), uri, one) for one in work]
    with multiprocessing.get_context("spawn").Pool() as pool:
        return pool.starmap(function, calls, chunksize=64)


def _write_track(pieces: str, uri: str, numbers: tuple[int, int]) -> None:
    name, music = numbers
    samples_S = track(np.load(pieces, mmap_mode="r"), music)
    storage.write(storage.join(uri, track_key(name)), encode(samples_S, "flac"))


def _write_clip(pieces: str, uri: str, number: int) -> tuple[int, float]:
    samples_S, begin_s = clip(np.load(pieces, mmap_mode="r"), number)
    storage.write(storage.join(uri, f"{number:07d}.flac"), encode(samples_S, "flac"))
    return number, begin_s
