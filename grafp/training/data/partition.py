"""A worker's share of the music: which recordings of which shards, and where they fit.

Before: prepare.py, whose table says what is decoded and in which shard.
After: buffer.py, which holds the share in memory, whole or a few shards at a time.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from grafp import storage
from grafp.errors import TrainingError
from grafp.storage.records import read_record
from grafp.training.data.buffer import SAMPLE_BYTES, Music, Piece, Pool, Waveforms, load_all
from grafp.training.data.prepare import Collected


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

        Raises StorageError, and TrainingError when the record is damaged.
        """
        record = storage.join(out, "memory", f"{rank}-of-{world}.json")
        if storage.stat(record) is not None:
            return read_record(record, cls, TrainingError)
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
    """The training recordings of one rank: whole groups, which no other rank has."""

    pieces: list[Piece]
    fewest_groups: int
    """Groups of the rank that has the fewest."""

    @classmethod
    def of(cls, collected: Collected, rank: int, world: int) -> "Share":
        """The share of `rank` among `world` workers. Raises StorageError."""
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

    def load(self, budget: Budget, device: torch.device, seed: tuple[int, int]) -> Music:
        """All of it on `device` or in this machine's memory, or a pool in its memory.

        Raises StorageError, and TrainingError when not even a pool fits.
        """
        sizes = [piece.size for piece in self.pieces]
        needed = sum(sizes) * SAMPLE_BYTES
        if needed > max(budget.memory, budget.gpu):
            return Pool(self.pieces, budget.memory, seed)
        waveforms = Waveforms(sizes, device if needed <= budget.gpu else torch.device("cpu"))
        for number, region in enumerate(load_all(self.pieces)):
            waveforms.put(number, region)
        waveforms.arrange()
        return waveforms


def _free_on(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def _free_memory() -> int:
    """Of this machine, or of the container that this process runs in; bytes."""
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
