"""Background noise on one device, and mixing it in at a ratio."""

import torch

from grafp.fingerprint import SEGMENT_SAMPLES

_SHORTEST = SEGMENT_SAMPLES // 4  # repeated more often, a noise would be a rhythm


class Noises:
    """Noises as one flat int16 tensor, of which a batch of excerpts is one gather."""

    def __init__(self, noises: list[torch.Tensor], device: torch.device) -> None:
        """`noises`: int16 or float waveforms at 16 kHz; those under 0.25 s are left out."""
        pcm = [_to_pcm(noise) for noise in noises if len(noise) >= _SHORTEST]
        self.pcm_S = torch.cat([torch.zeros(0, dtype=torch.int16), *pcm]).to(device)
        self.lengths_N = torch.tensor([len(noise) for noise in pcm], dtype=torch.int64)
        self.starts_N = self.lengths_N.cumsum(0) - self.lengths_N

    def __len__(self) -> int:
        return len(self.lengths_N)

    def excerpts(self, count: int, samples: int, random: torch.Generator) -> torch.Tensor:
        """Excerpts of random noises, float32 (count, samples); a short noise is repeated."""
        number_B = torch.randint(len(self), (count,), generator=random)
        length_B, start_B = self.lengths_N[number_B], self.starts_N[number_B]
        places_B = (length_B - samples + 1).clamp_min(1)
        # float64: float32 does not know every sample of more than 17 minutes
        start_B += (torch.rand(count, generator=random, dtype=torch.float64) * places_B).long()
        within_BS = torch.arange(samples)[None] % length_B[:, None]
        return to_float(self.pcm_S[(start_B[:, None] + within_BS).to(self.pcm_S.device)])


def _to_pcm(sound_S: torch.Tensor) -> torch.Tensor:
    if sound_S.dtype == torch.int16:
        return sound_S
    return (sound_S.float().clamp(-1, 1) * 32767).round().to(torch.int16)


def to_float(pcm: torch.Tensor) -> torch.Tensor:
    """int16 samples to float32 in -1..1; float samples pass."""
    return pcm * (1 / 32768) if pcm.dtype == torch.int16 else pcm.float()  # in one pass


def add_at_snr(
    clips_BS: torch.Tensor,
    noise_BS: torch.Tensor,
    snr_db_B1: torch.Tensor,
    signal_B1: torch.Tensor | None = None,
    measured: slice = slice(None),
) -> torch.Tensor:
    """Mix noise into clips at a ratio in dB between RMS levels; silent noise adds nothing.

    `signal_B1` is the level that the ratio refers to; by default each clip's own. `measured` are
    the samples that levels are taken of.
    """
    if signal_B1 is None:
        signal_B1 = _rms(clips_BS[:, measured])
    level_B1 = _rms(noise_BS[:, measured]).clamp_min(1e-7)
    gain_B1 = signal_B1 / level_B1 * 10.0 ** (-snr_db_B1.to(clips_BS.device) / 20.0)
    return clips_BS + noise_BS * gain_B1


def _rms(sound_BS: torch.Tensor) -> torch.Tensor:
    return sound_BS.square().mean(dim=1, keepdim=True).sqrt()
