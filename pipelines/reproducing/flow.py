"""The paper's results from its data sets: train, index, evaluate, one report beside the paper.

OUT/splits        tables of the tracks to train on and to index
OUT/data          decoded music, noise and impulse responses, for all training runs
OUT/models        a training run for each model
OUT/catalogs      a catalog for each model, hop and database
OUT/evaluations   a report for each row of a table and each offset of Fig. 2
OUT/steps         what is done: the same command continues a run that was interrupted
OUT/report.html, OUT/report.json
"""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import ray

from grafp import storage
from grafp.errors import OptionError
from grafp.evaluation.reproduced import Measured, Trained
from grafp.model.bundle import ModelCard, read_card
from grafp.reports.reproduction import reproduction_report
from grafp.training.config import AugmentConfig, TrainConfig
from grafp.training.data.sampler import groups_needed
from pipelines.common import placement
from pipelines.common.runtime import connect
from pipelines.common.work import ENCODERS, Encoders
from pipelines.reproducing.estimate import estimate, told
from pipelines.reproducing.plan import (
    MODEL_NAMES,
    RESULTS,
    Plan,
    Result,
    in_workers,
    plan,
    training_settings,
)
from pipelines.reproducing.sources import Sources, open_sources, write_tables
from pipelines.reproducing.steps import Steps
from pipelines.reproducing.work import Work

logger = logging.getLogger(__name__)


def reproduce(
    fma: str,
    musan: str,
    air: str,
    out: str,
    *,
    scale: str = "medium",
    results: Sequence[Result] = RESULTS,
    models: Mapping[str, str] | None = None,
    num_workers: int | None = None,
    encoders: Encoders = ENCODERS,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Make the paper's results and the report, or continue; returns the summary.

    Args:
        fma, musan, air: the data sets as they are unpacked.
        scale: one of `pipelines.reproducing.plan.SCALES`.
        results: which of the paper's results, of `RESULTS`.
        models: bundles instead of training, by the name of the model (`MODEL_NAMES`).
        num_workers: of a training run; the batch is divided among them. None: by the scale.
        dry_run: only check and estimate.

    Raises OptionError before any work when a data set or a model cannot be used.
    """
    started = time.monotonic()
    out, design = storage.absolute(out), plan(results, scale)
    given = _given(models or {}, design)
    sources = open_sources(fma, musan, air, design)
    workers = design.scale.num_workers if num_workers is None else num_workers
    configs = _configs(design, given, sources, fma, workers)
    steps = Steps(out)
    cores = _cores()
    expected = estimate(
        design,
        {name: config.to_dict() for name, config in configs.items()},
        {name: len(items) for name, items in sources.splits.items()},
        sources.sound_bytes,
        workers,
        cores,
        steps,
    )
    logger.info(told(expected, cores))
    summary: dict[str, Any] = {"scale": scale, "estimate": [asdict(one) for one in expected]}
    if dry_run:
        return summary
    tables = write_tables(sources, out)
    work = Work(out, steps, sources, tables, encoders, workers)
    trained = {name: work.model(name, configs.get(name), given.get(name)) for name in design.models}
    catalogs = {one: work.catalog(one, trained[one.model], design) for one in design.catalogs}
    measured = [
        work.evaluation(one, catalogs[one.catalog], trained[one.catalog.model], design)
        for one in design.evaluations
    ]
    _write_report(out, scale, measured, list(trained.values()))
    summary |= {"report": storage.join(out, "report.html"), "cells": _cells(measured)}
    return {**summary, "seconds": round(time.monotonic() - started, 1)}


def _cores() -> int:
    """CPU cores of this machine, or of the cluster."""
    if not placement.on_a_cluster():
        return len(os.sched_getaffinity(0))
    connect()
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _given(models: Mapping[str, str], design: Plan) -> dict[str, tuple[str, ModelCard]]:
    """The bundles that are used instead of training."""
    for name in models:
        if name not in design.models:
            why = "is not needed for these results" if name in MODEL_NAMES else "is no model"
            raise OptionError(f"--model {name}={models[name]}: {name} {why}; choose one of "
                              f"{', '.join(design.models)}")  # fmt: skip
    return {name: (uri, read_card(uri)) for name, uri in models.items()}


def _configs(
    design: Plan, given: Mapping[str, Any], sources: Sources, fma: str, workers: int
) -> dict[str, TrainConfig]:
    """The settings of the models to train. Raises OptionError for too little music."""
    configs = {}
    for name in design.models:
        if name in given:
            continue
        settings = in_workers(training_settings(name, design.scale), workers)
        settings["augment"] = settings.get("augment", AugmentConfig())
        config = configs[name] = TrainConfig(**settings)
        needed = groups_needed(config.pairs, config.per_track) * max(1, workers)
        if sources.groups < needed:
            raise OptionError(
                f"--fma {fma}: {sources.groups} albums to train on; a batch of {name} takes "
                f"{needed}, each of another album: choose a smaller --scale"
            )
    return configs


def _write_report(
    out: str, scale: str, measured: Sequence[Measured], models: Sequence[Trained]
) -> None:
    values = {
        "scale": scale,
        "models": [asdict(one) for one in models],
        "measured": [asdict(one) for one in measured],
    }
    html = reproduction_report(scale, measured, models)
    storage.write(storage.join(out, "report.json"), json.dumps(values, indent=1).encode())
    storage.write(storage.join(out, "report.html"), html.encode())


def _cells(measured: Sequence[Measured]) -> dict[str, int]:
    """How many cells each result has."""
    counts: dict[str, int] = {}
    for one in measured:
        counts[one.result] = counts.get(one.result, 0) + len(one.cells)
    return counts
