"""One second of audio to a log-mel spectrogram (paper, section II-A and Table I).

A spectrogram is computed from the segment's own 16,000 samples and nothing else: no padding
and no frames shared with neighbors, so training and indexing see the same numbers.
"""

from functools import cache

import torch
import torchaudio

from grafp.audio import SAMPLE_RATE, SILENCE_PEAK
from grafp.model import spectrogram
from grafp.model.fingerprint import SEGMENT_SAMPLES

_RANGE_DB = 60.0  # below the segment's loudest point; noise hides what is fainter
# A CPU's caches hold the spectra of so many segments: two to three times faster.
_AT_ONCE = 16


@cache
def _mel_transform(name: str, device: torch.device) -> torchaudio.transforms.MelSpectrogram:
    sizes = spectrogram.SPECTROGRAMS[name]
    return torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE,
        n_fft=sizes.window,
        hop_length=sizes.hop,
        n_mels=sizes.mels,
        f_min=50.0,
        f_max=SAMPLE_RATE / 2,
        center=False,
    ).to(device)


def log_mel(segments_BS: torch.Tensor, name: str = spectrogram.DEFAULT.name) -> torch.Tensor:
    """Log-mel spectrograms of segments.

    Args:
        segments_BS: float32 of shape (batch, 16000), 1 s each.
        name: one of `SPECTROGRAMS`.

    Returns:
        float32 of shape (batch, mels, frames), (batch, 64, 32) by default, each from 0 (60 dB below
        the segment's peak) to 1, so loudness does not matter. A silent segment gives zeros, see
        `is_silent`.

    Raises:
        ValueError: the segments are not 16,000 samples long.
    """
    if segments_BS.ndim != 2 or segments_BS.shape[1] != SEGMENT_SAMPLES:
        raise ValueError(f"segments of {SEGMENT_SAMPLES} samples wanted, not {segments_BS.shape}")
    if segments_BS.device.type == "cpu" and len(segments_BS) > _AT_ONCE:
        return torch.cat([log_mel(part_BS, name) for part_BS in segments_BS.split(_AT_ONCE)])
    power_BFT = _mel_transform(name, segments_BS.device)(segments_BS.float())
    level_BFT = 10.0 * torch.log10(power_BFT.clamp_min(1e-10))
    peak_B11 = level_BFT.amax(dim=(1, 2), keepdim=True)
    scaled_BFT = ((level_BFT - peak_B11) / _RANGE_DB + 1.0).clamp_min(0.0)
    return scaled_BFT.masked_fill(is_silent(segments_BS)[:, None, None], 0.0)


def is_silent(segments_BS: torch.Tensor) -> torch.Tensor:
    """Bool of shape (batch,): the segment never rises above -80 dB of full scale."""
    return segments_BS.abs().amax(dim=1) < SILENCE_PEAK
