"""The worker group of a training run: Ray Train starts it, restarts it and keeps checkpoints."""

import json
import logging
import os
import sys
import tempfile
from pathlib import Path

import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from grafp import storage
from grafp.errors import OptionError
from grafp.training import Progress
from pipelines.runtime import connect
from pipelines.train import SUMMARY, build_trainer, finish

_RUN_NAME = "run"
_STATE = "state.pt"


def train_on_ray(task: dict, num_workers: int, gpu: bool | None) -> dict:
    """Run `task` on a group of workers; returns the summary that rank 0 reported last."""
    connect()
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    if gpu and gpus < num_workers:
        raise OptionError(f"--gpu: {num_workers} workers need as many GPUs, the cluster has {gpus}")
    use_gpu = gpus >= num_workers if gpu is None else gpu
    cpus = resources.get("CPU", 1)
    # Less than a whole processor each where there are no more: the rest of Ray needs some.
    share = 0.5 if cpus <= num_workers else 1.0
    if share * num_workers > cpus:
        raise OptionError(f"--num-workers {num_workers}: the cluster has {cpus:g} processors")
    path, filesystem = storage.arrow_filesystem(task["out"])
    trainer = TorchTrainer(
        _worker,
        train_loop_config={**task, "threads": max(1, int(cpus // num_workers))},
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": share, "GPU": int(use_gpu)},
        ),
        run_config=RunConfig(
            name=_RUN_NAME,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    trainer.fit()
    return json.loads(storage.read(storage.join(task["out"], SUMMARY)))


def _worker(task: dict) -> None:
    for chatty in ("botocore", "aiobotocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(min(task["threads"], len(os.sched_getaffinity(0))))

    def say(line: str) -> None:
        if rank == 0:
            sys.stdout.write(f"{line}\n")  # Ray Train makes two lines of what is printed
            sys.stdout.flush()

    trainer, data = build_trainer(task, device, rank, world, say)
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            trainer.load(Path(folder) / _STATE)
        say(f"resumed after step {trainer.progress.step}")

    def report(progress: Progress, checkpoint_due: bool) -> None:
        say(progress.line())
        metrics = vars(progress).copy()
        if rank or not checkpoint_due:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(Path(folder) / _STATE)
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))

    trainer.run(report)
    if rank == 0:
        finish(trainer, data, task, world)
