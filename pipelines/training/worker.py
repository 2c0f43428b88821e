"""One worker of a training run, over Ray or in this process: set up, resume, finish."""

import json
import logging
from collections.abc import Callable

import torch

from grafp import storage
from grafp.model.background import CLIP_SECONDS, FILE, background_to_bytes
from grafp.model.bundle import load_bundle, parse_bundle, save_bundle
from grafp.model.inference import Fingerprinter
from grafp.training import checkpoint
from grafp.training.augment import Augmenter
from grafp.training.background import make_background
from grafp.training.config import AugmentConfig, TrainConfig
from grafp.training.data.partition import Budget
from grafp.training.data.prepare import Collected
from grafp.training.data.sampler import Held, PairSampler, TrainingSet
from grafp.training.history import Events, curves_png
from grafp.training.trainer import Trainer
from grafp.training.validation import Validation

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.pt"
VALIDATION_AUGMENT = AugmentConfig(reverb=0.5, music_noise=0.0, snr_db=(0.0, 20.0))


def build_trainer(
    task: dict, device: torch.device, rank: int, world: int
) -> tuple[Trainer, dict[str, float]]:
    """Load the data and set up one worker; returns it, and numbers of recordings for the card."""
    config: TrainConfig = task["config"]
    memory = task["memory_gb"]
    budget = Budget.given(memory, device) if memory else Budget.of(task["out"], rank, world, device)
    data = TrainingSet.open(task["data"], budget, device, config.seed, rank, world)
    validation = None
    if data.validation:
        held = data.validation
        augmenter = Augmenter(held.noises, held.rirs, VALIDATION_AUGMENT, device)
        validation = Validation.build(held.tracks, augmenter)
    sampler = PairSampler(
        data.music,
        config.pairs,
        config.per_track,
        offset_seconds=config.offset_ms / 1000,
        device=device,
    )
    augmenter = Augmenter(data.noises, data.rirs, config.augment, device)
    given = task["start_from"]
    first = parse_bundle(given["files"], given["model"]).encoder if given else None
    architecture = first.config if first else None  # a preset may have changed since
    trainer = Trainer(config, sampler, augmenter, validation, device, rank, world, architecture)
    if first:
        trainer.start_from(first)
    return trainer, data.description


def resume_run(trainer: Trainer, task: dict) -> Callable[[], None]:
    """Continue from the run's checkpoint, on all ranks; returns a function that saves one.

    On other ranks than 0 it saves nothing.

    Raises TrainingError when the checkpoint is damaged, StorageError.
    """
    uri = storage.join(task["out"], CHECKPOINT)
    if state := checkpoint.read(uri):
        trainer.load(state)
        logger.info(f"resumed after step {trainer.progress.step}")
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
        correction_s = trainer.validation.offset_correction(trainer.encoder, trainer.device)
        card["offset_correction_s"] = round(correction_s, 4)
    title = f"{preset}: {progress.step:,} steps in {progress.seconds / 60:.0f} min"
    curves = curves_png(trainer.history, title, best_step if trainer.best else None)
    uri = storage.join(task["out"], "model")
    model_id = save_bundle(uri, trainer.encoder, card, {"training.png": curves})
    _add_background(uri, task["data"])
    summary = {**results, "model": uri, "model_id": model_id}
    storage.write(storage.join(task["out"], SUMMARY), json.dumps(summary).encode())
    return summary


def _add_background(uri: str, collected: dict[str, Collected]) -> None:
    """Fingerprint degraded clips of the validation music with the trained model."""
    held = Held.load(collected)
    bundle = load_bundle(uri)
    background = held and make_background(
        [track.numpy() for track in held.tracks],
        [noise.numpy() for noise in held.noises],
        [rir.numpy() for rir in held.rirs],
        Fingerprinter.from_encoder(bundle.encoder),
    )
    if background:
        storage.write(storage.join(uri, FILE), background_to_bytes(background, bundle.sha256))
    else:
        logger.warning(
            f"{uri} has no background, since no validation track has {CLIP_SECONDS:g} s: its "
            "answers will have no false-positive rate; python -m grafp.training.background adds one"
        )


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 4) if value == value else None
