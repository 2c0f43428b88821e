"""Contrastive training over Ray Train, or in this process with `num_workers=0`.

OUT/run.json       the settings, which --resume continues with
OUT/data           decoded music, noise and impulse responses, unless --data says otherwise
OUT/data.json      which of them the run uses
OUT/memory         how much music each worker holds
OUT/checkpoint.pt  weights, optimizer, progress and best weights: --resume continues from it
OUT/tensorboard    events for `tensorboard --logdir OUT`
OUT/model          the model bundle: the weights with the best validation, and the curves
OUT/summary.json   steps, loss, hit rate
OUT/run            files of Ray Train
"""

import logging
import time
from typing import Any

import torch

from grafp import storage
from grafp.datasets import Kind
from grafp.errors import OptionError, TrainingError
from grafp.model.bundle import ModelBundle, load_bundle
from grafp.model.presets import PRESETS, build_encoder, preset_config
from grafp.training.config import TrainConfig
from grafp.training.data.partition import Share
from grafp.training.data.prepare import Collected
from grafp.training.data.sampler import advice, groups_needed
from grafp.training.history import Progress
from pipelines.training import run_file
from pipelines.training.prepare import collect_all, list_sources
from pipelines.training.worker import CHECKPOINT, build_trainer, finish, resume_run

logger = logging.getLogger(__name__)


def train_model(
    music: str,
    out: str,
    config: TrainConfig,
    *,
    noise: str | None = None,
    rirs: str | None = None,
    start_from: str | None = None,
    data: str | None = None,
    memory_gb: float | None = None,
    num_workers: int = 1,
    gpu: bool | None = None,
    resume: bool = False,
) -> dict:
    """Train a model and leave a bundle under OUT/model; returns the run's summary.

    Args:
        music, noise, rirs: folders, prefixes or tables of recordings; None: no noise, and no
            impulse responses.
        start_from: model whose weights to begin with, by name or URI; None: random weights.
        data: where decoded audio is kept, for other runs to use too; None: OUT/data.
        memory_gb: of music that a worker may hold; None: half of what is free.
        num_workers: Ray Train workers; 0 trains in this process, without Ray.
        gpu: None uses one per worker where the cluster has them.
        resume: continue the run under OUT, which was started with the same settings.

    Raises OptionError when OUT holds a run and `resume` is not set, or one with other settings or
    other music; TrainingError, StorageError.
    """
    started = time.monotonic()
    out = storage.absolute(out)
    first = load_bundle(start_from) if start_from else None
    if first and not _is_of(first, config.preset):
        raise TrainingError(f"--start-from {start_from}: not of preset {config.preset!r}")
    if first is None and config.preset not in PRESETS:
        build_encoder(preset_config(config.preset))  # refused now, not after decoding all music
    given: dict[Kind, str | None] = {"music": music, "noise": noise, "rir": rirs}
    uris = {what: uri and storage.absolute(uri) for what, uri in given.items()}
    data = data and storage.absolute(data)
    settings: dict[str, Any] = {str(what): uri for what, uri in uris.items()}
    settings |= {"data": data, "start_from": start_from, **config.to_dict()}
    settings |= {"memory_gb": memory_gb, "num_workers": num_workers}
    _refuse_overwriting(out, settings, resume)
    sources = list_sources(uris)
    if num_workers:
        from pipelines.training.worker_group import check_workers, train_on_ray

        check_workers(num_workers, gpu)
    run_file.write(out, settings)
    store = data or storage.join(out, "data")
    collected = collect_all(
        sources, store, out, resume=resume, on_ray=num_workers > 0, held_out=config.held_out
    )
    config = _fitted(sources[0].uri, collected["music"], config, max(1, num_workers))
    task: dict[str, Any] = {"data": collected, "memory_gb": memory_gb, "out": out, "config": config}
    task |= {"start_from": first and {"model": first.model_id, "files": first.files}}
    summary = train_on_ray(task, num_workers, gpu) if num_workers else _train_here(task, gpu)
    return {**summary, "seconds": round(time.monotonic() - started, 1)}


def _is_of(model: ModelBundle, preset: str) -> bool:
    """By name, since a preset may have changed since; or by its sizes, if it had another name."""
    return model.card.get("preset") == preset or model.encoder.config == PRESETS.get(preset)


def _refuse_overwriting(out: str, settings: dict, resume: bool) -> None:
    if resume:
        run_file.check(out, settings)
    elif storage.stat(storage.join(out, CHECKPOINT)):  # a run that saved nothing may begin again
        raise OptionError(f"--out {out} holds a run already: add --resume, or choose another --out")


def _fitted(uri: str, music: Collected, config: TrainConfig, workers: int) -> TrainConfig:
    """The settings, with the number of steps that their epochs take with this music.

    Raises TrainingError when a worker has too few tracks for a batch.
    """
    usable, _ = music.usable()
    fewest = Share.of(music, 0, workers).fewest_groups
    if fewest < groups_needed(config.pairs, config.per_track):
        groups = len(set(usable["group"].to_pylist()))
        each = f", {fewest} for each of {workers} workers at least" if workers > 1 else ""
        raise TrainingError(
            f"--music {uri}: {len(usable)} tracks in {groups} groups to train on{each}, "
            + advice(fewest, config.pairs, config.per_track)
        )
    config = config.for_tracks(len(usable), workers)
    if config.epochs:
        logger.info(f"epochs: {config.epochs}, of {len(usable)} tracks: {config.steps} steps")
    return config


def _train_here(task: dict, gpu: bool | None) -> dict:
    """Run `task` in this process; returns the summary."""
    if gpu and not torch.cuda.is_available():
        raise OptionError("--gpu: this machine has no GPU that PyTorch sees; leave it out")
    use_gpu = torch.cuda.is_available() if gpu is None else gpu
    device = torch.device("cuda" if use_gpu else "cpu")
    trainer, data = build_trainer(task, device, 0, 1)
    save = resume_run(trainer, task)

    def report(progress: Progress, checkpoint_due: bool) -> None:
        logger.info(progress.line())
        if checkpoint_due:
            save()

    trainer.run(report)
    return finish(trainer, data, task, 0)
