"""Contrastive training over Ray Train, or in this process with `num_workers=0`.

OUT/run           Ray Train's checkpoints: --resume continues from the newest
OUT/checkpoint.pt the same without Ray
OUT/data          decoded music, noise and rooms, unless they lie elsewhere (grafp/pcm.py)
OUT/data.json     which of them the run uses
OUT/memory        how much music each worker holds
OUT/model         the model bundle
OUT/summary.json  steps, loss, hit rate
"""

import io
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from grafp import storage
from grafp.augment import AugmentConfig, Augmenter
from grafp.bundle import load_bundle, parse_bundle, save_bundle
from grafp.collect import Collected
from grafp.data import PairSampler, TrainingSet, advice, groups_needed
from grafp.errors import OptionError, TrainingError
from grafp.share import Budget, Share
from grafp.training import Progress, TrainConfig, Trainer
from grafp.validation import Validation
from pipelines.collect import collect_all, list_sources

SUMMARY = "summary.json"
VALIDATION_AUGMENT = AugmentConfig(reverb=0.5, music_noise=0.0, snr_db=(0.0, 20.0))


def train_model(
    music: str,
    out: str,
    config: TrainConfig,
    *,
    noise: str | None = None,
    rooms: str | None = None,
    start_from: str | None = None,
    data: str | None = None,
    memory_gb: float | None = None,
    num_workers: int = 1,
    gpu: bool | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Train a model and leave a bundle under OUT/model; returns the run's summary.

    Args:
        start_from: model whose weights to begin with, by name or URI; None: random weights.
        data: where decoded audio is kept, for other runs to use too; None: OUT/data.
        memory_gb: of music that a worker may hold; None: half of what is free.
        num_workers: Ray Train workers; 0 trains in this process, without Ray.
        gpu: None uses one per worker where the cluster has them.
        resume: continue the run under OUT; its settings are taken from `config`.

    Raises OptionError when OUT holds a run and `resume` is not set, or when that run began with
    other music; TrainingError, StorageError.
    """
    started = time.monotonic()
    out = storage.absolute(out)
    first = load_bundle(start_from) if start_from else None
    sources = list_sources({"music": music, "noise": noise, "rooms": rooms})
    _refuse_overwriting(out, resume)
    if num_workers:
        from pipelines.train_ray import check_workers, train_on_ray

        check_workers(num_workers, gpu)
    store = storage.absolute(data) if data else storage.join(out, "data")
    collected = collect_all(sources, store, out, resume=resume, on_ray=num_workers > 0, say=say)
    _check_groups(sources[0].uri, collected["music"], config, max(1, num_workers))
    storage.write(storage.join(out, "started"), b"")
    task: dict[str, Any] = {"data": collected, "memory_gb": memory_gb, "out": out, "config": config}
    task |= {"start_from": first and {"model": first.model_id, "files": first.files}}
    task |= {"resume": resume}
    if num_workers == 0:
        summary = _train_here(task, gpu, say)
    else:
        summary = train_on_ray(task, num_workers, gpu)
    return {**summary, "seconds": round(time.monotonic() - started, 1)}


def _refuse_overwriting(out: str, resume: bool) -> None:
    exists = storage.stat(storage.join(out, "started")) is not None
    if exists and not resume:
        raise OptionError(f"--out {out} holds a run already: add --resume, or choose another --out")
    collecting = storage.join(out, "collecting")
    if resume and not exists and storage.stat(collecting) is None:
        raise OptionError(f"--resume: there is no run under --out {out}")
    storage.write(collecting, b"")  # a run that fails before it trains may begin again, or resume


def _check_groups(uri: str, music: Collected, config: TrainConfig, workers: int) -> None:
    """Raises TrainingError when a worker has too few tracks for a batch."""
    fewest = Share.of(music, 0, workers).fewest_groups
    if fewest < groups_needed(config.pairs, config.per_track):
        usable = music.usable(held=False)
        groups = len(set(usable["group"].to_pylist()))
        each = f", {fewest} for each of {workers} workers at least" if workers > 1 else ""
        raise TrainingError(
            f"--music {uri}: {len(usable)} tracks in {groups} groups to train on{each}, "
            + advice(fewest, config.pairs, config.per_track)
        )


def build_trainer(
    task: dict, device: torch.device, rank: int, world: int, say: Callable[[str], None]
) -> tuple[Trainer, TrainingSet]:
    """Load the data and set up one worker."""
    config: TrainConfig = task["config"]
    given = task["memory_gb"]
    budget = Budget.given(given, device) if given else Budget.of(task["out"], rank, world, device)
    data = TrainingSet.open(task["data"], budget, device, config.seed, rank, world, say)
    validation = None
    if data.validation:
        held = data.validation
        augmenter = Augmenter(held.noises, held.rooms, VALIDATION_AUGMENT, device)
        validation = Validation.build(held.tracks, augmenter)
    sampler = PairSampler(
        data.music,
        config.pairs,
        config.per_track,
        offset_seconds=config.offset_seconds,
        device=device,
    )
    augmenter = Augmenter(data.noises, data.rooms, config.augment, device)
    trainer = Trainer(config, sampler, augmenter, validation, device, rank, world)
    if first := task["start_from"]:
        trainer.start_from(parse_bundle(first["files"], first["model"]).encoder)
    return trainer, data


def finish(trainer: Trainer, data: TrainingSet, task: dict, workers: int) -> dict:
    """Write the bundle and OUT/summary.json; returns the summary."""
    progress = trainer.progress
    results = {
        "steps": progress.step,
        "loss": _number(progress.loss),
        "hit_rate": _number(progress.hit_rate),
    }
    card = {
        "preset": trainer.config.preset,
        "training": trainer.config.to_dict(),
        "started_from": task["start_from"] and task["start_from"]["model"],
        "workers": workers,
        "data": data.description,
        "results": {**results, "train_seconds": round(progress.seconds)},
    }
    uri = storage.join(task["out"], "model")
    model_id = save_bundle(uri, trainer.encoder, card)
    summary = {**results, "model": uri, "model_id": model_id}
    storage.write(storage.join(task["out"], SUMMARY), json.dumps(summary).encode())
    return summary


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 4) if value == value else None


def _train_here(task: dict, gpu: bool | None, say: Callable[[str], None]) -> dict:
    use_gpu = torch.cuda.is_available() if gpu is None else gpu
    device = torch.device("cuda" if use_gpu else "cpu")
    trainer, data = build_trainer(task, device, 0, 1, say)
    checkpoint = storage.join(task["out"], "checkpoint.pt")
    if task["resume"] and storage.stat(checkpoint):
        trainer.load(io.BytesIO(storage.read(checkpoint)))
        say(f"resumed after step {trainer.progress.step}")

    def report(progress: Progress, checkpoint_due: bool) -> None:
        say(progress.line())
        if checkpoint_due:
            buffer = io.BytesIO()
            trainer.save(buffer)
            storage.write(checkpoint, buffer.getvalue())

    trainer.run(report)
    return finish(trainer, data, task, 0)
