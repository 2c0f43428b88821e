"""The architectures that can be trained by name, and encoders from their configurations."""

from dataclasses import replace
from typing import Any

from grafp.model.baselines import ConvConfig, ConvEncoder, PatchConfig, PatchEncoder
from grafp.model.encoder import Encoder, EncoderConfig
from grafp.model.registered import RegisteredConfig, RegisteredEncoder

AnyConfig = EncoderConfig | ConvConfig | PatchConfig | RegisteredConfig
AnyEncoder = Encoder | ConvEncoder | PatchEncoder | RegisteredEncoder

_PAPER = EncoderConfig(
    stem=((8, 7, 2, 1),),
    channels=(64, 128, 256, 512),
    blocks=(2, 2, 6, 2),
    neighbors=3,
    head=(4096,),
    expand=1024,
    slope=0.2,
)
"""The network of the paper (section II-B); what its text leaves open is as in the authors' code."""

PRESETS: dict[str, AnyConfig] = {
    "grafprint": _PAPER,
    "grafprint-readout": replace(_PAPER, head=(1024, 4096), expand=0, slope=1.0, readout=64),
    # The larger sizes of the authors' code; none is in the paper.
    "grafprint-s": replace(_PAPER, channels=(80, 160, 400, 640)),
    "grafprint-m": replace(_PAPER, channels=(96, 192, 384, 768), blocks=(2, 2, 16, 2)),
    "grafprint-b": replace(_PAPER, channels=(128, 256, 512, 1024), blocks=(2, 2, 18, 2)),
    "small": EncoderConfig(
        stem=((24, 5, 2, 2), (48, 3, 2, 2)),
        channels=(64, 192),
        blocks=(3, 4),
        neighbors=4,
        head=(1024,),
        readout=32,
    ),
    # The authors' network has 16.9 M parameters and 256 bands; it halves frequency in all eight
    # layers. With 64 bands two must not, and here these are the first: that keeps its cost and,
    # with time halved one layer later than theirs, its number of parameters.
    "nafp": ConvConfig(
        layers=(
            (128, 1, 1),
            (128, 1, 2),
            (256, 2, 2),
            (256, 2, 2),
            (512, 2, 2),
            (512, 2, 2),
            (1024, 2, 1),
            (1024, 2, 1),
        ),
        unit=32,
    ),
    "ast": PatchConfig(frames=4, stride=2, width=640, depth=9, heads=10, head=(1024,)),
    # As trained by the authors of the paper: their code has its sizes, and the input's.
    "ast-published": PatchConfig(
        frames=10,
        stride=10,
        width=640,
        depth=8,
        heads=10,
        head=(4096,),
        expand=1024,
        spectrogram="log-mel-64x100",
    ),
    "ast-small": PatchConfig(frames=4, stride=2, width=256, depth=5, heads=4, head=(1024,)),
}


def preset_config(name: str) -> AnyConfig:
    """An architecture by name: a preset, or what another package registers (with its defaults).

    Raises ModelError when it is neither.
    """
    return PRESETS[name] if name in PRESETS else RegisteredConfig.default(name)


def build_encoder(config: AnyConfig) -> AnyEncoder:
    """An encoder with random weights."""
    if isinstance(config, ConvConfig):
        return ConvEncoder(config)
    if isinstance(config, PatchConfig):
        return PatchEncoder(config)
    if isinstance(config, RegisteredConfig):
        return RegisteredEncoder(config)
    return Encoder(config)


def config_from_dict(values: dict[str, Any]) -> AnyConfig:
    """What `to_dict` of a configuration gave; without a `kind` it is a graph encoder's.

    Raises ModelError when the values do not describe an encoder.
    """
    if not isinstance(values, dict) or "kind" not in values:
        return EncoderConfig.from_dict(values)
    if values["kind"] == ConvConfig.kind:
        return ConvConfig.from_dict(values)
    if values["kind"] == PatchConfig.kind:
        return PatchConfig.from_dict(values)
    return RegisteredConfig.from_dict(values)
