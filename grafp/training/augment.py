"""What happens to music on its way to a fingerprint, batched (paper, section III-C).

    speed, pitch            of the music as it is played
    loudspeaker
    reverberation, noise    in this order, because background noise does not pass through the
                            speaker; or in the opposite order
    microphone, overdrive, codec
    masks                   on the spectrogram

Only reverberation and noise happen by default. None moves the music in time, since answers are
scored by the position of a clip.
"""

from collections.abc import Callable

import torch

from grafp.audio.effects import BANDS, Codecs, overdrive, respond
from grafp.audio.mixing import ImpulseResponses, Noises, add_at_snr, to_float
from grafp.audio.speed import change_pitch, change_speed
from grafp.model.fingerprint import SEGMENT_SAMPLES
from grafp.training.config import AugmentConfig, Range

PAST_SAMPLES = SEGMENT_SAMPLES  # music before the segment whose reverberation reaches into it
FUTURE_SAMPLES = 800  # music after it, of which a faster one has more in a second
_END = PAST_SAMPLES + SEGMENT_SAMPLES
_KEPT = slice(-SEGMENT_SAMPLES, None)


class Augmenter:
    """Degrades batches of clips with a set of noises and impulse responses held on one device."""

    def __init__(
        self,
        noises: list[torch.Tensor],
        rirs: list[torch.Tensor],
        config: AugmentConfig,
        device: torch.device,
    ) -> None:
        """`noises` and `rirs`: int16 or float waveforms at 16 kHz; either list may be empty.

        Raises TrainingError when codecs are wanted and not there.
        """
        self.config, self.device = config, device
        self.noises, self.rirs = Noises(noises, device), ImpulseResponses(rirs, device)
        self.codecs = Codecs() if config.codec else None

    def __call__(self, clips_BS: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Degrade clips of one second of past, one second to keep and perhaps some future.

        Args:
            clips_BS: float32 or int16 (batch, 32000) or (batch, 32800).
            random: a CPU generator; the same state gives the same result.

        Returns float32 (batch, 16000). Raises ValueError for clips of another length.
        """
        if clips_BS.shape[1] not in (_END, _END + FUTURE_SAMPLES):
            raise ValueError(f"clips of {_END} or {_END + FUTURE_SAMPLES} samples wanted")
        clips_BS = self._as_played(to_float(clips_BS.to(self.device)), random)
        if self.config.order == "noise-room":
            kept_BS = self._reverberated(self._with_noise(clips_BS, random), random)[:, _KEPT]
        else:
            kept_BS = self._with_noise(self._reverberated(clips_BS, random)[:, _KEPT], random)
        return self._as_recorded(kept_BS, random)

    def mask_(self, mel_BFT: torch.Tensor, random: torch.Generator) -> None:
        """Set random stripes of log-mel spectrograms to 0, their silence, in place."""
        for axis, chance in ((1, self.config.frequency_mask), (2, self.config.time_mask)):
            if not chance:
                continue
            count, size = len(mel_BFT), mel_BFT.shape[axis]
            width_B1 = self._uniform(self.config.mask_percent, count, random) / 100
            start_B1 = (1 - width_B1) * torch.rand(count, 1, generator=random)
            chosen_B1 = torch.rand(count, 1, generator=random) < chance
            middle_N = (torch.arange(size) + 0.5) / size
            inside_BN = chosen_B1 & (middle_N >= start_B1) & (middle_N < start_B1 + width_B1)
            mel_BFT.masked_fill_(inside_BN.unsqueeze(3 - axis).to(mel_BFT.device), 0.0)

    def _as_played(self, clips_BS: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Past and kept second of the music before reverberation, (batch, 32000)."""
        config = self.config

        def turn(rows_BS: torch.Tensor) -> torch.Tensor:
            percent_B1 = self._uniform(config.speed_percent, len(rows_BS), random)
            return change_speed(rows_BS, 1 + percent_B1 / 100, PAST_SAMPLES + SEGMENT_SAMPLES / 2)

        def tune(rows_BS: torch.Tensor) -> torch.Tensor:
            return change_pitch(rows_BS, float(self._uniform(config.pitch_semitones, 1, random)))

        clips_BS = self._some(config.speed, clips_BS, turn, random)
        clips_BS = self._some(config.pitch, clips_BS, tune, random)[:, :_END]
        return self._some(config.loudspeaker, clips_BS, self._device_response(random), random)

    def _as_recorded(self, kept_BS: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        config = self.config

        def drive(rows_BS: torch.Tensor) -> torch.Tensor:
            above_db_B1 = self._uniform(config.drive_db, len(rows_BS), random)
            return overdrive(rows_BS, above_db_B1, self._chance(0.5, rows_BS, random))

        def encode(rows_BS: torch.Tensor) -> torch.Tensor:
            assert self.codecs
            number_B = torch.randint(len(Codecs.NAMES), (len(rows_BS),), generator=random)
            kbps_B1 = self._uniform(config.codec_kbps, len(rows_BS), random)
            names = [Codecs.NAMES[number] for number in number_B.tolist()]
            return self.codecs(rows_BS, names, kbps_B1[:, 0].tolist())

        kept_BS = self._some(config.microphone, kept_BS, self._device_response(random), random)
        kept_BS = self._some(config.drive, kept_BS, drive, random)
        return self._some(config.codec, kept_BS, encode, random)

    def _device_response(self, random: torch.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
        def through(rows_BS: torch.Tensor) -> torch.Tensor:
            count = len(rows_BS)
            return respond(
                rows_BS,
                self._uniform(self.config.response_db, count, random, BANDS),
                self._uniform(self.config.low_cut_hz, count, random),
                self._uniform(self.config.high_cut_hz, count, random),
            )

        return through

    def _some(
        self,
        probability: float,
        clips_BS: torch.Tensor,
        effect: Callable[[torch.Tensor], torch.Tensor],
        random: torch.Generator,
    ) -> torch.Tensor:
        """Clips of which a random share went through an effect; without one, nothing is drawn."""
        if not probability:
            return clips_BS
        chosen_B = self._chance(probability, clips_BS, random)[:, 0]
        if not chosen_B.any():
            return clips_BS
        clips_BS = clips_BS.clone()
        clips_BS[chosen_B] = effect(clips_BS[chosen_B])
        return clips_BS

    def _chance(
        self, probability: float, batch_B: torch.Tensor, random: torch.Generator
    ) -> torch.Tensor:
        return (torch.rand(len(batch_B), 1, generator=random) < probability).to(self.device)

    def _uniform(
        self, ends: Range, count: int, random: torch.Generator, values: int = 1
    ) -> torch.Tensor:
        low, high = ends
        return low + (high - low) * torch.rand(count, values, generator=random)

    def _reverberated(self, clips_BS: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        if not len(self.rirs):
            return clips_BS
        without_past = self._chance(self.config.dry_past, clips_BS, random)
        dry_BS = clips_BS.clone()
        dry_BS[:, :PAST_SAMPLES].masked_fill_(without_past, 0.0)
        number_B = torch.randint(len(self.rirs), (len(clips_BS),), generator=random)
        wet_BS = self.rirs.convolve(dry_BS, number_B)
        return torch.where(self._chance(self.config.reverb, clips_BS, random), wet_BS, clips_BS)

    def _with_noise(self, clips_BS: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        if not len(self.noises):
            return clips_BS
        batch, samples = clips_BS.shape
        noise_BS = self.noises.excerpts(batch, samples, random)
        other_BS = self.noises.excerpts(batch, samples, random)
        both_BS = add_at_snr(noise_BS, other_BS, torch.zeros(batch, 1))
        noise_BS = torch.where(
            self._chance(self.config.second_noise, noise_BS, random), both_BS, noise_BS
        )
        noise_BS = torch.where(
            self._chance(self.config.music_noise, noise_BS, random),
            clips_BS.flip(dims=(0, 1)),
            noise_BS,
        )
        snr_db_B1 = self._uniform(self.config.snr_db, batch, random)
        loud_BS = add_at_snr(clips_BS, noise_BS, snr_db_B1, measured=_KEPT)
        return torch.where(self._chance(self.config.noise, clips_BS, random), loud_BS, clips_BS)
