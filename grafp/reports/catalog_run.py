"""A page about one run for the catalog's owner."""

from collections import Counter
from html import escape
from typing import Any

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, index_health
from grafp.errors import CatalogError
from grafp.reports.pages import card, cards, page, table

_SHOWN = 100
_LINEAGE = 10


def run_page(catalog: Catalog, summary: dict[str, Any], duplicates: list[dict]) -> str:
    """HTML: what the run did, what failed and why, and the state of the published index."""
    manifest = catalog.manifest
    assert manifest is not None
    seconds = max(summary["seconds"], 1e-9)
    stored = sum(file.bytes for file in manifest.files)
    health = index_health(manifest.shards) if manifest.shards else {}
    trained = manifest.when_trained or {}
    names = ("added", "changed", "retried", "withdrawn", "failed", "resumed")
    facts = [
        ("Tracks that can be found", f"{manifest.counts['tracks']:,}"),
        ("of these, exact copies of another", f"{manifest.counts['copies']:,}"),
        ("Fingerprints", f"{manifest.counts['fingerprints']:,}"),
        ("Recordings that failed so far", f"{manifest.counts['failed']:,}"),
        ("Withdrawn by name", f"{manifest.counts['withdrawn']:,}"),
        ("Audio in this run", f"{summary['audio_hours']:.2f} h"),
        ("Speed", f"{3600 * summary['audio_hours'] / seconds:,.0f} x real time"),
        ("Duration", f"{seconds:,.0f} s"),
        ("Index", f"{stored / 1e6:,.1f} MB in {len(manifest.shards)} shard(s)"),
        ("Canary recall, now / when trained", _pair(health, trained, "canary")),
        ("List imbalance, now / when trained", _pair(health, trained, "imbalance")),
        ("Model", manifest.model_id),
    ]
    failures = summary["failures"][:_SHOWN]
    reasons = Counter(failure["kind"] or "?" for failure in summary["failures"])
    tallied = [(kind, f"{count:,}") for kind, count in reasons.most_common()]
    found = [(failure["uri"], failure["reason"]) for failure in failures]
    twice = [
        (
            pair["track"],
            f"{pair['track_start_s']:.1f}",
            pair["same_as"],
            f"{pair['same_as_start_s']:.1f}",
            f"{pair['score']:.3f}",
        )
        for pair in duplicates[:_SHOWN]
    ]
    lineage = [
        (m.snapshot, m.created, f"{m.counts['tracks']:,}", f"{m.counts['fingerprints']:,}")
        for m in _lineage(catalog, manifest)
    ]
    body = (
        f"<h1>Catalog run</h1><p>Snapshot {escape(manifest.snapshot)}, published "
        f"{escape(manifest.created)}</p>"
        + cards([card(f"{summary[name]:,}", name) for name in names])
        + f"<h2>The catalog now</h2>{table(('', ''), facts)}"
        + f"<h2>Failures: {summary['failed']:,}</h2>"
        + (table(("Reason", "Recordings"), tallied) if tallied else "")
        + table(("Recording", "Why"), found)
        + f"<h2>The same recording twice: {len(duplicates):,}</h2><p>New tracks of which an "
        "excerpt also matches another track; exact copies are not listed.</p>"
        + table(("Track", "at (s)", "Same as", "at (s)", "Score"), twice)
        + "<h2>Snapshots</h2>"
        + table(("Snapshot", "Published", "Tracks", "Fingerprints"), lineage)
    )
    return page(f"Catalog run {manifest.snapshot}", body)


def _pair(now: dict[str, float], then: dict[str, float], name: str) -> str:
    return f"{now.get(name, float('nan')):.3f} / {then.get(name, float('nan')):.3f}"


def _lineage(catalog: Catalog, manifest: Manifest) -> list[Manifest]:
    """This snapshot and those it came from, as far as they were kept."""
    found = [manifest]
    while found[-1].parent and len(found) < _LINEAGE:
        try:
            found.append(catalog.snapshot(found[-1].parent))
        except CatalogError:
            break
    return found
