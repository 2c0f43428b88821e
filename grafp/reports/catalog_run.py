"""An HTML report about one indexing run, for the owner of the catalog."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, index_health
from grafp.errors import CatalogError, StorageError
from grafp.index.calibration import RATES, Calibration
from grafp.reports.pages import render

if TYPE_CHECKING:
    from grafp.reports.charts import Chart

_SHOWN = 100
_LINEAGE = 10
_RUNS = 30  # in the charts
_SUMMARY = "/summary.json"
_CHARTED = (
    "tracks", "fingerprints", "added", "changed", "withdrawn", "failed", "audio_hours", "seconds",
)  # fmt: skip
_COUNTS = {
    "added": "added",
    "changed": "changed",
    "retried": "retried",
    "withdrawn": "removed",
    "failed": "failed",
    "resumed": "resumed",
}
"""Keys of the summary, and what the report calls them."""


def run_report(
    catalog: Catalog, summary: dict[str, Any], duplicates: Sequence[dict[str, Any]]
) -> str:
    """What the run did, what failed and why, and the state of the published index."""
    manifest = catalog.manifest
    assert manifest is not None
    runs = _past_runs(catalog, manifest)
    reasons = Counter(failure["kind"] or "?" for failure in summary["failures"])
    return render(
        "catalog_run.html",
        title="Catalog run",
        manifest=manifest,
        counts=[(label, summary[name]) for name, label in _COUNTS.items()],
        facts=_facts(manifest, summary),
        rates=[f"{100 * rate:g} %" for rate in RATES],
        laws=_laws(manifest.calibration) if manifest.calibration else [],
        failed=summary["failed"],
        reasons=[(kind, f"{count:,}") for kind, count in reasons.most_common()],
        failures=[(f["uri"], f["reason"]) for f in summary["failures"][:_SHOWN]],
        duplicates=len(duplicates),
        looked_for=summary["near_duplicates_looked_for"],
        new=summary["embedded"],
        pairs=[_pair(pair) for pair in duplicates[:_SHOWN]],
        runs=len(runs),
        charts=_charts(runs),
        history=_history(runs),
        lineage=[
            (m.snapshot, m.created, f"{m.counts['tracks']:,}", f"{m.counts['fingerprints']:,}")
            for m in _lineage(catalog, manifest)
        ],
    )


def _facts(manifest: Manifest, summary: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = max(summary["seconds"], 1e-9)
    stored = sum(file.bytes for file in manifest.files)
    now = index_health(manifest.shards) if manifest.shards else {}
    then = manifest.when_trained or {}
    return [
        ("Tracks that can be found", f"{manifest.counts['tracks']:,}"),
        ("of these, exact copies of another", f"{manifest.counts['copies']:,}"),
        ("Fingerprints", f"{manifest.counts['fingerprints']:,}"),
        ("Recordings that failed so far", f"{manifest.counts['failed']:,}"),
        ("Removed by name", f"{manifest.counts['withdrawn']:,}"),
        ("Audio in this run", f"{summary['audio_hours']:.2f} h"),
        ("Speed", f"{3600 * summary['audio_hours'] / seconds:,.0f} x real time"),
        ("Duration", f"{seconds:,.0f} s"),
        ("CPU hours, planned / taken", _both(summary, "core_hours", ".3g")),
        ("Stored, planned / taken", _both(summary, "stored_mb", ",.1f") + " MB"),
        ("Index", f"{stored / 1e6:,.1f} MB in {len(manifest.shards)} shard(s)"),
        ("Recall of probes, now / when trained", _now_and_then(now, then, "recall")),
        ("List imbalance, now / when trained", _now_and_then(now, then, "imbalance")),
        ("Model", manifest.model_id),
    ]


def _laws(calibration: Calibration) -> list[list[str]]:
    """By length: queries, and for each target rate the evidence and where the true rate lies."""
    rows = []
    for seconds, one in calibration.by_length.items():
        row = [f"{seconds} s", f"{one.clips:,}"]
        for rate in RATES:
            low, high = (f"{100 * true:.2g}" for true in one.intervals[f"{rate:g}"])
            row.append(f"{one.law.evidence(rate):.3f} ({low} to {high} %)")
        rows.append(row)
    return rows


def _both(summary: dict[str, Any], name: str, form: str) -> str:
    return f"{summary[f'planned_{name}']:{form}} / {summary[name]:{form}}"


def _now_and_then(now: dict[str, float], then: dict[str, float], name: str) -> str:
    return " / ".join(f"{state[name]:.3f}" if name in state else "-" for state in (now, then))


def _pair(pair: dict[str, Any]) -> tuple[str, ...]:
    """A row of duplicates.parquet as text."""
    return (
        pair["track"],
        f"{pair['track_start_s']:.1f}",
        pair["same_as"],
        f"{pair['same_as_start_s']:.1f}",
        f"{pair['score']:.3f}",
    )


def _past_runs(catalog: Catalog, manifest: Manifest) -> list[tuple[str, dict[str, Any]]]:
    """Ids and summaries of runs, oldest first, this one last; damaged ones are left out."""
    folder = storage.join(catalog.root, "runs")
    files = storage.list_files(folder, (_SUMMARY,), may_be_missing=True)
    names = sorted(info.uri.split("/")[-2] for info in files)  # an id begins with its time
    found = []
    for name in [one for one in names if one <= manifest.snapshot][-_RUNS:]:
        try:
            summary = json.loads(storage.read(storage.join(folder, name + _SUMMARY)))
        except (StorageError, ValueError):
            continue
        if _is_charted(summary):
            found.append((name, summary))
    return found


def _is_charted(summary: Any) -> bool:
    """Whether a summary has all that is charted, as numbers: nobody checks what lies in runs/."""
    values = [summary.get(name) for name in _CHARTED] if isinstance(summary, dict) else [None]
    return all(isinstance(value, int | float) and 0 <= value < math.inf for value in values)


def _charts(runs: Sequence[tuple[str, dict[str, Any]]]) -> list["Chart"]:
    """How the catalog grew, what runs did, what failed, and how fast they were."""
    if len(runs) < 2:
        return []
    from grafp.reports.charts import Axis, Line, line_chart, rising  # imports Matplotlib: a second

    number = list(range(1 - len(runs), 1))
    x = Axis("runs, the last one at 0", rising(number[0], 0, whole=True))

    def chart(title: str, *columns: str, whole: bool = True) -> "Chart":
        lines = []
        for color, name in enumerate(columns):
            values = [_charted(summary, name) for _, summary in runs]
            label = _COUNTS[name] if len(columns) > 1 else ""
            tips = [
                f"{run}: {_told(value)} {label}".strip() for (run, _), value in zip(runs, values)
            ]
            lines.append(Line(label, number, values, color, tips=tips))
        top = max(max(line.y) for line in lines)
        return line_chart(title, lines, x, Axis("", rising(0, top, whole=whole)))

    return [
        chart("Tracks that can be found", "tracks"),
        chart("Fingerprints", "fingerprints"),
        chart("Recordings added", "added"),
        chart("Recordings changed or removed", "changed", "withdrawn"),
        chart("Recordings that failed", "failed"),
        chart("Audio, h", "audio_hours", whole=False),
        chart("Speed, x real time", "speed", whole=False),
        chart("Duration, s", "seconds", whole=False),
    ]


def _history(runs: Sequence[tuple[str, dict[str, Any]]]) -> list[list[str]]:
    """The numbers of the charts, the last run first."""
    return [
        [str(number), run, *(_told(_charted(summary, name)) for name in (*_CHARTED, "speed"))]
        for number, (run, summary) in zip(range(0, -len(runs), -1), reversed(runs))
    ]


def _charted(summary: dict[str, Any], name: str) -> float:
    """A number of a summary, or its speed: seconds of audio in a second."""
    if name != "speed":
        return float(summary[name])
    return float(3600 * summary["audio_hours"] / summary["seconds"]) if summary["seconds"] else 0.0


def _told(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"


def _lineage(catalog: Catalog, manifest: Manifest) -> list[Manifest]:
    """This snapshot and its ancestors, as far as they were kept."""
    found = [manifest]
    while found[-1].parent and len(found) < _LINEAGE:
        try:
            found.append(catalog.snapshot(found[-1].parent))
        except CatalogError:
            break
    return found
