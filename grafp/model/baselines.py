"""The paper's baselines (Tables II and III): a convolutional network and a transformer.

They take and give what the graph encoder does, so that data, loss, index and evaluation are the
same for all and a comparison is one of architectures alone.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from grafp.errors import ModelError
from grafp.model.encoder import check_sizes, read_config
from grafp.model.fingerprint import DIMENSION
from grafp.model.spectrogram import DEFAULT, SPECTROGRAMS, Spectrogram


@dataclass(frozen=True)
class ConvConfig:
    """The network of Chang et al. (ICASSP 2021, arXiv:2010.11910).

    Raises ModelError when a size cannot work.
    """

    layers: tuple[tuple[int, int, int], ...]
    """Separable convolutions: (channels, frequency stride, time stride)."""
    unit: int
    """Hidden width of the little network that makes one number of the fingerprint."""

    spectrogram: ClassVar[str] = DEFAULT.name
    """Its input, one of `SPECTROGRAMS`."""
    kind: ClassVar[str] = "convolution"
    nodes: ClassVar[int] = 1024
    """Graph nodes that one spectrogram is worth, to choose how many are computed at once."""

    def grids(self) -> list[tuple[int, int]]:
        """Frequency x time before the first layer and after each."""
        grids = [(DEFAULT.mels, DEFAULT.frames)]
        for _, frequency_stride, time_stride in self.layers:
            frequency, time = grids[-1]
            grids.append((-(-frequency // frequency_stride), -(-time // time_stride)))
        return grids

    @property
    def features(self) -> int:
        """Numbers that the last layer gives, to be divided among those of the fingerprint."""
        frequency, time = self.grids()[-1]
        return self.layers[-1][0] * frequency * time

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ConvConfig":
        """What `to_dict` gave. Raises ModelError when the values do not describe an encoder."""
        return read_config(values, cls)

    def __post_init__(self) -> None:
        check_sizes([self.unit, *(size for layer in self.layers for size in layer)])
        check_sizes([len(self.layers)], most=100)
        if self.features % DIMENSION:
            raise ModelError(f"{self.features} features cannot be divided by {DIMENSION}")


class SeparableConv(nn.Sequential):
    """Along time, then along frequency; each with ELU and a norm over channels, both axes."""

    def __init__(
        self, inputs: int, outputs: int, before: tuple[int, int], after: tuple[int, int]
    ) -> None:
        strides = [-(-b // a) for b, a in zip(before, after, strict=True)]
        super().__init__(
            nn.Conv2d(inputs, outputs, (1, 3), (1, strides[1]), (0, 1)),
            nn.ELU(),
            nn.LayerNorm([outputs, before[0], after[1]]),
            nn.Conv2d(outputs, outputs, (3, 1), (strides[0], 1), (1, 0)),
            nn.ELU(),
            nn.LayerNorm([outputs, *after]),
        )


class ConvEncoder(nn.Module):
    """Log-mel spectrograms to unit-length fingerprints: convolutions, then divide and encode."""

    def __init__(self, config: ConvConfig) -> None:
        super().__init__()
        self.config = config
        widths = [1, *(channels for channels, *_ in config.layers)]
        grids = config.grids()
        self.layers = nn.Sequential(
            *(SeparableConv(*sizes) for sizes in zip(widths, widths[1:], grids, grids[1:]))
        )
        hidden = DIMENSION * config.unit
        # In groups: every number of the fingerprint sees its own share of the features alone.
        self.head = nn.Sequential(
            nn.Conv1d(config.features, hidden, 1, groups=DIMENSION),
            nn.ELU(),
            nn.Conv1d(hidden, DIMENSION, 1, groups=DIMENSION),
        )

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        """(batch, 64, 32) log-mel spectrograms to (batch, 128) float32 unit vectors."""
        grid_BCFT = self.layers(mel_BFT.unsqueeze(1))
        vector_BD = self.head(grid_BCFT.flatten(1).unsqueeze(2)).squeeze(2)
        return F.normalize(vector_BD.float(), dim=-1)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


@dataclass(frozen=True)
class PatchConfig:
    """The paper's transformer (section III-D): AST with patches that span all frequencies.

    Raises ModelError when a size cannot work.
    """

    frames: int
    """Spectrogram frames in a patch."""
    stride: int
    """Frames between the starts of two patches."""
    width: int
    depth: int
    heads: int
    head: tuple[int, ...]
    """Hidden widths between the class token and the fingerprint."""
    expand: int = 0
    """Width of a linear layer between the class token and the head, with no nonlinearity after it,
    as in the authors' code; 0: none."""
    spectrogram: str = DEFAULT.name
    """Its input, one of `SPECTROGRAMS`."""

    kind: ClassVar[str] = "transformer"

    @property
    def input(self) -> Spectrogram:
        """The sizes of its input."""
        return SPECTROGRAMS[self.spectrogram]

    @property
    def tokens(self) -> int:
        """Patches, and the class token."""
        return (self.input.frames - self.frames) // self.stride + 2

    @property
    def nodes(self) -> int:
        """Graph nodes that one spectrogram is worth, to choose how many are computed at once."""
        return self.tokens * self.width // 64

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PatchConfig":
        """What `to_dict` gave. Raises ModelError when the values do not describe an encoder."""
        return read_config(values, cls)

    def __post_init__(self) -> None:
        if self.spectrogram not in SPECTROGRAMS:
            names = ", ".join(SPECTROGRAMS)
            raise ModelError(f"no spectrogram {self.spectrogram!r}; there are {names}")
        check_sizes([self.width, self.heads, self.expand + 1, *self.head])
        check_sizes([self.frames, self.stride], most=self.input.frames)
        check_sizes([self.depth], most=100)
        if self.width % self.heads:
            raise ModelError(f"{self.heads} heads do not divide a width of {self.width}")


class PatchEncoder(nn.Module):
    """Log-mel spectrograms to unit-length fingerprints: a transformer over patches of time."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Conv1d(config.input.mels, width, config.frames, config.stride)
        self.class_token = nn.Parameter(torch.empty(width).uniform_(-0.03, 0.03))
        self.positions = nn.Parameter(torch.empty(config.tokens, width).uniform_(-0.03, 0.03))
        # Not nn.TransformerEncoder, which copies one layer: all would begin with the same weights.
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width,
                    config.heads,
                    4 * width,
                    dropout=0.0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.expand) if config.expand else None
        sizes = [config.expand or width, *config.head]
        self.head = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, [*sizes[1:], DIMENSION]))

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        """(batch, mels, frames) log-mel spectrograms to (batch, 128) float32 unit vectors."""
        patches_BNC = self.embed(mel_BFT).transpose(1, 2)
        class_B1C = self.class_token.to(patches_BNC.dtype).expand(len(mel_BFT), 1, -1)
        tokens_BNC = torch.cat([class_B1C, patches_BNC], dim=1) + self.positions
        vector_BC = self.norm(self.layers(tokens_BNC)[:, 0])
        if self.expand:
            vector_BC = self.expand(vector_BC)
        for number, layer in enumerate(self.head):
            vector_BC = layer(F.elu(vector_BC) if number else vector_BC)
        return F.normalize(vector_BC.float(), dim=-1)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
