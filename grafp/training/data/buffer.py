"""Waveforms in memory: many recordings in one tensor, from which windows are cut without a loop.

Before: partition.py says which recordings of which shards a worker loads (`Piece`).
After: sampler.py cuts batches of pairs out of them.

`Waveforms` holds everything. Where that does not fit, a `Pool` holds a few shards at a time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from grafp.audio import SILENCE_PEAK
from grafp.errors import TrainingError
from grafp.model.fingerprint import SEGMENT_SAMPLES
from grafp.training.augment import FUTURE_SAMPLES, PAST_SAMPLES
from grafp.training.data.pcm import read_pcm

STEPS_A_SHARD = 10
"""Steps after which one shard of a pool is replaced."""
SAMPLE_BYTES = 2
_IN_FLIGHT = 3  # shards that are being read, beside those of the pool

_BLOCK = SEGMENT_SAMPLES // 10  # what is silent is known per block
_MIN_PEAK = round(10 * SILENCE_PEAK * 32768)  # a fading tail teaches nothing
assert FUTURE_SAMPLES <= PAST_SAMPLES  # the zeros before a recording also serve the one before it


def padded_size(lengths_T: np.ndarray) -> int:
    """Samples that recordings of these lengths take together, zeros around them included."""
    samples = int(lengths_T.sum()) + PAST_SAMPLES * (len(lengths_T) + 1)
    return -(-samples // _BLOCK) * _BLOCK


@dataclass(frozen=True)
class Region:
    """Recordings laid out to be copied into `Waveforms`."""

    sound_S: np.ndarray
    """int16, silence before, between and after the recordings."""
    loud_B: np.ndarray
    """Whether each block of 0.1 s can be heard."""
    starts_T: np.ndarray
    lengths_T: np.ndarray
    groups_T: np.ndarray

    @classmethod
    def of(cls, recordings: Sequence[np.ndarray], groups_T: np.ndarray) -> "Region":
        """`recordings`: int16 (samples,); those of one group are versions of one thing."""
        lengths_T = np.array([len(sound_S) for sound_S in recordings], np.int64)
        starts_T = PAST_SAMPLES + np.cumsum(lengths_T + PAST_SAMPLES) - lengths_T - PAST_SAMPLES
        sound_S = np.zeros(padded_size(lengths_T), np.int16)
        for start, recording_S in zip(starts_T, recordings):
            sound_S[start : start + len(recording_S)] = recording_S
        blocks_BS = sound_S.reshape(-1, _BLOCK)
        loud_B = (blocks_BS.max(axis=1) > _MIN_PEAK) | (blocks_BS.min(axis=1) < -_MIN_PEAK)
        return cls(sound_S, loud_B, starts_T, lengths_T, groups_T)


class Waveforms:
    """int16 recordings end to end on one device, PAST_SAMPLES of silence around each.

    It consists of regions, which can be replaced.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        """`sizes`: samples of each region, see `padded_size`."""
        self._begin_R = np.cumsum([0, *sizes])
        self._regions: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self.pcm_S = torch.zeros(int(self._begin_R[-1]), dtype=torch.int16, device=device)
        self._loud_B = np.zeros(len(self.pcm_S) // _BLOCK, bool)
        self.arrange()

    @classmethod
    def of(
        cls,
        tracks: Sequence[torch.Tensor],
        groups: Sequence[int] | None = None,
        device: torch.device | None = None,
    ) -> "Waveforms":
        """From int16 tracks in memory; by default each is a group of its own."""
        groups_T = np.arange(len(tracks)) if groups is None else np.asarray(groups)
        region = Region.of([track.numpy() for track in tracks], groups_T)
        waveforms = cls([len(region.sound_S)], device or torch.device("cpu"))
        waveforms.put(0, region)
        waveforms.arrange()
        return waveforms

    def put(self, number: int, region: Region) -> None:
        """Set a region, or replace what was there; `arrange` makes it available."""
        begin = int(self._begin_R[number])
        self.pcm_S[begin : begin + len(region.sound_S)] = torch.from_numpy(region.sound_S)
        block = begin // _BLOCK
        self._loud_B[block : block + len(region.loud_B)] = region.loud_B
        self._regions[number] = (begin + region.starts_T, region.lengths_T, region.groups_T)

    def arrange(self) -> None:
        """Sort the recordings by group."""
        none = (np.zeros(0, np.int64),) * 3
        regions = [none, *(self._regions[number] for number in sorted(self._regions))]
        starts_T, lengths_T, groups_T = map(np.concatenate, zip(*regions))
        order_T = np.argsort(groups_T, kind="stable")
        self.starts_T, self.lengths_T = starts_T[order_T], lengths_T[order_T]
        # Where each group begins among the recordings, and how many it has.
        _, self.first_G, self.count_G = np.unique(
            groups_T[order_T], return_index=True, return_counts=True
        )

    def at(self, step: int) -> "Waveforms":  # noqa: ARG002 - as a Pool has it
        """What a step draws from: always all of it."""
        return self

    @property
    def fewest_groups(self) -> int:
        """Groups that are there at any step."""
        return len(self.first_G)

    def loud(self, start: np.ndarray) -> np.ndarray:
        """Whether seconds that start at these samples of `pcm_S` can be heard; bool, same shape."""
        within = -(-start // _BLOCK)[..., None] + np.arange(SEGMENT_SAMPLES // _BLOCK - 1)
        loud: np.ndarray = np.any(self._loud_B[within], axis=-1)
        return loud

    def windows(self, start_B: np.ndarray, samples: int) -> torch.Tensor:
        """int16 (batch, samples) from these samples of `pcm_S` on."""
        start = torch.from_numpy(start_B).to(self.pcm_S.device)
        return self.pcm_S.unfold(0, samples, 1)[start]


@dataclass(frozen=True)
class Piece:
    """Recordings of one shard that a worker loads together: before loading, a `Region` after."""

    uri: str
    rows: np.ndarray
    lengths_T: np.ndarray
    groups_T: np.ndarray

    @property
    def size(self) -> int:
        """Samples that it takes in memory."""
        return padded_size(self.lengths_T)

    def load(self) -> Region:
        """Read the shard. Raises StorageError."""
        return Region.of(read_pcm(self.uri, self.rows), self.groups_T)


class Pool:
    """Music that does not fit: some pieces, the oldest of which is replaced every few steps.

    What it holds at a step depends on the seed, the size and the step alone.
    """

    def __init__(self, pieces: list[Piece], budget: int, seed: tuple[int, int]) -> None:
        """Raises TrainingError when `budget`, in bytes, is too little."""
        largest = max(piece.size for piece in pieces)
        self.slots = budget // (largest * SAMPLE_BYTES) - _IN_FLIGHT
        if self.slots < 1:
            least = (_IN_FLIGHT + 1) * largest * SAMPLE_BYTES / 1e9
            raise TrainingError(
                f"{budget / 1e9:.2f} GB for music are too little: at least {least:.2g} are needed, "
                "see --memory-gb"
            )
        order = np.random.default_rng(seed).permutation(len(pieces))
        self._pieces: list[Piece] = [pieces[number] for number in order]
        self._waveforms = Waveforms([largest] * self.slots, torch.device("cpu"))
        self._loader = ThreadPoolExecutor(1)
        self._first = -1
        self._next: tuple[int, Future[Region]] | None = None

    def at(self, step: int) -> Waveforms:
        """What a step draws from. Raises StorageError when a shard cannot be read."""
        first = step // STEPS_A_SHARD
        if first == self._first:
            return self._waveforms
        held = set(range(self._first, self._first + self.slots)) if self._first >= 0 else set()
        wanted = [number for number in range(first, first + self.slots) if number not in held]
        self._first = -1  # until all are loaded
        for number, region in zip(wanted, self._regions(wanted)):
            self._waveforms.put(number % self.slots, region)
        self._waveforms.arrange()
        self._first, coming = first, first + self.slots
        self._next = coming, self._loader.submit(self._piece(coming).load)
        return self._waveforms

    def _regions(self, numbers: list[int]) -> Iterable[Region]:
        if self._next and numbers == [self._next[0]]:
            return [self._next[1].result()]
        return load_all([self._piece(number) for number in numbers])

    def _piece(self, number: int) -> Piece:
        """The pieces follow each other in one order, again and again."""
        return self._pieces[number % len(self._pieces)]

    @property
    def fewest_groups(self) -> int:
        """Groups that are there at any step, at least."""
        groups = [piece.groups_T.tolist() for piece in self._pieces]
        held = Counter(g for group in groups[: self.slots] for g in group)
        fewest = count = len(held)
        for first in range(len(groups)):
            for g in groups[(first + self.slots) % len(groups)]:
                count += held[g] == 0
                held[g] += 1
            for g in groups[first]:
                held[g] -= 1
                count -= held[g] == 0
            fewest = min(fewest, count)
        return fewest


Music = Waveforms | Pool


def load_all(pieces: list[Piece]) -> Iterator[Region]:
    """The regions of all pieces, of which a few are read at a time. Raises StorageError."""
    with ThreadPoolExecutor(_IN_FLIGHT - 1) as threads:
        waiting = iter(pieces)
        coming = [threads.submit(piece.load) for piece in islice(waiting, _IN_FLIGHT - 1)]
        while coming:
            yield coming.pop(0).result()
            coming += [threads.submit(piece.load) for piece in islice(waiting, 1)]
