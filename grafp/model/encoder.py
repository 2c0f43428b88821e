"""The GraFPrint encoder (paper, section II-B): spectrogram to nodes to graph to 128 numbers.

Node tensors are B x N x C throughout. That is also the memory of a channels-last feature map,
so strided convolutions work on the H x W grid without copying.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from grafp.errors import ModelError
from grafp.model.fingerprint import DIMENSION
from grafp.model.graph import max_relative, nearest_neighbors
from grafp.model.spectrogram import DEFAULT
from grafp.storage.records import parse_record

T = TypeVar("T")


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture, stored in the model bundle beside the weights.

    Raises ModelError when a size cannot work.
    """

    stem: tuple[tuple[int, int, int, int], ...]
    """Convolutions before the graph: (channels, kernel, frequency stride, time stride)."""
    channels: tuple[int, ...]
    """Width of each stage; between stages the grid halves both ways."""
    blocks: tuple[int, ...]
    """Graph blocks in each stage."""
    neighbors: int
    """k of the k-NN graph, the node itself included."""
    head: tuple[int, ...]
    """Hidden widths between the graph and the fingerprint."""
    expand: int = 0
    """Width of a linear layer between the mean of all nodes and the head, with no nonlinearity
    after it, as in the authors' code; 0: none."""
    slope: float = 1.0
    """Of the nonlinear projection f below 0, as in the authors' code (0.2); 1: f is linear."""
    readout: int = 0
    """Numbers that each node of the last grid gives to the head, in the grid's order; 0: the head
    sees the mean of all nodes, as published."""

    spectrogram: ClassVar[str] = DEFAULT.name
    """Its input, one of `SPECTROGRAMS`."""

    @property
    def nodes(self) -> int:
        """Nodes of the first stage's graph."""
        return math.prod(self._grid(stage=0))

    @property
    def last_nodes(self) -> int:
        """Nodes of the last stage's graph."""
        return math.prod(self._grid(stage=len(self.channels) - 1))

    def _grid(self, stage: int) -> tuple[int, int]:
        frequency, time = DEFAULT.mels, DEFAULT.frames
        for f_stride, t_stride in [stem[2:] for stem in self.stem] + stage * [(2, 2)]:
            frequency, time = -(-frequency // f_stride), -(-time // t_stride)
        return frequency, time

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EncoderConfig":
        """What `to_dict` gave. Raises ModelError when the values do not describe an encoder."""
        if isinstance(values, dict) and "neighbours" in values:  # older bundles
            values = {**values, "neighbors": values["neighbours"]}
        return read_config(values, cls)

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.blocks):
            raise ModelError("each stage needs its channels and its blocks")
        check_sizes([*self.channels, *self.head, self.neighbors, *sum(self.stem, ())])
        check_sizes(self.blocks, most=100)
        check_sizes([self.readout + 1, self.expand + 1])  # 0 is none
        if self.readout and self.expand:
            raise ModelError("either a readout or expand: the head cannot see both")
        if not 0 <= self.slope <= 1:
            raise ModelError(f"slope must be between 0 and 1, not {self.slope}")


def read_config(values: Any, kind: type[T]) -> T:
    """A configuration of this kind from a card. Raises ModelError, which names the field."""
    return parse_record(json.dumps(values), kind, "encoder in the model card", ModelError)


def check_sizes(sizes: Iterable[int], most: int = 1 << 16) -> None:
    """Raises ModelError unless all lie between 1 and `most`."""
    if wrong := [size for size in sizes if not 1 <= size <= most]:
        raise ModelError(f"every size must be at least 1 and at most {most}, not {wrong[0]}")


class LinearNorm(nn.Module):
    """A linear layer over channels followed by batch normalization over all nodes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, nodes_BNC: torch.Tensor) -> torch.Tensor:
        out_BNC: torch.Tensor = self.linear(nodes_BNC)
        normed_MC: torch.Tensor = self.norm(out_BNC.flatten(0, -2))
        return normed_MC.view_as(out_BNC)


class ConvNorm(nn.Module):
    """A strided convolution on the grid followed by batch normalization."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        normed_BCHW: torch.Tensor = self.norm(self.conv(grid_BCHW))
        return normed_BCHW


class GraphBlock(nn.Module):
    """Graph convolution between two linear layers with a residual (eq. 2-4), then an FFN."""

    def __init__(self, channels: int, neighbors: int) -> None:
        super().__init__()
        self.neighbors = neighbors
        self.enter = LinearNorm(channels, channels)
        self.update = LinearNorm(2 * channels, channels)
        self.leave = LinearNorm(channels, channels)
        self.widen = LinearNorm(channels, 4 * channels)
        self.narrow = LinearNorm(4 * channels, channels)

    def forward(self, nodes_BNC: torch.Tensor) -> torch.Tensor:
        x_BNC = self.enter(nodes_BNC)
        relative_BNC = max_relative(x_BNC, nearest_neighbors(x_BNC, self.neighbors))
        x_BNC = F.relu(self.update(torch.cat([x_BNC, relative_BNC], dim=-1)))
        nodes_BNC = nodes_BNC + self.leave(x_BNC)
        change_BNC: torch.Tensor = self.narrow(F.relu(self.widen(nodes_BNC)))
        return nodes_BNC + change_BNC


class Encoder(nn.Module):
    """Log-mel spectrograms to unit-length fingerprints."""

    ramps_2FT: torch.Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3, *(channels for channels, *_ in config.stem)]
        self.stem = nn.ModuleList(
            ConvNorm(inputs, outputs, kernel, (f_stride, t_stride))
            for inputs, (outputs, kernel, f_stride, t_stride) in zip(widths, config.stem)
        )
        self.project = LinearNorm(widths[-1], config.channels[0])
        self.stages = nn.ModuleList(
            nn.Sequential(*(GraphBlock(channels, config.neighbors) for _ in range(blocks)))
            for channels, blocks in zip(config.channels, config.blocks, strict=True)
        )
        self.downsample = nn.ModuleList(
            ConvNorm(inputs, outputs, 3, (2, 2))
            for inputs, outputs in zip(config.channels, config.channels[1:])
        )
        last = config.channels[-1]
        self.read = nn.Linear(last, config.readout) if config.readout else None
        self.expand = nn.Linear(last, config.expand) if config.expand else None
        head = [config.readout * config.last_nodes or config.expand or last, *config.head]
        self.head = nn.ModuleList(nn.Linear(i, o) for i, o in zip(head, [*head[1:], DIMENSION]))
        self.register_buffer("ramps_2FT", _ramps(), persistent=False)

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        """(batch, 64, 32) log-mel spectrograms to (batch, 128) float32 unit vectors."""
        ramps_B2FT = self.ramps_2FT.to(mel_BFT.dtype).expand(len(mel_BFT), -1, -1, -1)
        grid_BCHW = torch.cat([mel_BFT.unsqueeze(1), ramps_B2FT], dim=1)
        grid_BCHW = grid_BCHW.contiguous(memory_format=torch.channels_last)
        for conv in self.stem:
            grid_BCHW = F.relu(conv(grid_BCHW))
        grid_BHWC = self.project(grid_BCHW.permute(0, 2, 3, 1))
        if self.config.slope < 1:
            grid_BHWC = F.leaky_relu(grid_BHWC, self.config.slope)
        for number, stage in enumerate(self.stages):
            if number:
                grid_BCHW = self.downsample[number - 1](grid_BHWC.permute(0, 3, 1, 2))
                grid_BHWC = grid_BCHW.permute(0, 2, 3, 1)
            nodes_BNC = grid_BHWC.flatten(1, 2)
            nodes_BNC = stage(nodes_BNC)
            grid_BHWC = nodes_BNC.view(grid_BHWC.shape)
        vector_BC = self.read(nodes_BNC).flatten(1) if self.read else nodes_BNC.mean(dim=1)
        if self.expand:
            vector_BC = self.expand(vector_BC)
        for number, layer in enumerate(self.head):
            vector_BC = layer(F.elu(vector_BC) if number else vector_BC)
        return F.normalize(vector_BC.float(), dim=-1)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _ramps() -> torch.Tensor:
    """Position of each time-frequency point: a frequency ramp and a time ramp, (2, 64, 32)."""
    cpu = torch.device("cpu")  # on the meta device the first linspace takes seconds
    sizes = DEFAULT.mels, DEFAULT.frames
    frequency_FT = torch.linspace(-1, 1, sizes[0], device=cpu)[:, None].expand(sizes)
    time_FT = torch.linspace(-1, 1, sizes[1], device=cpu)[None, :].expand(sizes)
    return torch.stack([frequency_FT, time_FT])
