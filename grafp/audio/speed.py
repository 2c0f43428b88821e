"""Music played a little too fast or too slow, or at another pitch; on any device, batched."""

import math

import torch
import torch.nn.functional as F
import torchaudio

_TAPS, _ORDER = 64, 5
_WIDTH = 0.95  # of the band that passes; what is left is the filter's slope
_FFT, _HOP = 512, 128  # twice as long, beats would be blurred by 10 ms


def change_speed(clips_BS: torch.Tensor, rate_B1: torch.Tensor, center: float) -> torch.Tensor:
    """Clips at other speeds, tempo and pitch together, as of a turntable.

    Args:
        clips_BS: float32 (batch, samples).
        rate_B1: speed of each clip; 1.03 is 3 % faster.
        center: the sample that stays in place. Where a clip has no more sound, its edge is
            repeated.

    Returns float32 (batch, samples).
    """
    rate_B1 = rate_B1.to(clips_BS.device, torch.float64)
    time_S = torch.arange(clips_BS.shape[1], device=clips_BS.device, dtype=torch.float64)
    position_BS = center + (time_S - center) * rate_B1
    return _read(clips_BS, position_BS, _WIDTH / max(1.0, float(rate_B1.max())))


def change_pitch(clips_BS: torch.Tensor, semitones: float) -> torch.Tensor:
    """Clips at another pitch and the same tempo; sounds stay in place.

    A phase vocoder makes them longer or shorter, and another speed takes that back. It blurs what
    is sudden by about 3 ms, without a direction.
    Takes and returns float32 (batch, samples), of at least 512 samples.
    """
    rate, device = 2.0 ** (semitones / 12), clips_BS.device
    window = torch.hann_window(_FFT, device=device)
    spectra_BFT = torch.stft(clips_BS, _FFT, _HOP, window=window, return_complex=True)
    advance_F1 = torch.linspace(0, math.pi * _HOP, _FFT // 2 + 1, device=device)[:, None]
    slow_BFT = torchaudio.functional.phase_vocoder(spectra_BFT, 1 / rate, advance_F1)
    slow_BS = torch.istft(slow_BFT, _FFT, _HOP, window=window)
    time_S = torch.arange(clips_BS.shape[1], device=device, dtype=torch.float64)
    return _read(slow_BS, (time_S * rate).expand(len(clips_BS), -1), _WIDTH / max(1.0, rate))


def _read(sound_BS: torch.Tensor, position_BS: torch.Tensor, width: float) -> torch.Tensor:
    """Sound between its samples: a windowed sinc whose taps are polynomials of the fraction.

    (Farrow, 1988: each power of the fraction has its own filter, so 5 filters and 5 look-ups
    stand for 64 taps at each position.) `width` is the share of the band that passes.
    """
    position_BS = position_BS.clamp(0, sound_BS.shape[1] - 1)
    before_BS = position_BS.floor()
    fraction_BS = (position_BS - before_BS - 0.5).float()
    padded_B1S = F.pad(sound_BS[:, None], (_TAPS // 2 - 1, _TAPS // 2), mode="replicate")
    filters_P1K = _filters(width).to(sound_BS)[:, None]
    powers_BPS = F.conv1d(padded_B1S, filters_P1K)
    index_BS = before_BS.long()
    heard_BS = torch.zeros_like(fraction_BS)
    for power in reversed(range(_ORDER)):
        heard_BS = heard_BS * fraction_BS + powers_BPS[:, power].gather(1, index_BS)
    return heard_BS


def _filters(width: float) -> torch.Tensor:
    """Taps for each power of (fraction - 0.5), fitted to a Kaiser-windowed sinc, (5, 64)."""
    fraction_A1 = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None]
    tap_K = torch.arange(1 - _TAPS // 2, _TAPS // 2 + 1, dtype=torch.float64)
    away_AK = tap_K - fraction_A1
    beta = torch.tensor(7.0, dtype=torch.float64)
    inside_AK = (1 - (away_AK / (_TAPS / 2)) ** 2).clamp_min(0).sqrt()
    taps_AK = torch.sinc(width * away_AK) * torch.special.i0(beta * inside_AK)
    taps_AK /= taps_AK.sum(dim=1, keepdim=True)
    powers_AP = (fraction_A1 - 0.5) ** torch.arange(_ORDER)
    filters_PK: torch.Tensor = torch.linalg.lstsq(powers_AP, taps_AK).solution
    return filters_PK
