"""The inference form of an encoder, and whole recordings to fingerprints."""

import copy
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from grafp.audio import SAMPLE_RATE
from grafp.model.encoder import ConvNorm, Encoder, GraphBlock, LinearNorm
from grafp.model.features import FRAMES, MELS, is_silent, log_mel
from grafp.model.fingerprint import DIMENSION, HOP_SECONDS, SEGMENT_SAMPLES, segment_count
from grafp.model.presets import AnyEncoder

# Graph nodes in a batch: enough to keep the processor busy, few enough for its caches.
NODES_AT_ONCE = {"cpu": 1 << 14, "cuda": 1 << 19}


def inference_form(
    encoder: AnyEncoder, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> AnyEncoder:
    """A copy for inference: batch norms folded into the layer before, `dtype` inside the blocks.

    Gives the same fingerprints as the plain form up to rounding (cosine above 0.999). Spectrogram,
    stem and the sums along the residual path stay float32: most of the rounding would be theirs.
    A baseline has no batch norm, and keeps this bound with `dtype` throughout.

    Args:
        dtype: of the graph blocks and convolutions between them; default: see `trusted_dtype`.
    """
    fast = copy.deepcopy(encoder).eval().requires_grad_(False).to(device)
    dtype = dtype or trusted_dtype(fast, torch.device(device))
    if not isinstance(fast, Encoder):
        fast.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
        return fast.to(dtype)
    for parent in list(fast.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LinearNorm):
                setattr(parent, name, _fold(child.linear, child.norm))
            elif isinstance(child, ConvNorm):
                setattr(parent, name, _fold(child.conv, child.norm))
    if dtype != torch.float32:
        for block in list(fast.modules()):
            if isinstance(block, GraphBlock):
                for name, layer in list(block.named_children()):
                    setattr(block, name, _Reduced(layer, dtype, widen=False))
        for number, layer in enumerate(fast.downsample):
            fast.downsample[number] = _Reduced(layer, dtype, widen=True)
    return fast


class _Reduced(nn.Module):
    """A layer at reduced precision; added to a float32 residual, its output widens by itself."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype, widen: bool) -> None:
        super().__init__()
        self.layer, self.dtype, self.widen = layer.to(dtype), dtype, widen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x.to(self.dtype))
        return out.float() if self.widen else out


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return torch.bfloat16 if native else torch.float32


def trusted_dtype(encoder: AnyEncoder, device: torch.device) -> torch.dtype:
    """`inference_dtype`, or float32 where that gives this encoder wrong fingerprints here.

    Worth a trial each time: for some shapes, on some processors, kernels of PyTorch are wrong in
    bfloat16 (convolutions with strides, with AMX: issues 163347 and 169688 of pytorch/pytorch;
    some of them from 32 spectrograms on). Those of the presets with a graph are right.
    """
    dtype, was_training = inference_dtype(device), encoder.training
    noise_BFT = torch.rand(32, MELS, FRAMES, generator=torch.Generator().manual_seed(0)).to(device)
    encoder.eval()
    with torch.inference_mode():
        exact_BD = encoder(noise_BFT)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            cosine_B = (encoder(noise_BFT) * exact_BD).sum(dim=1)
    encoder.train(was_training)
    if (cosine_B > 0.99).all():  # false for NaN too
        return dtype
    warnings.warn(f"{dtype} gives wrong fingerprints on this machine: using float32", stacklevel=2)
    return torch.float32


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
        vectors_BD = self.encoder(log_mel(segments_BS))
        return vectors_BD.masked_fill(is_silent(segments_BS)[:, None], 0.0).float().cpu()
