"""The inference form of an encoder, and whole recordings to fingerprints."""

import copy
import logging
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from grafp.audio import SAMPLE_RATE
from grafp.model.encoder import ConvNorm, Encoder, GraphBlock, LinearNorm
from grafp.model.features import is_silent, log_mel
from grafp.model.fingerprint import DIMENSION, HOP_SECONDS, SEGMENT_SAMPLES, segment_count
from grafp.model.presets import AnyEncoder
from grafp.model.registered import RegisteredEncoder

logger = logging.getLogger(__name__)

# Graph nodes in a batch: enough to keep a CPU or GPU busy, few enough for its caches.
NODES_AT_ONCE = {"cpu": 1 << 14, "cuda": 1 << 19}


def inference_form(
    encoder: AnyEncoder, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> AnyEncoder:
    """A copy for inference: batch norms folded into the layer before, `dtype` inside the blocks.

    Gives the same fingerprints as the plain form up to rounding (cosine above 0.999). Spectrogram,
    stem and the sums along the residual path stay float32: most of the rounding would be theirs.
    A baseline has no batch norm, and keeps this bound with `dtype` throughout. The encoder of
    another package stays as it is, in float32: nothing is known of its layers.

    Args:
        dtype: of the graph blocks and convolutions between them; default: see `trusted_dtype`.
    """
    form = copy.deepcopy(encoder).eval().requires_grad_(False).to(device)
    if isinstance(form, RegisteredEncoder):
        return form
    dtype = dtype or trusted_dtype(form, torch.device(device))
    if not isinstance(form, Encoder):
        form.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
        return form.to(dtype)
    for parent in list(form.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LinearNorm):
                setattr(parent, name, _fold(child.linear, child.norm))
            elif isinstance(child, ConvNorm):
                setattr(parent, name, _fold(child.conv, child.norm))
    if dtype != torch.float32:
        for block in list(form.modules()):
            if isinstance(block, GraphBlock):
                for name, layer in list(block.named_children()):
                    setattr(block, name, _Reduced(layer, dtype, widen=False))
        for number, layer in enumerate(form.downsample):
            form.downsample[number] = _Reduced(layer, dtype, widen=True)
    return form


class _Reduced(nn.Module):
    """A layer at reduced precision; added to a float32 residual, its output widens by itself."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype, widen: bool) -> None:
        super().__init__()
        self.layer, self.dtype, self.widen = layer.to(dtype), dtype, widen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x.to(self.dtype))
        return out.float() if self.widen else out


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the CPU or GPU multiplies it natively, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return torch.bfloat16 if native else torch.float32


def trusted_dtype(encoder: AnyEncoder, device: torch.device) -> torch.dtype:
    """`inference_dtype`, or float32 where that gives this encoder wrong fingerprints here.

    Every encoder is tried: for some shapes, on some CPUs, kernels of PyTorch are wrong in bfloat16
    (convolutions with strides, with AMX: issues 163347 and 169688 of pytorch/pytorch; some of them
    from 32 spectrograms on). Those of the presets with a graph are right.

    Ranks decide, not a cosine: after a few steps of training, an encoder amplifies rounding, and
    its fingerprints still find each other.
    """
    dtype, was_training = inference_dtype(device), encoder.training
    if dtype == torch.float32:
        return dtype
    mel_BFT = log_mel(_trial_segments().to(device), encoder.config.spectrogram)
    encoder.eval()
    with torch.inference_mode():
        exact_BD = encoder(mel_BFT)
        with torch.autocast(device.type, dtype):
            reduced_BD = encoder(mel_BFT)
    encoder.train(was_training)
    if _ranks_alike(exact_BD.float(), reduced_BD.float()):
        return dtype
    logger.warning(f"{dtype} gives wrong fingerprints on this machine: using float32")
    return torch.float32


def _ranks_alike(exact_BD: torch.Tensor, reduced_BD: torch.Tensor) -> bool:
    """Whether every reduced fingerprint is nearest to its own exact one, half of them by far.

    By far: at most half as distant as its exact one is from the nearest other. False for NaN.
    """
    own_B = torch.arange(len(exact_BD), device=exact_BD.device)
    distance_BB = torch.cdist(reduced_BD, exact_BD)
    apart_BB = torch.cdist(exact_BD, exact_BD).fill_diagonal_(math.inf)
    error_B = distance_BB.diagonal() / apart_BB.amin(dim=1)
    return bool((distance_BB.argmin(dim=1) == own_B).all() and error_B.median() <= 0.5)


@cache
def _trial_segments() -> torch.Tensor:
    """Seconds of gliding, fading tones in noise, as different as seconds of music; (32, 16000)."""
    random = torch.Generator().manual_seed(0)

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(32, 4, 1, generator=random)

    time_S = torch.arange(SEGMENT_SAMPLES) / SAMPLE_RATE
    cycles_BNS = 80 * 2 ** draw(0, 5) * (time_S + draw(-0.5, 0.5) * time_S**2)
    tones_BNS = (2 * math.pi * cycles_BNS).sin() * torch.exp(draw(-6, 0) * time_S)
    noise_BS = torch.randn(32, SEGMENT_SAMPLES, generator=random)
    return tones_BNS.sum(dim=1) + draw(0, 0.3)[:, 0] * noise_BS


def _fold(layer: nn.Linear | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """The one layer that computes norm(layer(x)) with the norm's running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale_C = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    folded = copy.deepcopy(layer)
    folded.weight.copy_(layer.weight * scale_C.view(-1, *[1] * (layer.weight.ndim - 1)))
    folded.bias = nn.Parameter(norm.bias - norm.running_mean * scale_C, requires_grad=False)
    return folded


@dataclass
class Fingerprinter:
    """Recordings to fingerprints with one encoder on one device."""

    encoder: AnyEncoder
    """In its inference form, see `inference_form`."""
    device: torch.device
    hop_seconds: float = HOP_SECONDS

    @classmethod
    def from_encoder(
        cls, encoder: AnyEncoder, device: str = "cpu", hop_seconds: float = HOP_SECONDS
    ) -> "Fingerprinter":
        return cls(inference_form(encoder, device), torch.device(device), hop_seconds)

    def __call__(self, samples_S: np.ndarray) -> np.ndarray:
        """Fingerprint a recording.

        Args:
            samples_S: float32 of shape (samples,), 16 kHz mono.

        Returns:
            float32 of shape (segments, 128): unit vectors, row i for the second that starts at
            i * hop; a silent segment's row is all zeros, so it adds nothing to any score.
        """
        hop = round(self.hop_seconds * SAMPLE_RATE)
        if segment_count(len(samples_S), hop) == 0:
            return np.zeros((0, DIMENSION), np.float32)
        windows_BS = torch.tensor(samples_S, dtype=torch.float32).unfold(0, SEGMENT_SAMPLES, hop)
        batch = max(1, NODES_AT_ONCE[self.device.type] // self.encoder.config.nodes)
        with torch.inference_mode():
            parts = [self._embed(part.to(self.device)) for part in windows_BS.split(batch)]
            return torch.cat(parts).numpy()

    def _embed(self, segments_BS: torch.Tensor) -> torch.Tensor:
        mel_BFT = log_mel(segments_BS, self.encoder.config.spectrogram)
        vectors_BD: torch.Tensor = self.encoder(mel_BFT)
        return vectors_BD.masked_fill(is_silent(segments_BS)[:, None], 0.0).float().cpu()
