"""What a run will take, before it begins: hours by measured rates of a CPU core, and storage.

No GPU was measured. docs/results/speed.md and docs/results/training.md have the rates and the
commands that measure them; catalogs are estimated like `python -m grafp.plan` does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grafp import sizing as sizes
from grafp.audio import SAMPLE_RATE
from grafp.model.fingerprint import HOP_SECONDS, segment_count
from pipelines.reproducing.plan import CatalogPlan, EvaluationPlan, Plan
from pipelines.reproducing.steps import Steps

_TRACK_S = 30.0  # of FMA's clips
_MODEL_GB = 0.4  # checkpoint and bundle
# Of a core. grafprint has the rates of grafprint-readout, ast-published trains like ast; nafp and
# ast-published were not measured in encoding, and are taken to be as fast as the graph network.
_PAIRS_A_SECOND = {"grafprint": 16.5, "nafp": 11.9, "ast-published": 28.8}
_SEGMENTS_A_SECOND = {"grafprint": 64.0, "nafp": 64.0, "ast-published": 64.0}
_CODES_A_SECOND = 3.38e8  # of 32 bytes: PQ64x4fs, and hashes of 256 bits
_PQ64_SLOWER = 9.0  # docs/results/scale.md
_LISTS_SEARCHED = 16
_CUT_S = 0.02  # cutting and degrading a clip
_PCM_BYTES = 2 * SAMPLE_RATE  # a second of decoded audio


@dataclass(frozen=True)
class Expected:
    """A step that is not done yet."""

    step: str
    hours: float
    """Of all cores together."""
    gb: float
    """Storage that it adds, 10^9 bytes."""


def estimate(
    design: Plan,
    training: Mapping[str, Mapping[str, Any]],
    tracks: Mapping[Any, int],
    sound_bytes: int,
    workers: int,
    cores: int,
    steps: Steps,
) -> list[Expected]:
    """The steps that are left, in their order.

    Args:
        training: settings of the models to train, by name.
        tracks: by split.
        sound_bytes: of noise and impulse responses.
        workers: of a training run; `pairs` in `training` are for each.
    """
    found = []
    if any(steps.done(f"models-{name}") is None for name in training):
        seconds = tracks["train"] * _TRACK_S
        decoding = seconds / sizes.Case.decode_rate / 3600
        found.append(Expected("data", decoding, (seconds * _PCM_BYTES + sound_bytes) / 1e9))
    for name, settings in training.items():
        pairs = settings["pairs"] * max(1, workers) * (settings["steps"] or 0)
        if settings["epochs"]:
            pairs = settings["epochs"] * tracks["train"] * settings["per_track"]
        found.append(
            Expected(f"models-{name}", pairs / _PAIRS_A_SECOND[_preset(name)] / 3600, _MODEL_GB)
        )
    for catalog in design.catalogs:
        planned = sizes.plan(_case(catalog, tracks[catalog.split]))
        stored = _stored_gb(planned, design)
        found.append(
            Expected(f"catalogs-{catalog.name}", sum(planned.build_hours.values()), stored)
        )
    for one in design.evaluations:
        hours = _evaluation_hours(one, design, tracks)
        gb = 0.0
        if one.invented:
            planned = sizes.plan(_case(one.catalog, tracks["larger"]))
            gb = _stored_gb(planned, design)
            hours += planned.build_hours["lists and codes"] + planned.build_hours["train"]
        found.append(Expected(f"evaluations-{one.name}", hours, gb))
    left = [one for one in found if one.step == "data" or steps.done(one.step) is None]
    return [Expected(one.step, round(one.hours / cores, 2), round(one.gb, 2)) for one in left]


def told(expected: list[Expected], cores: int) -> str:
    """The estimate for a person."""
    lines = [f"{one.step:36}{one.hours:10,.1f} h{one.gb:10,.1f} GB" for one in expected]
    hours, gb = sum(one.hours for one in expected), sum(one.gb for one in expected)
    total = f"{'all':36}{hours:10,.1f} h{gb:10,.1f} GB"
    head = (
        f"estimate for {cores} CPU cores and clips of {_TRACK_S:g} s; "
        "no GPU was measured, one takes a fraction of the hours"
    )
    return "\n".join([head, *lines, total])


def _preset(model: str) -> str:
    return "ast-published" if model == "ast" else model.partition("-")[0]


def _case(catalog: CatalogPlan, tracks: int) -> sizes.Case:
    rate = _SEGMENTS_A_SECOND[_preset(catalog.model)]
    return sizes.Case(
        tracks=max(1, tracks), minutes=_TRACK_S / 60, hop=catalog.hop_s, encoder_rate=rate
    )


def _stored_gb(planned: sizes.Plan, design: Plan) -> float:
    codes = planned.index_gb_by_codec[design.scale.index.codec or planned.index.codec]
    return sum({**planned.storage_gb, "codes": codes}.values())


def _evaluation_hours(one: EvaluationPlan, design: Plan, tracks: Mapping[Any, int]) -> float:
    """Cutting, fingerprints and search of all clips."""
    hop_s = one.catalog.hop_s if one.query_hop == "catalog" else HOP_SECONDS
    asked = [segment_count(round(s * SAMPLE_RATE), round(hop_s * SAMPLE_RATE)) for s in one.seconds]
    cuts = design.scale.queries * len(one.snr_db) * 2
    case = _case(one.catalog, tracks["larger" if one.invented else one.catalog.split])
    codes = case.tracks * case.segments()
    if one.search == "index":
        lists = design.scale.index.lists or max(1, math.isqrt(int(codes)))
        codes *= min(1.0, _LISTS_SEARCHED / lists) * (
            _PQ64_SLOWER if design.scale.index.codec else 1.0
        )
    seconds = len(asked) * _CUT_S + sum(asked) * (1 / case.encoder_rate + codes / _CODES_A_SECOND)
    return cuts * seconds / 3600
