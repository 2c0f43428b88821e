"""Contrastive training over Ray Train, or in this process with `num_workers=0`.

OUT/run.json       the settings, which --resume takes up
OUT/data           decoded music, noise and rooms, unless they lie elsewhere (grafp/pcm.py)
OUT/data.json      which of them the run uses
OUT/memory         how much music each worker holds
OUT/checkpoint.pt  where the run stands, and its best weights: --resume continues from it
OUT/tensorboard    events for `tensorboard --logdir OUT`
OUT/model          the model bundle: the weights with the best validation, and the curves
OUT/summary.json   steps, loss, hit rate
OUT/run            Ray Train's own
"""

import json
import time
from collections.abc import Callable
from typing import Any

import torch

from grafp import checkpoint, storage
from grafp.augment import AugmentConfig, Augmenter
from grafp.bundle import load_bundle, parse_bundle, save_bundle
from grafp.collect import Collected
from grafp.data import PairSampler, TrainingSet, advice, groups_needed
from grafp.errors import OptionError, TrainingError
from grafp.history import Events, Progress, curves_png
from grafp.share import Budget, Share
from grafp.training import TrainConfig, Trainer
from grafp.validation import Validation
from pipelines import run_settings
from pipelines.collect import collect_all, list_sources

SUMMARY = "summary.json"
_CHECKPOINT = "checkpoint.pt"
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
        resume: continue the run under OUT, which was started with the same settings.

    Raises OptionError when OUT holds a run and `resume` is not set, or one with other settings or
    other music; TrainingError, StorageError.
    """
    started = time.monotonic()
    out = storage.absolute(out)
    first = load_bundle(start_from) if start_from else None
    if first and first.card.get("preset") != config.preset:
        raise TrainingError(f"--start-from {start_from}: not of preset {config.preset!r}")
    uris = {"music": music, "noise": noise, "rooms": rooms}
    uris = {what: uri and storage.absolute(uri) for what, uri in uris.items()}
    data = data and storage.absolute(data)
    settings: dict[str, Any] = {
        "music": uris["music"],
        "noise": uris["noise"],
        "rir": uris["rooms"],
    }
    settings |= {"data": data, "start_from": start_from, **config.to_dict()}
    settings |= {"memory_gb": memory_gb, "num_workers": num_workers}
    _refuse_overwriting(out, settings, resume)
    sources = list_sources(uris)
    if num_workers:
        from pipelines.train_ray import check_workers, train_on_ray

        check_workers(num_workers, gpu)
    run_settings.write(out, settings)
    store = data or storage.join(out, "data")
    collected = collect_all(sources, store, out, resume=resume, on_ray=num_workers > 0, say=say)
    _check_groups(sources[0].uri, collected["music"], config, max(1, num_workers))
    task: dict[str, Any] = {"data": collected, "memory_gb": memory_gb, "out": out, "config": config}
    task |= {"start_from": first and {"model": first.model_id, "files": first.files}}
    if num_workers == 0:
        summary = _train_here(task, gpu, say)
    else:
        summary = train_on_ray(task, num_workers, gpu)
    return {**summary, "seconds": round(time.monotonic() - started, 1)}


def _refuse_overwriting(out: str, settings: dict, resume: bool) -> None:
    if resume:
        run_settings.check(out, settings)
    elif storage.stat(storage.join(out, _CHECKPOINT)):  # a run that saved nothing may begin again
        raise OptionError(f"--out {out} holds a run already: add --resume, or choose another --out")


def _check_groups(uri: str, music: Collected, config: TrainConfig, workers: int) -> None:
    """Raises TrainingError when a worker has too few tracks for a batch."""
    fewest = Share.of(music, 0, workers).fewest_groups
    if fewest < groups_needed(config.pairs, config.per_track):
        usable, _ = music.usable()
        groups = len(set(usable["group"].to_pylist()))
        each = f", {fewest} for each of {workers} workers at least" if workers > 1 else ""
        raise TrainingError(
            f"--music {uri}: {len(usable)} tracks in {groups} groups to train on{each}, "
            + advice(fewest, config.pairs, config.per_track)
        )


def build_trainer(
    task: dict, device: torch.device, rank: int, world: int, say: Callable[[str], None]
) -> tuple[Trainer, dict[str, float]]:
    """Load the data and set up one worker; returns it, and what the card says of the data."""
    config: TrainConfig = task["config"]
    memory = task["memory_gb"]
    budget = Budget.given(memory, device) if memory else Budget.of(task["out"], rank, world, device)
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
        offset_seconds=config.offset_ms / 1000,
        device=device,
    )
    augmenter = Augmenter(data.noises, data.rooms, config.augment, device)
    given = task["start_from"]
    first = parse_bundle(given["files"], given["model"]).encoder if given else None
    architecture = first.config if first else None  # a preset may have changed since
    trainer = Trainer(config, sampler, augmenter, validation, device, rank, world, architecture)
    if first:
        trainer.start_from(first)
    return trainer, data.description


def take_up(trainer: Trainer, task: dict, say: Callable[[str], None]) -> Callable[[], None]:
    """Continue where the run's checkpoint stands, on all ranks; returns what saves one, on rank 0.

    Raises TrainingError when the checkpoint is damaged, StorageError.
    """
    uri = storage.join(task["out"], _CHECKPOINT)
    if state := checkpoint.read(uri):
        trainer.load(state)
        say(f"resumed after step {trainer.progress.step}")
    if trainer.rank:
        return lambda: None
    events = Events(storage.join(task["out"], "tensorboard"), trainer.progress.step)

    def save() -> None:
        events.write(trainer.history)  # before: what the checkpoint lacks is removed later
        checkpoint.write(uri, trainer.state())

    return save


def finish(trainer: Trainer, data: dict[str, float], task: dict, workers: int) -> dict:
    """Write the bundle with the best weights and OUT/summary.json; returns the summary."""
    progress, preset = trainer.progress, trainer.config.preset
    best_step = trainer.keep_best()
    results = {
        "steps": progress.step,
        "loss": _number(progress.loss),
        "hit_rate": _number(progress.hit_rate),
        "best_step": best_step,
    }
    card = {
        "preset": preset,
        "training": trainer.config.to_dict(),
        "started_from": task["start_from"] and task["start_from"]["model"],
        "workers": workers,
        "data": data,
        "results": {**results, "train_seconds": round(progress.seconds)},
    }
    if trainer.validation:
        bias_s = trainer.validation.offset_bias(trainer.encoder, trainer.device)
        card["offset_bias_s"] = round(bias_s, 4)
    title = f"{preset}: {progress.step:,} steps in {progress.seconds / 60:.0f} min"
    curves = curves_png(trainer.history, title, best_step if trainer.best else None)
    uri = storage.join(task["out"], "model")
    model_id = save_bundle(uri, trainer.encoder, card, {"training.png": curves})
    summary = {**results, "model": uri, "model_id": model_id}
    storage.write(storage.join(task["out"], SUMMARY), json.dumps(summary).encode())
    return summary


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 4) if value == value else None


def _train_here(task: dict, gpu: bool | None, say: Callable[[str], None]) -> dict:
    if gpu and not torch.cuda.is_available():
        raise OptionError("--gpu: this machine has no GPU that PyTorch sees; leave it out")
    use_gpu = torch.cuda.is_available() if gpu is None else gpu
    device = torch.device("cuda" if use_gpu else "cpu")
    trainer, data = build_trainer(task, device, 0, 1, say)
    save = take_up(trainer, task, say)

    def report(progress: Progress, checkpoint_due: bool) -> None:
        say(progress.line())
        if checkpoint_due:
            save()

    trainer.run(report)
    return finish(trainer, data, task, 0)
