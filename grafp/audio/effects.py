"""What loudspeakers, microphones and low-rate codecs do to sound; none moves it in time."""

import os
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import torch
import torch.nn.functional as F

from grafp.audio import SAMPLE_RATE, SILENCE_PEAK, decode, encode
from grafp.errors import TrainingError

BANDS = 10
_LOWEST_BAND_HZ, _HIGHEST_BAND_HZ = 60.0, 8000.0
# A response rings for less than this before and after: it does not wrap round into the clip.
_RING_SAMPLES = 4000


def respond(
    clips_BS: torch.Tensor,
    band_db_BN: torch.Tensor,
    low_cut_hz_B1: torch.Tensor,
    high_cut_hz_B1: torch.Tensor,
) -> torch.Tensor:
    """Clips through a smooth frequency response without phase: nothing moves in time.

    Args:
        clips_BS: float32 (batch, samples).
        band_db_BN: gains in dB at log-spaced frequencies of 60 to 8000 Hz, (batch, BANDS).
        low_cut_hz_B1: below, the response falls by 12 dB an octave, as of a small speaker.
        high_cut_hz_B1: above, it falls by 24 dB an octave.

    Returns float32 (batch, samples).
    """
    samples, device = clips_BS.shape[1], clips_BS.device
    length = samples + _RING_SAMPLES
    frequency_F = torch.fft.rfftfreq(length, 1 / SAMPLE_RATE, device=device).clamp_min(1.0)
    octave_F = (frequency_F / _LOWEST_BAND_HZ).log2()
    octaves = float(np.log2(_HIGHEST_BAND_HZ / _LOWEST_BAND_HZ))
    position_F = (octave_F / octaves).clamp(0, 1) * (BANDS - 1)
    below_F = position_F.long().clamp_max(BANDS - 2)
    band_db_BN = band_db_BN.to(device)
    gain_db_BF = torch.lerp(
        band_db_BN[:, below_F], band_db_BN[:, below_F + 1], (position_F - below_F)[None]
    )
    gain_BF = 10.0 ** (gain_db_BF / 20.0)
    gain_BF /= (1 + (low_cut_hz_B1.to(device) / frequency_F) ** 4).sqrt()
    gain_BF /= (1 + (frequency_F / high_cut_hz_B1.to(device)) ** 8).sqrt()
    heard_BS: torch.Tensor = torch.fft.irfft(torch.fft.rfft(clips_BS, length) * gain_BF, length)
    return heard_BS[:, :samples]


def overdrive(
    clips_BS: torch.Tensor, above_db_B1: torch.Tensor, soft_B1: torch.Tensor
) -> torch.Tensor:
    """Clips whose loudest sample would be so many dB above full scale, cut off there.

    `soft_B1`, bool: bent as by a small amplifier instead of cut. Returns samples in -1..1.
    """
    peak_B1 = clips_BS.abs().amax(dim=1, keepdim=True).clamp_min(SILENCE_PEAK)
    driven_BS = clips_BS / peak_B1 * 10.0 ** (above_db_B1.to(clips_BS.device) / 20.0)
    return torch.where(soft_B1.to(clips_BS.device), driven_BS.tanh(), driven_BS.clamp(-1, 1))


class Codecs:
    """mp3 and Opus at low rates, there and back.

    They are FFmpeg's, which knows no GPU: clips travel to the CPU, where a few threads
    share them, and back. The cost grows with the share of clips that are encoded.
    """

    NAMES = ("mp3", "opus")

    def __init__(self) -> None:
        """Raises TrainingError where this PyAV cannot encode one of the two."""
        for encoder in ("libmp3lame", "libopus"):
            if encoder not in av.codecs_available:
                raise TrainingError(
                    f"codec: this PyAV has no encoder {encoder}; "
                    "install PyAV's own wheel, or train with codec=0"
                )
        self.pool = ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))))

    def __call__(
        self, clips_BS: torch.Tensor, name_B: list[str], kbps_B: list[float]
    ) -> torch.Tensor:
        """Clips encoded with a codec each and decoded, in place in time and as long as given."""
        peak_B1 = clips_BS.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
        sound_BS = (clips_BS / peak_B1).cpu().numpy()
        rows = list(self.pool.map(_there_and_back, sound_BS, name_B, kbps_B))
        return torch.from_numpy(np.stack(rows)).to(clips_BS.device) * peak_B1


def _there_and_back(sound_S: np.ndarray, name: str, kbps: float) -> np.ndarray:
    # FFmpeg's containers keep the delay of the encoder, and its decoder takes it off.
    data = encode(sound_S, name, bit_rate=round(1000 * kbps))
    heard_S = torch.from_numpy(decode(data, min_seconds=0.0, allow_silent=True))[: len(sound_S)]
    return F.pad(heard_S, (0, len(sound_S) - len(heard_S))).numpy()
