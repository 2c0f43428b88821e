"""Many recordings in one tensor, from which windows are cut without a loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from grafp.audio import SILENCE_PEAK
from grafp.model.fingerprint import SEGMENT_SAMPLES
from grafp.training.augment import FUTURE_SAMPLES, PAST_SAMPLES

_BLOCK = SEGMENT_SAMPLES // 10  # what is silent is known per block
_MIN_PEAK = round(10 * SILENCE_PEAK * 32768)  # a fading tail teaches nothing
assert FUTURE_SAMPLES <= PAST_SAMPLES  # the zeros before a recording also serve the one before it


def room(lengths: np.ndarray) -> int:
    """Samples that recordings of these lengths take together, zeros around them included."""
    samples = int(lengths.sum()) + PAST_SAMPLES * (len(lengths) + 1)
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
        sound_S = np.zeros(room(lengths_T), np.int16)
        for start, recording_S in zip(starts_T, recordings):
            sound_S[start : start + len(recording_S)] = recording_S
        blocks_BS = sound_S.reshape(-1, _BLOCK)
        loud_B = (blocks_BS.max(axis=1) > _MIN_PEAK) | (blocks_BS.min(axis=1) < -_MIN_PEAK)
        return cls(sound_S, loud_B, starts_T, lengths_T, groups_T)


class Waveforms:
    """int16 recordings end to end on one device, PAST_SAMPLES of silence around each.

    It consists of regions, which can be replaced.
    """

    def __init__(self, rooms: Sequence[int], device: torch.device) -> None:
        """`rooms`: samples of each region, see `room`."""
        self._begin_R = np.cumsum([0, *rooms])
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
        """Fill a region, or replace what was there; it shows after `arrange`."""
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

    def at(self, step: int) -> "Waveforms":  # noqa: ARG002 - see Pool
        return self

    @property
    def fewest_groups(self) -> int:
        return len(self.first_G)

    def loud(self, start: np.ndarray) -> np.ndarray:
        """Whether seconds that start at these samples of `pcm_S` can be heard."""
        within = -(-start // _BLOCK)[..., None] + np.arange(SEGMENT_SAMPLES // _BLOCK - 1)
        return np.any(self._loud_B[within], axis=-1)

    def windows(self, start_B: np.ndarray, samples: int) -> torch.Tensor:
        """int16 (batch, samples) from these samples of `pcm_S` on."""
        start = torch.from_numpy(start_B).to(self.pcm_S.device)
        return self.pcm_S.unfold(0, samples, 1)[start]
