"""What a nightly run has to do, and how the results join what the catalog has."""

from dataclasses import dataclass, field
from typing import Any

from grafp.model.fingerprint import DIMENSION
from grafp.storage.sources import Item
from pipelines.indexing.build import filling_bytes

MAX_ATTEMPTS = 3
"""A recording that failed so often is left alone until its file changes."""
# Bytes of a fingerprint: float16 in embeddings and for re-ranking, PQ code and id.
_BYTES_STORED = 2 * 2 * DIMENSION + 32 + 8
_BYTES_A_SECOND = {".wav": 176_400, ".flac": 100_000}  # where the catalog gives no better idea
_COMPRESSED_BYTES_A_SECOND = 20_000

Row = dict[str, Any]
"""A row of the track table, see grafp.catalog.tracks.TRACK_SCHEMA."""


@dataclass
class Plan:
    """Differences between a listing and the published snapshot."""

    added: list[Item] = field(default_factory=list)
    changed: list[Item] = field(default_factory=list)
    retried: list[Item] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    kept: list[Row] = field(default_factory=list)
    """Rows of the published track table that stay as they are."""
    attempts: dict[str, int] = field(default_factory=dict)
    known: dict[str, Row] = field(default_factory=dict)
    """Published rows that have fingerprints, by the hash of the file they were made from."""

    @property
    def work(self) -> list[Item]:
        return [*self.added, *self.changed, *self.retried]

    def counts(self) -> dict[str, int]:
        names = ("added", "changed", "withdrawn", "retried")
        return {name: len(getattr(self, name)) for name in names}


def make_plan(items: list[Item], published: list[Row], source: str) -> Plan:
    """Compare a listing with the published tracks by URI, size and etag.

    Only tracks that came from the same source can be withdrawn by being absent from it. A track
    withdrawn by name stays so as long as its file is there.
    """
    plan = Plan(known={row["content_sha256"]: row for row in published if row["status"] == "ok"})
    before = {row["uri"]: row for row in published}
    for item in items:
        row = before.pop(item.uri, None)
        if row is None:
            plan.added.append(item)
        elif row["status"] == "withdrawn":
            plan.kept.append(row)
        elif item.info and (row["size"], row["etag"]) != (item.info.size, item.info.etag):
            plan.changed.append(item)
        elif row["status"] != "ok" and row["attempts"] < MAX_ATTEMPTS:
            plan.retried.append(item)
            plan.attempts[item.uri] = row["attempts"]
        else:
            plan.kept.append(row)
    for uri, row in before.items():
        if row["source"] == source:
            plan.withdrawn.append(uri)
        else:
            plan.kept.append(row)
    return plan


def estimate(plan: Plan, hop_s: float) -> dict[str, float]:
    """Roughly what a plan's work will bring, from file sizes and what the catalog knows."""
    heard = [row for row in plan.kept if row["status"] == "ok" and row["size"]]
    seconds = 0.0
    for extension in {_extension(item.uri) for item in plan.work}:
        size = sum(i.info.size for i in plan.work if i.info and _extension(i.uri) == extension)
        alike = [row for row in heard if _extension(row["uri"]) == extension]
        rate = _BYTES_A_SECOND.get(extension, _COMPRESSED_BYTES_A_SECOND)
        if alike:
            rate = sum(row["size"] for row in alike) / sum(row["duration_s"] for row in alike)
        seconds += size / rate
    fingerprints = round(seconds / hop_s)
    return {
        "audio_hours": round(seconds / 3600, 2),
        "fingerprints": fingerprints,
        "stored_mb": round(fingerprints * _BYTES_STORED / 1e6, 1),
        "task_memory_mb": round(filling_bytes(fingerprints) / 1e6),
    }


def join(plan: Plan, rows: list[Row], source: str, next_ordinal: int) -> tuple[list[Row], int]:
    """Number new recordings; a copy of a known recording gets that one's fingerprints instead.

    Returns the whole track table by URI, and the next free ordinal.
    """
    known = dict(plan.known)
    for row in rows:
        row |= {"source": source, "ordinal": None, "stored_as": None}
        twin = known.get(row["content_sha256"]) if row["status"] in ("ok", "skipped") else None
        if twin:
            same = ("ordinal", "stored_as", "embedding_file", "n_segments", "duration_s")
            row |= {name: twin[name] for name in same} | {"status": "ok"}
        elif row["status"] == "ok":
            row |= {"ordinal": next_ordinal, "stored_as": row["track_id"]}
            known[row["content_sha256"]] = row
            next_ordinal += 1
    return sorted([*plan.kept, *rows], key=lambda row: row["uri"]), next_ordinal


def _extension(uri: str) -> str:
    return "." + uri.rpartition(".")[2].lower()
