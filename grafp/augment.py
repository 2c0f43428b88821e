"""What happens to music on its way to a microphone, batched (paper, section III-C).

Order: reverberation first, then background noise at a signal-to-noise ratio measured on the
second of audio that is kept, because the noise of a place does not pass through the speaker.
"""

from dataclasses import dataclass

import torch

from grafp.fingerprint import SEGMENT_SAMPLES

PAST_SAMPLES = SEGMENT_SAMPLES  # music before the segment whose reverberation reaches into it
FUTURE_SAMPLES = 800  # what a speed change needs after the segment
_ROOM_SAMPLES = SEGMENT_SAMPLES
_FFT_SAMPLES = 48_000  # holds past, segment and room without wrapping round


@dataclass(frozen=True)
class AugmentConfig:
    """How often and how strongly; probabilities are per clip."""

    reverb: float = 0.75
    """Probability of a room."""
    dry_past: float = 0.3
    """Probability that a reverberant clip starts from silence, as one cut before it was played."""
    noise: float = 0.97
    """Probability of background noise."""
    second_noise: float = 0.3
    """Probability that the noise is two recordings mixed."""
    music_noise: float = 0.15
    """Probability that other music, backwards, is the noise: it moves as voices do."""
    snr_db: tuple[float, float] = (-4.0, 18.0)
    """Range of the signal-to-noise ratio, uniform, dB."""


class Augmenter:
    """Degrades batches of clips with a set of noises and rooms held on one device."""

    def __init__(
        self,
        noises: list[torch.Tensor],
        rooms: list[torch.Tensor],
        config: AugmentConfig,
        device: torch.device,
    ) -> None:
        """`noises` and `rooms`: int16 or float waveforms at 16 kHz; either list may be empty."""
        self.config = config
        self.device = device
        self.noises = [noise for noise in noises if len(noise) >= SEGMENT_SAMPLES // 4]
        self.room_spectra_RF = _room_spectra(rooms).to(device)

    def __call__(self, clips_BS: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Degrade clips of one second of past and one second to keep.

        Args:
            clips_BS: float32 (batch, 32000).
            random: a CPU generator; the same state gives the same result.

        Returns float32 (batch, 16000).
        """
        clips_BS = clips_BS.to(self.device)
        kept_BS = clips_BS[:, PAST_SAMPLES : PAST_SAMPLES + SEGMENT_SAMPLES]
        if len(self.room_spectra_RF):
            wet_BS = self._reverberate(clips_BS, random)
            kept_BS = torch.where(
                self._chance(self.config.reverb, clips_BS, random), wet_BS, kept_BS
            )
        if self.noises:
            loud_BS = add_at_snr(kept_BS, *self._noise(kept_BS, random))
            kept_BS = torch.where(
                self._chance(self.config.noise, kept_BS, random), loud_BS, kept_BS
            )
        return kept_BS

    def _chance(
        self, probability: float, batch_B: torch.Tensor, random: torch.Generator
    ) -> torch.Tensor:
        return (torch.rand(len(batch_B), 1, generator=random) < probability).to(self.device)

    def _reverberate(self, clips_BS: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        dry = self._chance(self.config.dry_past, clips_BS, random)
        clips_BS = clips_BS.clone()
        clips_BS[:, :PAST_SAMPLES].masked_fill_(dry, 0.0)
        room_B = torch.randint(len(self.room_spectra_RF), (len(clips_BS),), generator=random)
        spectra_BF = torch.fft.rfft(clips_BS, _FFT_SAMPLES)
        wet_BS = torch.fft.irfft(
            spectra_BF * self.room_spectra_RF[room_B.to(self.device)], _FFT_SAMPLES
        )
        return wet_BS[:, PAST_SAMPLES : PAST_SAMPLES + SEGMENT_SAMPLES]

    def _noise(
        self, kept_BS: torch.Tensor, random: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A noise for each clip, and the ratio in dB at which to add it."""
        batch = len(kept_BS)
        noise_BS = self._excerpts(batch, random)
        both_BS = add_at_snr(noise_BS, self._excerpts(batch, random), torch.zeros(batch, 1))
        noise_BS = torch.where(
            self._chance(self.config.second_noise, noise_BS, random), both_BS, noise_BS
        )
        other_BS = kept_BS.flip(dims=(0, 1))
        noise_BS = torch.where(
            self._chance(self.config.music_noise, noise_BS, random), other_BS, noise_BS
        )
        low, high = self.config.snr_db
        return noise_BS, low + (high - low) * torch.rand(batch, 1, generator=random)

    def _excerpts(self, batch: int, random: torch.Generator) -> torch.Tensor:
        rows = []
        for number in torch.randint(len(self.noises), (batch,), generator=random).tolist():
            noise = self.noises[number]
            start = int(
                torch.randint(max(1, len(noise) - SEGMENT_SAMPLES + 1), (1,), generator=random)
            )
            row = noise[start : start + SEGMENT_SAMPLES]
            repeats = -(-SEGMENT_SAMPLES // len(row))
            rows.append(row.repeat(repeats)[:SEGMENT_SAMPLES])
        return to_float(torch.stack(rows)).to(self.device)


def to_float(pcm: torch.Tensor) -> torch.Tensor:
    """int16 samples to float32 in -1..1; float samples pass."""
    return pcm.float() / 32768.0 if pcm.dtype == torch.int16 else pcm.float()


def add_at_snr(
    clips_BS: torch.Tensor,
    noise_BS: torch.Tensor,
    snr_db_B1: torch.Tensor,
    signal_B1: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mix noise into clips at a ratio in dB between RMS levels; silent noise adds nothing.

    `signal_B1` is the level that the ratio refers to; by default each clip's own.
    """
    if signal_B1 is None:
        signal_B1 = clips_BS.square().mean(dim=1, keepdim=True).sqrt()
    level_B1 = noise_BS.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-7)
    gain_B1 = signal_B1 / level_B1 * 10.0 ** (-snr_db_B1.to(clips_BS.device) / 20.0)
    return clips_BS + noise_BS * gain_B1


def direct_first(room_S: torch.Tensor) -> torch.Tensor:
    """An impulse response from its direct sound on, at unit energy, float32.

    The travel time of the direct sound would move every answer by as much. The direct sound is
    the first sample within 10 dB of the loudest: a reflection can be louder.
    """
    room_S = to_float(room_S)
    level_S = room_S.abs()
    room_S = room_S[int((level_S >= 0.316 * level_S.max()).nonzero()[0]) :]
    return room_S / room_S.square().sum().sqrt().clamp_min(1e-9)


def _room_spectra(rooms: list[torch.Tensor]) -> torch.Tensor:
    if not rooms:  # an FFT refuses an empty batch
        return torch.zeros(0, _FFT_SAMPLES // 2 + 1, dtype=torch.complex64)
    padded_RS = torch.zeros(len(rooms), _ROOM_SAMPLES)
    for row_S, room in zip(padded_RS, rooms):
        room_S = direct_first(room)[:_ROOM_SAMPLES]
        row_S[: len(room_S)] = room_S
    return torch.fft.rfft(padded_RS, _FFT_SAMPLES)
