"""Training music in memory, and batches of positive pairs drawn from it."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from grafp import storage
from grafp.audio import SAMPLE_RATE, SILENCE_PEAK, decode
from grafp.augment import PAST_SAMPLES, to_float
from grafp.collection import Item, list_items
from grafp.errors import AudioError, GrafpError, StorageError, TrainingError
from grafp.fingerprint import SEGMENT_SAMPLES

_MIN_PEAK = 10 * SILENCE_PEAK  # a fading tail teaches nothing


@dataclass(frozen=True)
class PairSampler:
    """Draws anchors and their time-shifted partners.

    `per_track` segments of one track in a batch, close together, are each other's negatives:
    they teach the encoder to tell neighbouring places apart.
    """

    tracks: list[torch.Tensor]
    """int16 waveforms at 16 kHz, each longer than 1 s."""
    pairs: int
    per_track: int = 1
    gap_seconds: tuple[float, float] = (0.1, 1.0)
    """How far apart two segments of one track are."""
    offset_seconds: float = 0.05
    """Largest shift between the two views of a pair, either way."""

    def draw(self, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """One batch: anchors (pairs, 16000), and partners with their past (pairs, 32000)."""
        wanted = -(-self.pairs // self.per_track)
        order = random.permutation(len(self.tracks))
        chosen = np.resize(order, wanted)  # starts over when there are fewer tracks than wanted
        anchors, partners = [], []
        for track in chosen:
            waveform = self.tracks[track]
            for start in self._starts(waveform, random):
                offset = round(random.uniform(-1, 1) * self.offset_seconds * SAMPLE_RATE)
                moved = int(np.clip(start + offset, 0, len(waveform) - SEGMENT_SAMPLES))
                anchors.append(waveform[start : start + SEGMENT_SAMPLES])
                partners.append(_with_past(waveform, moved))
        anchors_BS = torch.stack(anchors[: self.pairs])
        return to_float(anchors_BS), to_float(torch.stack(partners[: self.pairs]))

    def _starts(self, waveform: torch.Tensor, random: np.random.Generator) -> list[int]:
        last = len(waveform) - SEGMENT_SAMPLES
        for _ in range(8):
            start = int(random.integers(last + 1))
            if waveform[start : start + SEGMENT_SAMPLES].abs().max() > _MIN_PEAK * 32768:
                break
        starts = [start]
        for _ in range(self.per_track - 1):
            gap = round(random.uniform(*self.gap_seconds) * SAMPLE_RATE)
            after = starts[-1] + gap
            starts.append(after if after <= last else max(0, start - gap))
        return starts


def _with_past(waveform: torch.Tensor, start: int) -> torch.Tensor:
    """The second at `start` with the second before it, zeros where the track had not begun."""
    before = min(start, PAST_SAMPLES)
    clip = waveform[start - before : start + SEGMENT_SAMPLES]
    return torch.cat([clip.new_zeros(PAST_SAMPLES - before), clip])


@dataclass(frozen=True)
class TrainingSet:
    """Everything a training run hears, as int16 waveforms; validation never meets training."""

    tracks: list[torch.Tensor]
    noises: list[torch.Tensor]
    rooms: list[torch.Tensor]
    validation: "TrainingSet | None"
    description: dict[str, float]
    """What was loaded, for the model card."""

    @classmethod
    def load(
        cls, music: str, noise: str | None, rooms: str | None, say: Callable[[str], None]
    ) -> "TrainingSet":
        """Decode a collection into memory and set a tenth of it apart for validation.

        Each argument is a folder, prefix or table. Of a table with a `split` column, only rows
        marked `train` are used. Rows of one `group` or `room` stay on the same side.

        Raises TrainingError when no music can be used.
        """
        train_music, held_music = _load(music, "music", 1.1, say)
        if not train_music:
            raise TrainingError(f"{music}: no usable music (each track needs at least 1.1 s)")
        train_noise, held_noise = _load(noise, "noise", 0.25, say) if noise else ([], [])
        train_rooms, held_rooms = _load(rooms, "rooms", 0.0, say) if rooms else ([], [])
        description = {
            "tracks": len(train_music),
            "hours": round(sum(map(len, train_music)) / SAMPLE_RATE / 3600, 3),
            "noises": len(train_noise),
            "rooms": len(train_rooms),
            "validation_tracks": len(held_music),
        }
        held = None
        if held_music:  # too few noises or rooms to set some apart: validation shares them
            held = cls(held_music, held_noise or train_noise, held_rooms or train_rooms, None, {})
        return cls(train_music, train_noise, train_rooms, held, description)


def _load(
    uri: str, what: str, min_seconds: float, say: Callable[[str], None]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(training, validation) waveforms of a collection; files that cannot be used are named."""
    items = [i for i in list_items(uri) if i.row.get("split") in (None, "", "train")]
    usable: list[tuple[Item, torch.Tensor]] = []
    with ThreadPoolExecutor(max_workers=2) as pool:  # decoding leaves Python's lock alone
        for item, waveform in zip(items, pool.map(lambda i: _waveform(i, min_seconds), items)):
            if isinstance(waveform, GrafpError):
                say(f"  left out: {item.uri}: {waveform}")
            else:
                usable.append((item, waveform))
    held = _groups_held_out([item for item, _ in usable])
    train = [waveform for item, waveform in usable if _group(item) not in held]
    validation = [waveform for item, waveform in usable if _group(item) in held]
    seconds = sum(len(waveform) for _, waveform in usable) / SAMPLE_RATE
    say(
        f"{what}: {len(train)} for training, {len(validation)} for validation, "
        f"{seconds / 3600:.2f} h"
    )
    return train, validation


def _groups_held_out(items: list[Item]) -> set[str]:
    """Of few groups, the tenth may be none or all: then one of five or more, else none."""
    groups = {_group(item) for item in items}
    held = {_group(item) for item in items if held_out(item)}
    if held and held != groups:
        return held
    return {max(groups)} if len(groups) >= 5 else set()


def _waveform(item: Item, min_seconds: float) -> torch.Tensor | GrafpError:
    try:
        samples_S = decode(storage.read(item.location), min_seconds=min_seconds, allow_silent=False)
    except (AudioError, StorageError) as error:
        return error
    return torch.from_numpy((samples_S.clip(-1, 1) * 32767).round().astype(np.int16))


def held_out(item: Item) -> bool:
    """Whether a recording is for validation: a tenth of all groups, the same in every run."""
    return hashlib.sha256(_group(item).encode()).digest()[0] < 26


def _group(item: Item) -> str:
    return str(item.row.get("group") or item.row.get("room") or item.uri)
