"""The worker group of a training run: Ray Train starts it, and again when a worker dies."""

import json
import logging
import os
from typing import Any

import ray
import ray.train
import torch
from ray.train import (
    ControllerError,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from ray.train.torch import TorchTrainer, get_device

from grafp import storage
from grafp.errors import ClusterError, GrafpError, OptionError
from grafp.training.history import Progress
from pipelines.common import logs, placement
from pipelines.common.runtime import connect
from pipelines.training.worker import SUMMARY, build_trainer, finish, resume_run

logger = logging.getLogger(__name__)

_RUN_NAME = "run"


def train_on_ray(task: dict, num_workers: int, gpu: bool | None) -> dict:
    """Run `task` on a group of workers; returns the summary that rank 0 reported last."""
    connect()
    need = _needs(num_workers, gpu)
    there = int(ray.cluster_resources().get("CPU", 1))
    path, filesystem = storage.arrow_filesystem(task["out"])
    trainer = TorchTrainer(
        _worker,
        train_loop_config={**task, "threads": max(1, there // num_workers)},
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu="GPU" in need,
            resources_per_worker=need,
        ),
        run_config=RunConfig(
            name=_RUN_NAME,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=2),
            callbacks=[_OnFailure()],
            logging_config=LoggingConfig("CRITICAL"),  # Ray's log files keep its stack traces
        ),
    )
    try:
        trainer.fit()
    except ControllerError as error:
        if isinstance(error.controller_failure, GrafpError):
            raise error.controller_failure from None
        raise
    return json.loads(storage.read(storage.join(task["out"], SUMMARY)))


def check_workers(num_workers: int, gpu: bool | None) -> None:
    """Check that this machine has enough for the workers, before audio is decoded for hours.

    A cluster may still grow; it is checked when the workers start.

    Raises OptionError when this machine is too small.
    """
    connect()
    if not placement.on_a_cluster():
        _needs(num_workers, gpu)


class _OnFailure(UserCallback):
    """Ends the run with an error that a worker raised on purpose: it would raise it again.

    After any other failure Ray Train starts the workers again.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        for error in worker_exceptions.values():
            if isinstance(error, GrafpError):
                raise error
        logs.show()  # this is a process of its own
        for rank, error in worker_exceptions.items():
            reason = " ".join(str(error).split())[:200]
            logger.error(f"worker {rank} failed: {type(error).__name__}: {reason}")


def _needs(num_workers: int, gpu: bool | None) -> placement.Bundle:
    """Resources for each worker. Raises OptionError, on a cluster ClusterError, if they lack.

    Less than a whole CPU each where there are no more: the rest of Ray needs some.
    """
    there = ray.cluster_resources()
    need = {"CPU": 0.5 if there.get("CPU", 1) <= num_workers else 1.0}
    if gpu or (gpu is None and there.get("GPU", 0) >= num_workers):
        need["GPU"] = 1
    if placement.available([need] * num_workers, f"{num_workers} training workers"):
        return need
    each = " and ".join(f"{amount:g} {name}" for name, amount in need.items())
    text = f"--num-workers {num_workers}: each needs {each}; there are {placement.what_there_is()}"
    if placement.on_a_cluster():
        raise ClusterError(f"{text} after {placement.wait_seconds():g} s")
    raise OptionError(text)


def _worker(task: dict) -> None:
    for chatty in ("botocore", "aiobotocore", "ray.train"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(min(task["threads"], len(os.sched_getaffinity(0))))

    logs.show(logging.INFO if rank == 0 else logging.WARNING)
    trainer, data = build_trainer(task, device, rank, world)
    save, warned = resume_run(trainer, task), False

    def report(progress: Progress, checkpoint_due: bool) -> None:
        nonlocal warned
        logger.info(progress.line())
        leaving = ray.train.get_preemption_info() is not None
        if leaving and not warned:
            logger.info("this machine will be preempted: saving a checkpoint")
        checkpoint_due, warned = checkpoint_due or (leaving and not warned), leaving
        if checkpoint_due:
            save()
        ray.train.report(vars(progress).copy())

    trainer.run(report)
    if rank == 0:
        finish(trainer, data, task, world)
