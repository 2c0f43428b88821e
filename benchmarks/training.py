#!/usr/bin/env python3
"""Training speed: pairs per second of each preset, where a step's time goes, memory, workers.

    python benchmarks/training.py
    python benchmarks/training.py --presets grafprint-readout --pairs 256 --gpu

Every row is a process of its own that trains on synthesized music, with reverberation and noise,
from random weights. "choosing neighbors" is the k-NN graph (paper, section II-B), "aggregating" is
eq. 2 with its gradient; both are parts of the network's share. The rows "as published" have the
graph of the usual code instead: all distances, a partial sort, the neighbors' differences kept for
the gradient. Two workers share a global batch over gloo.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.common import cli

PARTS = {
    "data": "loading",
    "augment": "augmenting",
    "mel": "log-mel",
    "knn": "choosing neighbors",
    "aggregate": "aggregating",
    "optimizer": "optimizer",
}


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--presets",
        default="small,grafprint-readout,nafp,ast-small,ast",
        help="by name, with commas",
    )
    parser.add_argument("--pairs", type=cli.positive_int, default=64, help="in a worker's batch")
    parser.add_argument("--seconds", type=cli.positive_float, default=20.0, help="per row, s")
    parser.add_argument("--gpu", action="store_true", help="on a GPU; one worker then")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp.model.presets import PRESETS

    names = chosen.presets.split(",")
    if unknown := set(names) - set(PRESETS):
        raise cli.OptionError(f"--presets: no preset {unknown.pop()!r}; {', '.join(PRESETS)}")
    rows = [(name, False, 1, 1) for name in names]
    rows += [
        (name, True, 1, 1) for name in names if name == "small" or name.startswith("grafprint")
    ]
    rows += [(name, False, 1, 4) for name in names if name == "small"]
    if not chosen.gpu:
        rows += [(name, False, 2, 1) for name in names if name == "small"]
    print(f"{chosen.pairs} pairs a worker, {'a GPU' if chosen.gpu else 'one thread'} each\n")
    heads = ["pairs/s", "network", *PARTS.values(), "memory, MiB"]
    print(f"| preset | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|")
    results = {}
    for name, published, workers, parts in rows:
        title = f"{name}, {workers} workers" if workers > 1 else name
        title += ", as published" if published else ""
        title += f", --accumulate {parts}" if parts > 1 else ""
        results[title] = row = _measure(name, published, workers, parts, chosen)
        shares = [f"{100 * row['share'][part]:.1f} %" for part in ("network", *PARTS)]
        print(f"| {title} | {row['pairs_per_second']:.1f} | {' | '.join(shares)} | {row['mib']} |")
    return results, cli.DONE


def _measure(
    preset: str, published: bool, workers: int, parts: int, chosen: argparse.Namespace
) -> dict:
    import torch.multiprocessing as processes

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        work = (chosen.pairs, parts, chosen.seconds, chosen.gpu, result)
        processes.spawn(_worker, (preset, published, workers, *work), nprocs=workers)
        return json.loads(result.read_bytes())


def _worker(
    rank: int,
    preset: str,
    published: bool,
    workers: int,
    pairs: int,
    parts: int,
    seconds: float,
    gpu: bool,
    result: Path,
) -> None:
    import torch
    import torch.distributed as dist

    import grafp.model.graph

    torch.set_num_threads(1)
    if workers > 1:
        rendezvous = f"file://{result}.rendezvous"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=workers)
    trainer = _trainer(preset, pairs, parts, torch.device("cuda" if gpu else "cpu"), rank, workers)
    trainer.model.train()
    aggregation = _publish() if published else grafp.model.graph._MaxOverNeighbors
    trainer._step()  # the first one allocates
    clock = _Clock(trainer, aggregation)
    # All ranks take as many steps, each long enough to be timed.
    started, steps = time.perf_counter(), 0
    while steps < 3 or clock.enough(started, seconds, workers):
        clock.timed("step", trainer._step)()
        steps += 1
    if rank == 0:
        spent = clock.seconds
        share = {part: spent.get(part, 0.0) / spent["step"] for part in PARTS}
        outside = ("data", "augment", "mel", "optimizer")
        share["network"] = 1 - sum(share[part] for part in outside)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if gpu:
            peak = torch.cuda.max_memory_allocated() / 2**20
        row = {
            "pairs_per_second": steps * pairs * workers / spent["step"],
            "steps": steps,
            "share": {part: round(value, 4) for part, value in share.items()},
            "mib": round(peak),
        }
        result.write_text(json.dumps(row))
    if workers > 1:
        os._exit(0)  # gloo's threads outlive the last exchange


class _Clock:
    """Wraps the parts of a training step and adds up the time spent in each."""

    def __init__(self, trainer, aggregation) -> None:
        import grafp.model.encoder
        import grafp.training.trainer
        from grafp.training.augment import Augmenter
        from grafp.training.data.sampler import PairSampler

        self.device = trainer.device
        self.seconds: dict[str, float] = {}
        self._wrap(PairSampler, "draw", "data")
        self._wrap(Augmenter, "__call__", "augment")
        self._wrap(grafp.training.trainer, "log_mel", "mel")
        self._wrap(grafp.model.encoder, "nearest_neighbors", "knn")
        self._wrap(grafp.model.encoder, "max_relative", "aggregate")
        aggregation.backward = staticmethod(self.timed("aggregate", aggregation.backward))
        self._wrap(trainer.optimizer, "step", "optimizer")

    def _wrap(self, owner, name: str, part: str) -> None:
        setattr(owner, name, self.timed(part, getattr(owner, name)))

    def timed(self, part: str, function: Callable) -> Callable:
        def call(*arguments, **named):
            started = self._now()
            value = function(*arguments, **named)
            self.seconds[part] = self.seconds.get(part, 0.0) + self._now() - started
            return value

        return call

    def _now(self) -> float:
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def enough(self, started: float, seconds: float, workers: int) -> bool:
        """Whether there is time left; what rank 0 thinks goes for all."""
        import torch
        import torch.distributed as dist

        left = torch.tensor([float(time.perf_counter() - started < seconds)])
        if workers > 1:
            dist.broadcast(left, 0)
        return bool(left)


def _trainer(preset: str, pairs: int, parts: int, device, rank: int, world: int):
    import torch

    from grafp.audio import synthesis
    from grafp.training.augment import Augmenter
    from grafp.training.config import AugmentConfig, TrainConfig
    from grafp.training.data.buffer import Waveforms
    from grafp.training.data.sampler import PairSampler
    from grafp.training.trainer import Trainer

    def pcm(sound_S):
        return torch.from_numpy((sound_S * 32767).astype("int16"))

    pieces = [pcm(synthesis.piece(seed, 6.0)) for seed in range(32)]
    pieces = [piece.roll(i) for i in range(0, 4 * 1600, 1600) for piece in pieces]
    random = torch.Generator().manual_seed(0)
    noises = [(3000 * torch.randn(80_000, generator=random)).short() for _ in range(50)]
    fading_S = torch.exp(-torch.arange(16_000) / 2000)
    rirs = [torch.randn(16_000, generator=random) * fading_S for _ in range(50)]
    config = TrainConfig(preset=preset, steps=1 << 30, pairs=pairs, accumulate=parts)
    return Trainer(
        config,
        PairSampler(Waveforms.of(pieces, device=device), pairs, config.per_track),
        Augmenter(noises, rirs, AugmentConfig(), device),
        None,
        device,
        rank,
        world,
    )


def _publish():
    """Put the usual way to a graph into the encoder; returns its aggregation."""
    import torch
    import torch.nn.functional as F

    import grafp.model.encoder

    def nearest_neighbors(nodes_BNC: torch.Tensor, k: int) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(nodes_BNC.device.type, enabled=False):
            unit_BNC = F.normalize(nodes_BNC.float(), dim=-1)
            return torch.cdist(unit_BNC, unit_BNC).topk(k, largest=False).indices

    def max_relative(nodes_BNC: torch.Tensor, index_BNK: torch.Tensor) -> torch.Tensor:
        batch_B11 = torch.arange(len(nodes_BNC), device=nodes_BNC.device)[:, None, None]
        return (nodes_BNC[batch_B11, index_BNK] - nodes_BNC.unsqueeze(2)).amax(dim=2)

    class Aggregation(torch.autograd.Function):
        """So that autograd's own gradient of `max_relative` can be timed."""

        @staticmethod
        def forward(ctx, nodes_BNC, index_BNK):
            with torch.enable_grad():
                ctx.inside = nodes_BNC.detach().requires_grad_()
                ctx.result = max_relative(ctx.inside, index_BNK)
            return ctx.result.detach()

        @staticmethod
        def backward(ctx, grad_BNC):
            return *torch.autograd.grad(ctx.result, ctx.inside, grad_BNC), None

    usual = {"nearest_neighbors": nearest_neighbors, "max_relative": Aggregation.apply}
    vars(grafp.model.encoder).update(usual)
    return Aggregation


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
