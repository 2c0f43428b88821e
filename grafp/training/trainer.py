"""The contrastive training loop (paper, section II-C); plain PyTorch, alone or in a worker group.

Every random choice comes from (seed, rank, step), so a run that continues from a checkpoint
sees the batches it would have seen.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from grafp.errors import TrainingError
from grafp.model.features import log_mel
from grafp.model.inference import trusted_dtype
from grafp.model.presets import (
    AnyConfig,
    AnyEncoder,
    build_encoder,
    config_from_dict,
    preset_config,
)
from grafp.training.accumulate import backward_in_parts, embed_without_graph, split
from grafp.training.augment import Augmenter
from grafp.training.config import TrainConfig
from grafp.training.data.sampler import PairSampler
from grafp.training.history import Point, Progress
from grafp.training.loss import gather_with_gradient, nt_xent
from grafp.training.validation import Validation


@dataclass(frozen=True)
class Best:
    """The weights with the best validation of a run so far, the latest among equals."""

    step: int
    hit_rate: float
    weights: dict[str, torch.Tensor]


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
        """`architecture`: instead of the preset's, for refining and studies."""
        torch.manual_seed(config.seed)  # the same first weights on every rank
        self.config, self.sampler, self.augmenter = config, sampler, augmenter
        self.validation, self.device, self.rank, self.world = validation, device, rank, world
        self.encoder = build_encoder(architecture or preset_config(config.preset)).to(device)
        # The names of the encoder's weights stay the same, whatever is wrapped around it.
        self.model: torch.nn.Module = self.encoder
        if config.compile:
            self.model = _compiled(self.encoder)
        if world > 1:
            self.model = DistributedDataParallel(self.model)
        self.reduced = trusted_dtype(self.encoder, device) == torch.bfloat16
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        decayed = [p for p in self.encoder.parameters() if p.ndim > 1]
        others = [p for p in self.encoder.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = kind(groups, lr=config.learning_rate)
        self.progress = Progress()
        self.history: list[Point] = []
        self.best: Best | None = None

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
            self.progress.done = self._share_done() >= 1.0
            every = (self.config.log_every, self.config.validate_every)
            if any(map(self._due, (*every, self.config.checkpoint_every))):
                self._take_stock(torch.stack(losses).mean().item(), len(losses), since)
                report(self.progress, self._due(self.config.checkpoint_every))
                since, losses = time.monotonic(), []
        return self.progress

    def _take_stock(self, loss: float, steps: int, since: float) -> None:
        """Bring progress and history up to date with the last steps; validate if it is time."""
        progress = self.progress
        progress.loss = loss
        pairs = steps * self.config.pairs * self.world
        progress.pairs_per_second = pairs / (time.monotonic() - since)
        progress.seconds_left = progress.seconds * (1 / max(self._share_done(), 1e-9) - 1)
        hit_rate = math.nan
        if self.validation and self._due(self.config.validate_every):
            hit_rate = progress.hit_rate = self.validation.hit_rate(self.encoder, self.device)
            if self.best is None or hit_rate >= self.best.hit_rate:
                weights = self.encoder.state_dict().items()
                copies = {name: value.to("cpu", copy=True) for name, value in weights}
                self.best = Best(progress.step, hit_rate, copies)
        self.history.append(
            Point(
                step=progress.step,
                seconds=progress.seconds,
                time=time.time(),
                loss=loss,
                learning_rate=self.optimizer.param_groups[0]["lr"],
                pairs_per_second=progress.pairs_per_second,
                hit_rate=hit_rate,
            )
        )

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.done

    def _step(self) -> torch.Tensor:
        seed = [self.config.seed, self.rank, self.progress.step]
        anchors_BS, partners_BS = self.sampler.draw(np.random.default_rng(seed), self.progress.step)
        generator = torch.Generator().manual_seed(hash(tuple(seed)) & 0xFFFFFFFF)
        degraded_BS = self.augmenter(partners_BS, generator)
        views_BS = torch.cat([anchors_BS.to(self.device, non_blocking=True), degraded_BS])
        mel_BFT = log_mel(views_BS, self.encoder.config.spectrogram)
        self.augmenter.mask_(mel_BFT[len(anchors_BS) :], generator)
        parts = split(mel_BFT, self.config.accumulate)
        whole = len(parts) == 1
        if whole:
            vectors_BD = self._embed(mel_BFT)
        else:
            vectors_BD = embed_without_graph(self.model, self._embed, parts)
        first_BD, second_BD = vectors_BD.chunk(2)
        if self.world > 1:
            first_BD, second_BD = gather_with_gradient(first_BD), gather_with_gradient(second_BD)
        loss = nt_xent(first_BD, second_BD, self.config.temperature)
        self._check_finite("loss", loss)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if not whole:
            assert vectors_BD.grad is not None
            backward_in_parts(self.model, self._embed, parts, vectors_BD.grad)
        most = self.config.clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), most)
        self._check_finite("gradient", norm)
        self.optimizer.step()
        return loss.detach()

    def _embed(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced):
            vectors_BD: torch.Tensor = self.model(mel_BFT)
        return vectors_BD

    def _check_finite(self, what: str, value: torch.Tensor) -> None:
        """Before the weights change, so that no checkpoint holds what cannot be used."""
        if not math.isfinite(value.item()):
            raise TrainingError(
                f"the {what} became {value.item()} at step {self.progress.step}; "
                "lower the learning rate or look for broken training audio"
            )

    def _share_done(self) -> float:
        if self.config.steps is not None:
            return self.progress.step / self.config.steps
        return self.progress.seconds / (60 * (self.config.minutes or 0.0))

    def _learning_rate(self) -> float:
        config, share = self.config, min(1.0, self._share_done())
        warm = min(1.0, (share + 1e-3) / config.warm_up) if config.warm_up else 1.0
        above = (config.learning_rate - config.final_learning_rate) * 0.5
        return warm * (config.final_learning_rate + above * (1.0 + math.cos(math.pi * share)))

    def _slowest(self, seconds: float) -> float:
        """The largest of all ranks, so that all stop at the same step."""
        if self.world == 1:
            return seconds
        value = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return float(value)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: weights, optimizer, progress, history and the best weights."""
        return {
            "model": self.encoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "history": [vars(point) for point in self.history],
            "best": self.best and vars(self.best),
            "encoder": self.encoder.config.to_dict(),
        }

    def start_from(self, encoder: AnyEncoder) -> None:
        """Begin with a trained encoder's weights. Raises TrainingError on another architecture."""
        if encoder.config != self.encoder.config:
            raise TrainingError(f"the model to start from is not of preset {self.config.preset!r}")
        self.encoder.load_state_dict(encoder.state_dict())

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint. Raises TrainingError when it is of another architecture."""
        if config_from_dict(state["encoder"]) != self.encoder.config:
            raise TrainingError(f"the run to resume is not of preset {self.config.preset!r}")
        self.encoder.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.progress.done = self._share_done() >= 1.0
        self.history = [Point(**values) for values in state["history"]]
        self.best = state["best"] and Best(**state["best"])

    def keep_best(self) -> int:
        """Make the best weights the encoder's; returns the step they are of."""
        if self.best is None:  # no validation
            return self.progress.step
        self.encoder.load_state_dict(self.best.weights)
        self.progress.hit_rate = self.best.hit_rate
        return self.best.step


def _compiled(encoder: AnyEncoder) -> torch.nn.Module:
    """Raises TrainingError at once without a C++ compiler: PyTorch would say so after minutes."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise TrainingError(f"--compile: there is no C++ compiler {compiler}; set CXX, or leave it")
    return cast(torch.nn.Module, torch.compile(encoder))
