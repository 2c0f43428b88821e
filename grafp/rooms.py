"""Reverberation: linear convolution with measured impulse responses, batched."""

import torch

from grafp.fingerprint import SEGMENT_SAMPLES
from grafp.noises import to_float

_ROOM_SAMPLES = SEGMENT_SAMPLES
_FFT_SAMPLES = 48_000  # holds past, segment and room without wrapping round


class Rooms:
    """The first second of each room, held as spectra on one device."""

    def __init__(self, rooms: list[torch.Tensor], device: torch.device) -> None:
        """`rooms`: int16 or float impulse responses at 16 kHz."""
        padded_RS = torch.zeros(len(rooms), _ROOM_SAMPLES)
        for row_S, room in zip(padded_RS, rooms):
            room_S = direct_first(room)[:_ROOM_SAMPLES]
            row_S[: len(room_S)] = room_S
        self.spectra_RF = torch.zeros(0)  # an FFT refuses an empty batch
        if rooms:
            self.spectra_RF = torch.fft.rfft(padded_RS, _FFT_SAMPLES).to(device)

    def __len__(self) -> int:
        return len(self.spectra_RF)

    def play(self, clips_BS: torch.Tensor, room_B: torch.Tensor) -> torch.Tensor:
        """Clips of at most two seconds as heard in the rooms of these numbers, as long as given."""
        spectra_BF = torch.fft.rfft(clips_BS, _FFT_SAMPLES)
        wet_BS = torch.fft.irfft(
            spectra_BF * self.spectra_RF[room_B.to(clips_BS.device)], _FFT_SAMPLES
        )
        return wet_BS[:, : clips_BS.shape[1]]


def direct_first(room_S: torch.Tensor) -> torch.Tensor:
    """An impulse response from its direct sound on, at unit energy, float32.

    The travel time of the direct sound would move every answer by as much. The direct sound is
    the first sample within 10 dB of the loudest: a reflection can be louder.
    """
    room_S = to_float(room_S)
    level_S = room_S.abs()
    room_S = room_S[int((level_S >= 0.316 * level_S.max()).nonzero()[0]) :]
    return room_S / room_S.square().sum().sqrt().clamp_min(1e-9)
