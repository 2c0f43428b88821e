"""What an index run will take, by the model of `grafp plan`, and what it took."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from grafp import storage
from grafp.catalog.manifest import Manifest
from grafp.index.size import IndexOptions
from grafp.sizing import Case, plan
from grafp.storage.tables import Row
from pipelines.common.work import Encoders
from pipelines.indexing.run import Run

_MEASURED_AGAIN = 1 / 6
"""Share of new recordings from which a run calibrates: pipelines.indexing.calibrate."""


@dataclass(frozen=True)
class Prices:
    """Of a node for an hour, and of a GB in the store for a month; None: no cost is told."""

    node_hour: float | None = None
    gb_month: float | None = None


NO_PRICES = Prices()


def planned(
    recordings: int,
    seconds: float,
    hop_s: float,
    options: IndexOptions,
    manifest: Manifest | None,
    encoders: Encoders,
    prices: Prices,
) -> dict[str, Any]:
    """What a run will take with so many new recordings, of so many seconds together.

    Args:
        manifest: of the published snapshot, if there is one.

    `core_hours` are those of one core as measured for `grafp plan`, without listing; `hours` those
    by the clock.
    """
    new = max(1, recordings)
    minutes = max(seconds / new / 60, 1 / 60)
    case = Case(
        tracks=new, minutes=minutes, hop=hop_s, new_per_night=new,
        codec=options.codec, lists=options.lists, probes=options.probes,
        encoders=_at_once(encoders),
        price_node_hour=prices.node_hour, price_gb_month=prices.gb_month,
    )  # fmt: skip
    fingerprints = case.segments() * recordings
    there = manifest.counts["fingerprints"] if manifest else 0
    case = replace(case, tracks=new + there / case.segments())
    whole, run = plan(case), "night" if manifest else "build"
    hours = dict(whole.night_hours if manifest else whole.build_hours)
    if manifest and new > _MEASURED_AGAIN * case.tracks:
        hours["calibrate"] = whole.build_hours["calibrate"]
    stored_gb = whole.night_storage_gb if manifest else sum(whole.storage_gb.values())
    head_gb = whole.memory_gb["head, later" if manifest else "head, first run"]
    words = f"--tracks {case.tracks:.0f} --minutes {minutes:.2f} --hop {hop_s:g}"
    return {
        "audio_hours": round(seconds / 3600, 2),
        "fingerprints": fingerprints,
        "bytes_a_fingerprint": round(whole.bytes_a_fingerprint["stored"]),
        "stored_mb": round(1000 * stored_gb, 1),
        "head_memory_mb": round(1000 * head_gb),
        "task_memory_mb": round(1000 * whole.memory_gb["a task that fills lists"]),
        "core_hours": {name: round(value, 4) for name, value in hours.items()},
        "encoders": case.encoders,
        "hours": round(whole.elapsed_hours[run], 3),
        "limited_by": whole.limited_by[run],
        "query_nodes": whole.query_nodes["with vectors on disk"],
        "query_memory_gb": round(sum(whole.query_memory_gb.values()), 2),
        "query_disk_gb": round(whole.query_disk_gb["of each node"]),
        "cost": {name: round(whole.cost[name], 2)
                 for name in (run, "storage a month") if name in whole.cost},
        "plan": f"grafp plan {words} --new-per-night {new} --encoders {case.encoders}",
    }  # fmt: skip


def _at_once(encoders: Encoders) -> int:
    """Encoders of a run; where a cluster decides, as many as that of cluster.yaml has."""
    if encoders.count is not None:
        return max(1, encoders.count)
    return Case.encoders if os.environ.get("RAY_ADDRESS") else os.cpu_count() or 1


def told(expected: dict[str, Any]) -> str:
    """For a person, in some lines."""
    hours = expected["core_hours"]
    parts = ", ".join(f"{name} {value:.3g}" for name, value in hours.items())
    limit, most = expected["limited_by"], expected["encoders"]
    lines = [
        f"about {expected['audio_hours']:,} h of audio, {expected['fingerprints']:,} fingerprints "
        f"of {expected['bytes_a_fingerprint']} bytes, {_size(expected['stored_mb'])} to store",
        f"about {expected['hours']:.3g} h with {most} encoders on CPUs; longest: {limit}",
        f"{sum(hours.values()):.3g} core hours: {parts}",
        f"memory: {_size(expected['head_memory_mb'])} on the head for the recordings, "
        f"{_size(expected['task_memory_mb'])} for a task",
        f"queries: {expected['query_nodes']} machine(s) or more, each with a disk of "
        f"{expected['query_disk_gb']:,} GB; all of the index in memory takes "
        f"{expected['query_memory_gb']:,} GB",
    ]
    if cost := expected["cost"]:
        lines.append("cost: " + ", ".join(f"{name} {value:,.2f}" for name, value in cost.items()))
    return "\n".join([*lines, f"all of it: {expected['plan']}"])


def _size(mb: float) -> str:
    return f"{mb / 1000:,.3g} GB" if mb >= 1000 else f"{mb:,.3g} MB"


def compared(
    run: Run,
    rows: Sequence[Row],
    options: IndexOptions,
    before: Manifest | None,
    encoders: Encoders,
    took_s: float,
) -> dict[str, Any]:
    """For the summary: what the model says of a run that published, and what it took.

    Args:
        rows: one per recording that was worked on.
        before: the manifest that was published before.
        took_s: CPU seconds.
    """
    heard = [row["duration_s"] for row in rows if row["status"] == "ok"]
    expected = planned(len(heard), sum(heard), run.hop_s, options, before, encoders, NO_PRICES)
    return {
        "planned_core_hours": round(sum(expected["core_hours"].values()), 4),
        "core_hours": round(took_s / 3600, 4),
        "planned_stored_mb": expected["stored_mb"],
        "stored_mb": round(_stored_bytes(run, before) / 1e6, 1),
    }


def _stored_bytes(run: Run, before: Manifest | None) -> int:
    """What a run stored: embedding files in its folder, new files of the index, a first model."""
    after, known = run.catalog.manifest, {file.key for file in before.files} if before else set()
    assert after
    folder = storage.join(run.catalog.root, "embeddings", run.model_id, run.run_id)
    embedded = storage.list_files(folder, may_be_missing=True)
    stored = sum(file.bytes for file in after.files if file.key not in known)
    if before is None:
        embedded += storage.list_files(storage.join(run.catalog.root, "models"))
    return stored + sum(info.size for info in embedded)
