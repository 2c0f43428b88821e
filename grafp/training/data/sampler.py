"""The training set of a worker, and batches of positive pairs drawn from it.

Before: buffer.py, which holds the music in memory.
After: grafp/training/trainer.py, which degrades one view of each pair and takes a step.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch

from grafp import storage
from grafp.audio import SAMPLE_RATE
from grafp.audio.mixing import to_float
from grafp.errors import TrainingError
from grafp.model.fingerprint import SEGMENT_SAMPLES
from grafp.training.augment import FUTURE_SAMPLES, PAST_SAMPLES
from grafp.training.data.buffer import Music, Pool, Waveforms
from grafp.training.data.partition import Budget, Share
from grafp.training.data.pcm import read_pcm
from grafp.training.data.prepare import Collected

logger = logging.getLogger(__name__)

_TRIES = 8  # to find segments that are not silent
_VALIDATION_TRACKS = 500  # each is asked for once


@dataclass(frozen=True)
class PairSampler:
    """Draws anchors and their time-shifted partners, from one recording of a group.

    `per_track` segments of one recording in a batch, close together, are each other's negatives:
    they teach the encoder to tell neighboring segments apart.
    """

    music: Music
    pairs: int
    per_track: int = 1
    gap_seconds: tuple[float, float] = (0.1, 1.0)
    """How far apart two segments of one recording are, less only where it is too short."""
    offset_seconds: float = 0.05
    """Largest shift between the two views of a pair, either way."""
    device: torch.device | None = None
    """Of the batches; None: that of the music."""

    def __post_init__(self) -> None:
        """Raises TrainingError when there are too few groups for a batch."""
        if self.music.fewest_groups < groups_needed(self.pairs, self.per_track):
            there = "--memory-gb holds" if isinstance(self.music, Pool) else "there are"
            raise TrainingError(
                f"{there} {self.music.fewest_groups} groups of music, "
                + advice(self.music.fewest_groups, self.pairs, self.per_track)
            )

    def draw(self, random: np.random.Generator, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of one step.

        Returns float32 anchors (pairs, 16000), and partners with their past and what follows
        (pairs, PAST_SAMPLES + 16000 + FUTURE_SAMPLES).
        """
        music = self.music.at(step)
        recording_G, start_GK = self._segments(music, random)
        recording_B = recording_G.repeat(self.per_track)[: self.pairs]
        start_B = start_GK.reshape(-1)[: self.pairs]
        shift_B = random.uniform(-1, 1, self.pairs) * self.offset_seconds * SAMPLE_RATE
        last_B = music.lengths_T[recording_B] - SEGMENT_SAMPLES
        moved_B = np.clip(start_B + np.rint(shift_B).astype(np.int64), 0, last_B)
        begin_B = music.starts_T[recording_B]
        partner_samples = PAST_SAMPLES + SEGMENT_SAMPLES + FUTURE_SAMPLES
        anchors_BS = music.windows(begin_B + start_B, SEGMENT_SAMPLES)
        partners_BS = music.windows(begin_B + moved_B - PAST_SAMPLES, partner_samples)
        return self._on_device(anchors_BS), self._on_device(partners_BS)

    def _segments(
        self, music: Waveforms, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A recording of each of some groups, (groups,), and starts in it, (groups, per_track)."""
        wanted = groups_needed(self.pairs, self.per_track)
        group_G = random.choice(len(music.first_G), wanted, replace=False)
        recording_G = np.zeros(wanted, np.int64)
        start_GK = np.zeros((wanted, self.per_track), np.int64)
        todo_G = np.arange(wanted)
        for _ in range(_TRIES):
            group_T = group_G[todo_G]
            recording_T = music.first_G[group_T] + random.integers(music.count_G[group_T])
            start_TK = self._starts(music.lengths_T[recording_T], random)
            recording_G[todo_G], start_GK[todo_G] = recording_T, start_TK
            loud_T = music.loud(music.starts_T[recording_T][:, None] + start_TK).all(axis=1)
            todo_G = todo_G[~loud_T]
            if not len(todo_G):
                break
        return recording_G, start_GK

    def _starts(self, lengths_T: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Random starts, (recordings, per_track); gaps shrink where a recording is short."""
        last_T1 = (lengths_T - SEGMENT_SAMPLES)[:, None]
        gap_TK = random.uniform(*self.gap_seconds, (len(lengths_T), self.per_track)) * SAMPLE_RATE
        gap_TK[:, 0] = 0.0
        after_TK = gap_TK.cumsum(axis=1)
        after_TK *= np.minimum(1.0, last_T1 / np.maximum(after_TK[:, -1:], 1.0))
        first_T1 = random.uniform(size=last_T1.shape) * (last_T1 - after_TK[:, -1:] + 1)
        start_TK: np.ndarray = np.minimum(np.floor(first_T1) + np.floor(after_TK), last_T1)
        return start_TK.astype(np.int64)

    def _on_device(self, clips_BS: torch.Tensor) -> torch.Tensor:
        if self.device and self.device.type == "cuda" and clips_BS.device.type == "cpu":
            clips_BS = clips_BS.pin_memory().to(self.device, non_blocking=True)
        return to_float(clips_BS)


def groups_needed(pairs: int, per_track: int) -> int:
    """Groups of music in a batch."""
    return -(-pairs // per_track)


def advice(groups: int, pairs: int, per_track: int) -> str:
    """The end of an error message: what a batch takes, and which options would fit."""
    text = (
        f"and a batch of --pairs {pairs} takes {groups_needed(pairs, per_track)} "
        f"(--per-track {per_track} segments of each)"
    )
    if not groups:
        return f"{text}: give fewer --num-workers"
    return f"{text}: give --pairs {groups * per_track}, or --per-track {-(-pairs // groups)}"


@dataclass(frozen=True)
class Held:
    """What validation uses, as int16 waveforms; no track of it is trained on."""

    tracks: list[torch.Tensor]
    noises: list[torch.Tensor]
    rirs: list[torch.Tensor]

    @classmethod
    def load(cls, collected: dict[str, Collected]) -> "Held | None":
        """None if no track is held out. Raises StorageError."""
        tracks = _load(collected, "music", held=True, most=_VALIDATION_TRACKS)
        if not tracks:
            return None
        # Too few noises or responses to hold some out: validation shares them.
        noises, rirs = (
            _load(collected, what, held=True) or _load(collected, what, held=False)
            for what in ("noise", "rir")
        )
        return cls(tracks, noises, rirs)


@dataclass(frozen=True)
class TrainingSet:
    """What one worker trains on."""

    music: Music
    noises: list[torch.Tensor]
    """int16 waveforms at 16 kHz, like the impulse responses."""
    rirs: list[torch.Tensor]
    validation: Held | None
    """On rank 0, where something is held out."""
    description: dict[str, float]
    """Numbers of recordings for all workers, for the model card."""

    @classmethod
    def open(
        cls,
        collected: dict[str, Collected],
        budget: Budget,
        device: torch.device,
        seed: int,
        rank: int,
        world: int,
    ) -> "TrainingSet":
        """Load a rank's share of the music, all noises and all impulse responses.

        Raises StorageError, and TrainingError when the budget is too little.
        """
        music = Share.of(collected["music"], rank, world).load(budget, device, (seed, rank))
        if isinstance(music, Pool):
            logger.info(f"the music does not fit in memory: {music.slots} shards at a time")
        noises, rirs = (_load(collected, what, held=False) for what in ("noise", "rir"))
        train, held_out = collected["music"].usable()
        description = {
            "tracks": len(train),
            "groups": len(set(train["group"].to_pylist())),
            "hours": round(sum(train["samples"].to_pylist()) / SAMPLE_RATE / 3600, 3),
            "noises": len(noises),
            "rirs": len(rirs),
            "validation_tracks": len(held_out),
        }
        held = Held.load(collected) if rank == 0 else None
        return cls(music, noises, rirs, held, description)


def _load(
    collected: dict[str, Collected], what: str, *, held: bool, most: int | None = None
) -> list[torch.Tensor]:
    """The int16 waveforms of one kind, at most so many: of those held out, or of the others."""
    if what not in collected:
        return []
    table = collected[what].usable()[held].slice(0, most)
    shards: dict[str, list[int]] = {}
    for shard, row in zip(table["shard"].to_pylist(), table["row"].to_pylist()):
        shards.setdefault(shard, []).append(row)
    return [
        torch.from_numpy(sound_S.copy())
        for shard, rows in shards.items()
        for sound_S in read_pcm(storage.join(collected[what].store, shard), np.array(rows))
    ]
