"""The report of the last of some made-up index runs."""

import json
from typing import Any

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, StoredFile
from grafp.reports.catalog_run import run_report

NO_FILE = StoredFile("tracks", 0, "")


def summary_of(number: int) -> dict[str, Any]:
    """A run that added 40 tracks in an hour; each later one is faster."""
    return {
        "added": 40, "changed": number % 3, "retried": 1, "withdrawn": 2, "failed": number % 5,
        "resumed": 0, "tracks": 40 * number, "fingerprints": 84_000 * number, "audio_hours": 2.5,
        "seconds": 3600.0 / number, "failures": [], "embedded": 40,
        "near_duplicates_looked_for": 40, "planned_core_hours": 1.0, "core_hours": 1.2,
        "planned_stored_mb": 25.0, "stored_mb": 25.2,
    }  # fmt: skip


def report_after(runs: int, root: str) -> str:
    """Of run number `runs`, with the summaries of all before it in the catalog."""
    for number in range(1, runs + 1):
        uri = f"{root}/runs/{name_of(number)}/summary.json"
        storage.write(uri, json.dumps(summary_of(number)).encode())
    last = summary_of(runs)
    manifest = Manifest(
        snapshot=name_of(runs), parent=None, created="2026-01-02", model_id="m", model_sha256="",
        hop_s=0.1, trained_index=None, parameters=None, when_trained=None, layers=[],
        tracks=NO_FILE, positions=NO_FILE, gone=NO_FILE, next_ordinal=0,
        counts={**last, "copies": 0},
    )  # fmt: skip
    return run_report(Catalog(root, manifest), last, [])


def name_of(run: int) -> str:
    return f"20260102T0304{run:02}-abcdef"
