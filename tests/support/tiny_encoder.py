"""The encoder of an installed package: tests/support is on the path, with its metadata beside."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class PoolingConfig:
    grid: tuple[int, int] = (32, 16)
    """Frequencies x times that are left of a spectrogram."""

    def build(self) -> nn.Module:
        return PoolingNetwork(self)


class PoolingNetwork(nn.Module):
    """A smaller spectrogram, projected at random; with a buffer of whole numbers."""

    order_N: torch.Tensor

    def __init__(self, config: PoolingConfig) -> None:
        super().__init__()
        size = config.grid[0] * config.grid[1]
        self.pool = nn.AdaptiveAvgPool2d(config.grid)
        self.project = nn.Linear(size, 128)
        self.register_buffer("order_N", 70_000 + torch.arange(size).flip(0))

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        pooled_BN = self.pool(mel_BFT).flatten(1)
        pooled_BN = pooled_BN[:, self.order_N - 70_000]
        vectors_BD: torch.Tensor = self.project(pooled_BN - pooled_BN.mean(dim=1, keepdim=True))
        return vectors_BD
