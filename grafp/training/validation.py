"""Hit rate and offset correction of a model, measured on tracks that it is not trained on."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from grafp.audio import SAMPLE_RATE
from grafp.audio.mixing import to_float
from grafp.model.features import log_mel
from grafp.model.fingerprint import SEGMENT_SAMPLES, peak_between
from grafp.model.inference import trusted_dtype
from grafp.model.presets import AnyEncoder
from grafp.training.augment import PAST_SAMPLES, Augmenter

_HOP_SAMPLES = SAMPLE_RATE // 10
_TOLERANCE_SAMPLES = SAMPLE_RATE // 20  # 50 ms, the paper's granularity (section III-E)


@dataclass(frozen=True)
class Validation:
    """Degraded 1 s clips, cut off the grid, and the references to find them in."""

    reference_BS: torch.Tensor
    """int16 segments every 0.1 s, (references, 16000)."""
    position_B: torch.Tensor
    """Start of each reference: track number * 2^32 + sample."""
    query_BS: torch.Tensor
    """float32 degraded clips, (queries, 16000)."""
    truth_B: torch.Tensor
    """Start of each clip, like `position_B`."""

    @classmethod
    def build(
        cls,
        tracks: list[torch.Tensor],
        augmenter: Augmenter,
        *,
        queries: int = 500,
        seconds: float = 30.0,
        seed: int = 1,
    ) -> "Validation":
        """Use the first `seconds` of each int16 track; the same seed gives the same clips."""
        random = np.random.default_rng(seed)
        references, positions, clips, truths = [], [], [], []
        for number, track in enumerate(tracks):
            track = track[: int(seconds * SAMPLE_RATE)]
            windows = track.unfold(0, SEGMENT_SAMPLES, _HOP_SAMPLES)
            references.append(windows)
            positions += [(number << 32) + i * _HOP_SAMPLES for i in range(len(windows))]
            for _ in range(-(-queries // len(tracks))):
                starts = max(1, len(track) - SEGMENT_SAMPLES - PAST_SAMPLES)
                start = int(random.integers(starts))
                clip = track[start : start + PAST_SAMPLES + SEGMENT_SAMPLES]
                # Silence comes before a track of less than two seconds.
                missing = PAST_SAMPLES + SEGMENT_SAMPLES - len(clip)
                clips.append(F.pad(to_float(clip), (missing, 0)))
                truths.append((number << 32) + start + PAST_SAMPLES - missing)
        generator = torch.Generator().manual_seed(seed)
        degraded = [augmenter(part, generator) for part in torch.stack(clips).split(128)]
        return cls(
            torch.cat(references),
            torch.tensor(positions),
            torch.cat(degraded),
            torch.tensor(truths),
        )

    def hit_rate(self, encoder: AnyEncoder, device: torch.device) -> float:
        """Share of clips whose nearest reference of all starts within 50 ms of the truth."""
        nearest_B = self._similarity(encoder, device).argmax(dim=1)
        error_B = (self.position_B[nearest_B] - self.truth_B).abs()
        return float((error_B <= _TOLERANCE_SAMPLES).double().mean())

    def offset_correction(self, encoder: AnyEncoder, device: torch.device) -> float:
        """How much later than the truth clips are found, s, to be subtracted from offsets.

        It is below zero: reverberation delays most of the sound, so that offsets are found too
        early. Offsets are interpolated as those of a match. The result is the midpoint between
        the 5th and the 95th percentile of the errors; more offsets come within 50 ms than with
        their mean, which the many small errors outweigh. Errors above a hop and a half are left
        out, since they have other causes. 0 if no clip is left.
        """
        errors = []
        for similarity_R, truth in zip(self._similarity(encoder, device), self.truth_B.tolist()):
            best = int(similarity_R[1:-1].argmax()) + 1
            around = slice(best - 1, best + 2)
            position = int(self.position_B[best])
            if (self.position_B[around] - position).tolist() != [-_HOP_SAMPLES, 0, _HOP_SAMPLES]:
                continue  # at a track's edge
            error = position + _HOP_SAMPLES * peak_between(*similarity_R[around].tolist()) - truth
            if abs(error) < 1.5 * _HOP_SAMPLES:
                errors.append(error / SAMPLE_RATE)
        return float(np.percentile(errors, (5, 95)).mean()) if errors else 0.0

    def _similarity(self, encoder: AnyEncoder, device: torch.device) -> torch.Tensor:
        """Of each clip to each reference, (queries, references)."""
        was_training = encoder.training
        encoder.eval()
        dtype = trusted_dtype(encoder, device)
        reference_BD = _embed(encoder, self.reference_BS, device, dtype)
        query_BD = _embed(encoder, self.query_BS, device, dtype)
        encoder.train(was_training)
        return query_BD @ reference_BD.T


def _embed(
    encoder: AnyEncoder, segments_BS: torch.Tensor, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    reduced = dtype != torch.float32
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=reduced):
        parts = [
            encoder(log_mel(to_float(part_BS).to(device), encoder.config.spectrogram)).cpu()
            for part_BS in segments_BS.split(256)
        ]
    return torch.cat(parts)
