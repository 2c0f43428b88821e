"""The contrastive training loop (paper, section II-C); plain PyTorch, alone or in a worker group.

Every random choice comes from (seed, rank, step), so a run that continues from a checkpoint
sees the batches it would have seen.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from grafp.augment import AugmentConfig, Augmenter
from grafp.data import PairSampler
from grafp.errors import TrainingError
from grafp.features import log_mel
from grafp.loss import gather_with_gradient, nt_xent
from grafp.presets import PRESETS, AnyConfig, AnyEncoder, build_encoder, config_from_dict
from grafp.validation import Validation


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides how a model is trained; stored in its card."""

    preset: str = "small"
    steps: int | None = None
    """Length in optimiser steps; None: until `minutes` are over."""
    minutes: float | None = None
    pairs: int = 128
    """Positive pairs in a batch, per worker."""
    per_track: int = 2
    """Segments of one track in a batch, negatives of each other."""
    offset_seconds: float = 0.05
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.02
    """Share of the run in which the learning rate rises; a cosine brings it down to 0."""
    temperature: float = 0.05
    validate_every: int = 500
    log_every: int = 20
    checkpoint_every: int = 100
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise TrainingError(f"no preset {self.preset!r}; choose one of {', '.join(PRESETS)}")
        if (self.steps is None) == (self.minutes is None) or (self.steps or self.minutes or 0) <= 0:
            raise TrainingError("give a length above 0: either steps or minutes")

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass
class Progress:
    """Where a run stands; reported every `log_every` steps."""

    step: int = 0
    seconds: float = 0.0
    """Time spent training, earlier parts of the run included."""
    loss: float = math.nan
    hit_rate: float = math.nan
    """Of the latest validation, 0..1."""
    pairs_per_second: float = 0.0
    seconds_left: float = math.nan
    done: bool = False

    def line(self) -> str:
        """One line for a terminal or a job's log."""
        hit = "-" if math.isnan(self.hit_rate) else f"{100 * self.hit_rate:.1f}%"
        left = "?" if math.isnan(self.seconds_left) else f"{self.seconds_left / 60:.1f} min"
        return (
            f"step {self.step}  loss {self.loss:.3f}  {self.pairs_per_second:.0f} pairs/s  "
            f"hit rate {hit}  time left {left}"
        )


Report = Callable[[Progress, bool], None]
"""Called on every rank equally often; the flag says that a checkpoint is due."""


class Trainer:
    """One worker of a training run; `world` of them share a global batch."""

    def __init__(
        self,
        config: TrainConfig,
        sampler: PairSampler,
        augmenter: Augmenter,
        validation: Validation | None,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        architecture: AnyConfig | None = None,
    ) -> None:
        """`architecture`: instead of the preset's, for studies."""
        torch.manual_seed(config.seed)  # the same first weights on every rank
        self.config, self.sampler, self.augmenter = config, sampler, augmenter
        self.validation, self.device, self.rank, self.world = validation, device, rank, world
        self.encoder = build_encoder(architecture or PRESETS[config.preset]).to(device)
        self.model: torch.nn.Module = self.encoder
        if world > 1:
            self.model = DistributedDataParallel(self.encoder)
        decayed = [p for p in self.encoder.parameters() if p.ndim > 1]
        others = [p for p in self.encoder.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.progress = Progress()

    def run(self, report: Report) -> Progress:
        """Train to the end of the budget. Raises TrainingError when the loss is not finite."""
        self.model.train()
        since, losses = time.monotonic(), []
        while not self.progress.done:
            started = time.monotonic()
            losses.append(self._step())
            self.progress.step += 1
            self.progress.seconds = self._slowest(
                self.progress.seconds + time.monotonic() - started
            )
            share = self._share_done()
            self.progress.done = share >= 1.0
            if self._due(self.config.log_every):
                self.progress.loss = float(torch.stack(losses).mean())
                elapsed = time.monotonic() - since
                self.progress.pairs_per_second = (
                    len(losses) * self.config.pairs * self.world / elapsed
                )
                self.progress.seconds_left = self.progress.seconds * (1 / max(share, 1e-9) - 1)
            if self._due(self.config.validate_every) and self.validation and self.rank == 0:
                self.progress.hit_rate = self.validation.hit_rate(self.encoder, self.device)
            if self._due(self.config.log_every) or self._due(self.config.checkpoint_every):
                report(self.progress, self._due(self.config.checkpoint_every))
            if self._due(self.config.log_every):
                since, losses = time.monotonic(), []
        return self.progress

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.done

    def _step(self) -> torch.Tensor:
        seed = [self.config.seed, self.rank, self.progress.step]
        anchors_BS, partners_BS = self.sampler.draw(np.random.default_rng(seed), self.progress.step)
        generator = torch.Generator().manual_seed(hash(tuple(seed)) & 0xFFFFFFFF)
        degraded_BS = self.augmenter(partners_BS, generator)
        mel_BFT = log_mel(torch.cat([anchors_BS.to(self.device), degraded_BS]))
        self.augmenter.mask_(mel_BFT[len(anchors_BS) :], generator)
        with torch.autocast(self.device.type, torch.bfloat16):
            vectors_BD = self.model(mel_BFT)
        first_BD, second_BD = vectors_BD.chunk(2)
        if self.world > 1:
            first_BD, second_BD = gather_with_gradient(first_BD), gather_with_gradient(second_BD)
        loss = nt_xent(first_BD, second_BD, self.config.temperature)
        self._check_finite(loss.item())
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate_factor()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at step {self.progress.step}; "
                "lower the learning rate or look for broken training audio"
            )

    def _share_done(self) -> float:
        if self.config.steps is not None:
            return self.progress.step / self.config.steps
        return self.progress.seconds / (60 * (self.config.minutes or 0.0))

    def _rate_factor(self) -> float:
        share = min(1.0, self._share_done())
        warm = min(1.0, (share + 1e-3) / self.config.warm_up) if self.config.warm_up else 1.0
        return warm * 0.5 * (1.0 + math.cos(math.pi * share))

    def _slowest(self, seconds: float) -> float:
        """The largest of all ranks, so that all stop at the same step."""
        if self.world == 1:
            return seconds
        value = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return float(value)

    def save(self, target: Path | BinaryIO) -> None:
        """Write a checkpoint: weights, optimiser and progress."""
        state = {
            "model": self.encoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "encoder": self.encoder.config.to_dict(),
        }
        torch.save(state, target)

    def start_from(self, encoder: AnyEncoder) -> None:
        """Begin with a trained encoder's weights. Raises TrainingError on another architecture."""
        if encoder.config != self.encoder.config:
            raise TrainingError(f"the model to start from is not of preset {self.config.preset!r}")
        self.encoder.load_state_dict(encoder.state_dict())

    def load(self, source: Path | BinaryIO) -> None:
        """Continue from a checkpoint. Raises TrainingError when it is of another architecture."""
        state = torch.load(source, map_location=self.device, weights_only=True)
        if config_from_dict(state["encoder"]) != self.encoder.config:
            raise TrainingError(f"the run to resume is not of preset {self.config.preset!r}")
        self.encoder.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.progress.done = self._share_done() >= 1.0
