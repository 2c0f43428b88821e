"""What an index run will take, by the model of `grafp.plan`, and what it took."""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from grafp import storage
from grafp.audio import declared_seconds
from grafp.catalog.changes import Changes, extension_of, seconds_a_byte
from grafp.catalog.manifest import Manifest
from grafp.errors import AudioError, StorageError
from grafp.index.size import IndexOptions, populate_bytes
from grafp.plan import Case, plan
from grafp.storage.sources import Item, read_recording
from grafp.storage.tables import Row
from pipelines.common.apart import Apart
from pipelines.indexing.run import Run

_SAMPLED = 24
"""New recordings of each extension whose headers are read."""


def planned(
    recordings: int,
    seconds: float,
    hop_s: float,
    options: IndexOptions,
    manifest: Manifest | None,
) -> dict[str, Any]:
    """What a run will take with so many new recordings, of so many seconds together.

    Args:
        manifest: of the published snapshot, if there is one.

    Hours are of one core as measured for `grafp.plan`, without listing and calibration.
    """
    new = max(1, recordings)
    minutes = max(seconds / new / 60, 1 / 60)
    case = Case(
        tracks=new, minutes=minutes, hop=hop_s, new_per_night=new,
        codec=options.codec, lists=options.lists, probes=options.probes,
    )  # fmt: skip
    fingerprints = case.segments() * recordings
    there = manifest.counts["fingerprints"] if manifest else 0
    case = replace(case, tracks=new + there / case.segments())
    whole = plan(case)
    hours = dict(whole.night_hours)
    if manifest is None:
        hours["train"] = whole.build_hours["train"]
    stored_gb = sum(whole.storage_gb.values()) * recordings / case.tracks
    nodes = whole.query_nodes["for memory"]
    return {
        "audio_hours": round(seconds / 3600, 2),
        "fingerprints": fingerprints,
        "stored_mb": round(1000 * stored_gb, 1),
        "task_memory_mb": round(populate_bytes(fingerprints) / 1e6),
        "core_hours": {name: round(value, 4) for name, value in hours.items()},
        "limited_by": max(hours, key=lambda name: hours[name]),
        "query_nodes": nodes,
        "query_memory_gb": round(sum(whole.query_memory_gb.values()), 2),
        "query_disk_gb": round(whole.query_disk_gb["for memory"], 2),
        "plan": f"grafp plan --tracks {case.tracks:.0f} --minutes {minutes:.2f} --hop {hop_s:g} "
        f"--new-per-night {new}",
    }


def audio_seconds(changes: Changes) -> float:
    """Of new and changed recordings: by the headers of some, by the catalog, or by their size."""
    by_extension: dict[str, list[Item]] = {}
    for item in changes.work:
        by_extension.setdefault(extension_of(item.uri), []).append(item)
    seconds = 0.0
    for extension, items in by_extension.items():
        size = sum(item.info.size for item in items if item.info)
        rate = _measured(items) or seconds_a_byte(changes, extension)
        seconds += size * rate
    return seconds


def _measured(items: Sequence[Item]) -> float | None:
    """Seconds a byte of some of these recordings; None if no header says."""
    some = random.Random(0).sample(list(items), min(_SAMPLED, len(items)))

    seconds, size = 0.0, 0
    with Apart() as process:  # a hostile file does no harm there
        for item in some:
            with suppress(AudioError, StorageError):
                data = read_recording(item.location, item.info.size if item.info else None)
                if length := process.call(declared_seconds, data):
                    seconds, size = seconds + length, size + len(data)
    return seconds / size if size else None


def told(expected: dict[str, Any]) -> str:
    """For a person, in some lines."""
    hours = expected["core_hours"]
    parts = ", ".join(f"{name} {value:.3g}" for name, value in hours.items())
    return (
        f"about {expected['audio_hours']} h of audio, {expected['fingerprints']:,} fingerprints, "
        f"{expected['stored_mb']:,} MB to store, {expected['task_memory_mb']:,} MB for a task\n"
        f"about {sum(hours.values()):.3g} core hours: {parts}; most is {expected['limited_by']}\n"
        f"queries: {expected['query_nodes']} machine(s), {expected['query_memory_gb']:,} GB of "
        f"memory and {expected['query_disk_gb']:,} GB of disk each\n"
        f"with prices and limits: {expected['plan']} --price-cpu-hour PRICE --price-gb-month PRICE"
    )


def compared(
    run: Run, rows: Sequence[Row], options: IndexOptions, before: Manifest | None, took_s: float
) -> dict[str, Any]:
    """For the summary: what the model says of a run that published, and what it took.

    Args:
        rows: one per recording that was worked on.
        before: the manifest that was published before.
        took_s: CPU seconds.
    """
    heard = [row["duration_s"] for row in rows if row["status"] == "ok"]
    expected = planned(len(heard), sum(heard), run.hop_s, options, before)
    return {
        "planned_core_hours": round(sum(expected["core_hours"].values()), 4),
        "core_hours": round(took_s / 3600, 4),
        "planned_stored_mb": expected["stored_mb"],
        "stored_mb": round(_stored_bytes(run, before) / 1e6, 1),
    }


def _stored_bytes(run: Run, before: Manifest | None) -> int:
    """Of embedding files in the run's folder, and files of the index that are new."""
    after, known = run.catalog.manifest, {file.key for file in before.files} if before else set()
    assert after
    folder = storage.join(run.catalog.root, "embeddings", run.model_id, run.run_id)
    embedded = storage.list_files(folder, may_be_missing=True)
    new = sum(file.bytes for file in after.files if file.key not in known)
    return new + sum(info.size for info in embedded)
