"""Background noise and impulse responses on one device, and mixing sound at a ratio, batched."""

import torch

from grafp.audio.encoding import to_pcm
from grafp.audio.formats import SAMPLE_RATE

_SHORTEST = SAMPLE_RATE // 4  # repeated more often, a noise would be a rhythm
_RIR_SAMPLES = SAMPLE_RATE
_FFT_SAMPLES = 3 * SAMPLE_RATE  # holds past, segment and response without wrapping around


class Noises:
    """Noises as one flat int16 tensor, of which a batch of excerpts is one gather."""

    def __init__(self, noises: list[torch.Tensor], device: torch.device) -> None:
        """`noises`: int16 or float waveforms at 16 kHz; those under 0.25 s are left out."""
        pcm = [
            noise if noise.dtype == torch.int16 else torch.from_numpy(to_pcm(noise.float().numpy()))
            for noise in noises
            if len(noise) >= _SHORTEST
        ]
        self.pcm_S = torch.cat([torch.zeros(0, dtype=torch.int16), *pcm]).to(device)
        self.lengths_N = torch.tensor([len(noise) for noise in pcm], dtype=torch.int64)
        self.starts_N = self.lengths_N.cumsum(0) - self.lengths_N

    def __len__(self) -> int:
        return len(self.lengths_N)

    def excerpts(self, count: int, samples: int, random: torch.Generator) -> torch.Tensor:
        """Excerpts of random noises, float32 (count, samples); a short noise is repeated."""
        number_B = torch.randint(len(self), (count,), generator=random)
        length_B, start_B = self.lengths_N[number_B], self.starts_N[number_B]
        starts_B = (length_B - samples + 1).clamp_min(1)
        # float64: float32 does not know every sample of more than 17 minutes
        start_B += (torch.rand(count, generator=random, dtype=torch.float64) * starts_B).long()
        within_BS = torch.arange(samples)[None] % length_B[:, None]
        return to_float(self.pcm_S[(start_B[:, None] + within_BS).to(self.pcm_S.device)])


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


class ImpulseResponses:
    """The first second of each room impulse response (RIR), held as spectra on one device."""

    def __init__(self, rirs: list[torch.Tensor], device: torch.device) -> None:
        """`rirs`: int16 or float impulse responses at 16 kHz."""
        padded_RS = torch.zeros(len(rirs), _RIR_SAMPLES)
        for row_S, rir in zip(padded_RS, rirs):
            rir_S = direct_first(rir)[:_RIR_SAMPLES]
            row_S[: len(rir_S)] = rir_S
        self.spectra_RF = torch.zeros(0)  # an FFT refuses an empty batch
        if rirs:
            self.spectra_RF = torch.fft.rfft(padded_RS, _FFT_SAMPLES).to(device)

    def __len__(self) -> int:
        return len(self.spectra_RF)

    def convolve(self, clips_BS: torch.Tensor, number_B: torch.Tensor) -> torch.Tensor:
        """Clips of at most two seconds, each convolved with the response of its number.

        Returns float32 of the shape of `clips_BS`.
        """
        spectra_BF = torch.fft.rfft(clips_BS, _FFT_SAMPLES)
        wet_BS: torch.Tensor = torch.fft.irfft(
            spectra_BF * self.spectra_RF[number_B.to(clips_BS.device)], _FFT_SAMPLES
        )
        return wet_BS[:, : clips_BS.shape[1]]


def direct_first(rir_S: torch.Tensor) -> torch.Tensor:
    """An impulse response from its direct sound on, at unit energy, float32.

    The travel time of the direct sound would shift every answer by as much. The direct sound is
    the first sample within 10 dB of the loudest: a reflection can be louder.
    """
    rir_S = to_float(rir_S)
    level_S = rir_S.abs()
    rir_S = rir_S[int((level_S >= 0.316 * level_S.max()).nonzero()[0]) :]
    return rir_S / rir_S.square().sum().sqrt().clamp_min(1e-9)
