"""A worker's share of the music: whole groups, in memory where it fits, else a pool of shards."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import torch

from grafp import storage
from grafp.errors import TrainingError
from grafp.training.data.buffer import Region, Waveforms, room
from grafp.training.data.pcm import read_pcm
from grafp.training.data.prepare import Collected

STEPS_A_SHARD = 10
"""Steps after which one shard of a pool is replaced."""
_IN_FLIGHT = 3  # shards that are being read, beside those of the pool
_BYTES = 2  # of a sample


@dataclass(frozen=True)
class Piece:
    """Recordings that are loaded together, all of one shard."""

    uri: str
    rows: np.ndarray
    lengths_T: np.ndarray
    groups_T: np.ndarray

    @property
    def room(self) -> int:
        """Samples that it takes in memory."""
        return room(self.lengths_T)

    def load(self) -> Region:
        """Raises StorageError."""
        return Region.of(read_pcm(self.uri, self.rows), self.groups_T)


def deal(groups: Sequence[str], samples: Sequence[int], world: int) -> np.ndarray:
    """The rank of each recording: whole groups, about as much music for each.

    Groups that follow each other stay together, so that a rank reads few shards.
    """
    weights: dict[str, int] = {}
    for group, count in zip(groups, samples):
        weights[group] = weights.get(group, 0) + count
    rank, load, left = 0, 0, sum(weights.values())
    ranks: dict[str, int] = {}
    for number, (group, weight) in enumerate(weights.items()):
        others = world - 1 - rank
        full = load + weight / 2 > left / (others + 1) or len(weights) - number <= others
        if load and others and full:
            rank, load, left = rank + 1, 0, left - load
        ranks[group] = rank
        load += weight
    return np.array([ranks[group] for group in groups], np.int64)


@dataclass(frozen=True)
class Budget:
    """How much music a worker may hold, bytes."""

    memory: int
    gpu: int

    @classmethod
    def of(cls, out: str, rank: int, world: int, device: torch.device) -> "Budget":
        """Half of what is free now, or was when the run began.

        OUT/memory keeps it: what a pool holds, and so every batch, depends on it.
        """
        record = storage.join(out, "memory", f"{rank}-of-{world}.json")
        if storage.stat(record) is not None:
            return cls(**json.loads(storage.read(record)))
        workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by Ray Train and by torchrun
        budget = cls(_free_memory() // 2 // workers, _free_on(device) // 2)
        storage.write(record, json.dumps(asdict(budget)).encode())
        return budget

    @classmethod
    def given(cls, gigabytes: float, device: torch.device) -> "Budget":
        """On the GPU, still no more than half of what is free there."""
        return cls(int(gigabytes * 1e9), min(int(gigabytes * 1e9), _free_on(device) // 2))


@dataclass(frozen=True)
class Share:
    """The training recordings of one rank."""

    pieces: list[Piece]
    fewest_groups: int
    """Groups of the rank that has the fewest."""

    @classmethod
    def of(cls, collected: Collected, rank: int, world: int) -> "Share":
        """Raises StorageError."""
        usable, _ = collected.usable()
        names, samples_T = usable["group"].to_pylist(), usable["samples"].to_numpy()
        rank_T = deal(names, samples_T.tolist(), world)
        _, group_T = np.unique(names, return_inverse=True)
        groups = [len(np.unique(group_T[rank_T == number])) for number in range(world)]
        shard_T, row_T = np.array(usable["shard"].to_pylist()), usable["row"].to_numpy()
        pieces = []
        for shard in dict.fromkeys(shard_T[rank_T == rank].tolist()):
            mine = np.flatnonzero((rank_T == rank) & (shard_T == shard))
            uri = storage.join(collected.store, shard)
            pieces.append(Piece(uri, row_T[mine], samples_T[mine], group_T[mine]))
        return cls(pieces, min(groups))

    def load(self, budget: Budget, device: torch.device, seed: tuple[int, int]) -> "Music":
        """All of it on `device` or in this machine's memory, or a pool in its memory.

        Raises StorageError, and TrainingError when not even a pool fits.
        """
        rooms = [piece.room for piece in self.pieces]
        size = sum(rooms) * _BYTES
        if size > max(budget.memory, budget.gpu):
            return Pool(self.pieces, budget.memory, seed)
        waveforms = Waveforms(rooms, device if size <= budget.gpu else torch.device("cpu"))
        for number, region in enumerate(_loaded(self.pieces)):
            waveforms.put(number, region)
        waveforms.arrange()
        return waveforms


class Pool:
    """Music that does not fit: some pieces, the oldest of which is replaced every few steps.

    What it holds at a step depends on the seed, the size and the step alone.
    """

    def __init__(self, pieces: list[Piece], budget: int, seed: tuple[int, int]) -> None:
        """Raises TrainingError when `budget`, in bytes, is too little."""
        largest = max(piece.room for piece in pieces)
        self.slots = budget // (largest * _BYTES) - _IN_FLIGHT
        if self.slots < 1:
            least = (_IN_FLIGHT + 1) * largest * _BYTES / 1e9
            raise TrainingError(
                f"{budget / 1e9:.2f} GB for music are too little: at least {least:.2f} are needed"
            )
        order = np.random.default_rng(seed).permutation(len(pieces))
        self._pieces = [pieces[number] for number in order]
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
        places = [place for place in range(first, first + self.slots) if place not in held]
        self._first = -1  # until all are there
        for place, region in zip(places, self._regions(places)):
            self._waveforms.put(place % self.slots, region)
        self._waveforms.arrange()
        self._first, coming = first, first + self.slots
        self._next = coming, self._loader.submit(self._piece(coming).load)
        return self._waveforms

    def _regions(self, places: list[int]) -> Iterable[Region]:
        if self._next and places == [self._next[0]]:
            return [self._next[1].result()]
        return _loaded([self._piece(place) for place in places])

    def _piece(self, place: int) -> Piece:
        return self._pieces[place % len(self._pieces)]

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


def _loaded(pieces: list[Piece]) -> Iterator[Region]:
    """Read a few pieces at a time."""
    with ThreadPoolExecutor(_IN_FLIGHT - 1) as threads:
        waiting = iter(pieces)
        coming = [threads.submit(piece.load) for piece in islice(waiting, _IN_FLIGHT - 1)]
        while coming:
            yield coming.pop(0).result()
            coming += [threads.submit(piece.load) for piece in islice(waiting, 1)]


def _free_on(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def _free_memory() -> int:
    """Of this machine, or of the container in which we are."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":") for line in file)
    free = int(fields["MemAvailable"].split()[0]) << 10
    try:
        with (
            open("/sys/fs/cgroup/memory.max") as limit,
            open("/sys/fs/cgroup/memory.current") as used,
        ):
            return min(free, max(0, int(limit.read()) - int(used.read())))
    except (OSError, ValueError):  # no container, or no limit ("max")
        return free
