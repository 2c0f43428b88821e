"""A page about one run for the catalogue's owner."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from grafp.catalogue import Catalogue, Manifest
from grafp.errors import CatalogueError
from pipelines.shards import IndexState

_SHOWN = 100
_LINEAGE = 10


def run_page(catalogue: Catalogue, summary: dict[str, Any], duplicates: list[dict]) -> str:
    """HTML: what the run did, what failed and why, and the state of the published index."""
    manifest = catalogue.manifest
    assert manifest is not None
    seconds = max(summary["seconds"], 1e-9)
    stored = sum(file.bytes for file in manifest.files)
    health = IndexState.of(manifest).health() if manifest.shards else {}
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
        ("Index", f"{len(manifest.shards)} shards, {stored / 1e6:,.1f} MB"),
        ("Canary recall, now / when trained", _pair(health, trained, "canary")),
        ("List imbalance, now / when trained", _pair(health, trained, "imbalance")),
        ("Model", manifest.model_id),
    ]
    failures = summary["failures"][:_SHOWN]
    reasons = Counter(failure["kind"] or "?" for failure in summary["failures"])
    return _TEMPLATE.format(
        snapshot=escape(manifest.snapshot),
        created=escape(manifest.created),
        cards="".join(
            f'<div class="card"><b>{summary[name]:,}</b><h2>{name}</h2></div>' for name in names
        ),
        facts=_table(("", ""), facts),
        failed=summary["failed"],
        reasons=_table(("Reason", "Recordings"), [(k, str(n)) for k, n in reasons.most_common()]),
        failures=_table(("Recording", "Why"), [(f["uri"], f["reason"]) for f in failures]),
        near=len(duplicates),
        duplicates=_table(
            ("Track", "at (s)", "Same as", "at (s)", "Score"),
            [
                (
                    pair["track"],
                    f"{pair['track_start_s']:.1f}",
                    pair["same_as"],
                    f"{pair['same_as_start_s']:.1f}",
                    f"{pair['score']:.3f}",
                )
                for pair in duplicates[:_SHOWN]
            ],
        ),
        lineage=_table(
            ("Snapshot", "Published", "Tracks", "Fingerprints"),
            [
                (m.snapshot, m.created, f"{m.counts['tracks']:,}", f"{m.counts['fingerprints']:,}")
                for m in _lineage(catalogue, manifest)
            ],
        ),
    )


def _pair(now: dict[str, float], then: dict[str, float], name: str) -> str:
    return f"{now.get(name, float('nan')):.3f} / {then.get(name, float('nan')):.3f}"


def _lineage(catalogue: Catalogue, manifest: Manifest) -> list[Manifest]:
    """This snapshot and those it came from, as far as they were kept."""
    found = [manifest]
    while found[-1].parent and len(found) < _LINEAGE:
        try:
            found.append(catalogue.snapshot(found[-1].parent))
        except CatalogueError:
            break
    return found


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return "<p>None.</p>"
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows
    )
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{lines}</table>"


_TEMPLATE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Catalogue run {snapshot}</title>
<style>
body{{font:16px/1.5 system-ui,sans-serif;color:#1c2430;max-width:70rem}}
body{{margin:2rem auto;padding:0 1rem}}
.cards{{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:1rem}}
.card{{border:1px solid #d5dbe3;border-radius:.6rem;padding:1rem}}
.card b{{font-size:2rem;color:#0b5cad}} .card h2{{font-size:1rem;margin:0}}
table{{border-collapse:collapse;font-size:.9rem;min-width:50%}}
td,th{{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #e4e8ee}}
td{{overflow-wrap:anywhere}} h2{{margin-top:2rem}} .card h2{{margin:0}}
</style>
<h1>Catalogue run</h1><p>Snapshot {snapshot}, published {created}</p>
<div class="cards">{cards}</div>
<h2>The catalogue now</h2>{facts}
<h2>Failures: {failed}</h2>{reasons}{failures}
<h2>The same recording twice: {near}</h2>
<p>New tracks of which an excerpt also matches another track; exact copies are not listed.</p>
{duplicates}
<h2>Snapshots</h2>{lineage}
</html>
"""
