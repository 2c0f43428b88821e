"""What is new, changed or gone since the published snapshot, and how results join the catalog."""

from dataclasses import dataclass, field

from grafp.audio.formats import FORMATS
from grafp.catalog.tracks import Row
from grafp.index.size import populate_bytes
from grafp.model.fingerprint import DIMENSION
from grafp.storage.sources import Item

MAX_ATTEMPTS = 3
"""A recording that failed so often is left alone until its file changes."""
_BYTES_STORED = 2 * DIMENSION + 44
"""Of a fingerprint: float16 in embedding files; its list, id and code in shards."""
_SHARED = (
    "ordinal", "stored_as", "embedding_file", "embeddings_at", "n_segments", "duration_s",
)  # fmt: skip
_BYTES_A_SECOND = {one.extension: one.bytes_a_second for one in FORMATS}


@dataclass
class Changes:
    """Differences between a listing and the published snapshot."""

    added: list[Item] = field(default_factory=list)
    changed: list[Item] = field(default_factory=list)
    retried: list[Item] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    """URIs that are gone from the source."""
    kept: list[Row] = field(default_factory=list)
    """Rows of the published track table that stay as they are."""
    attempts: dict[str, int] = field(default_factory=dict)
    """Earlier attempts by URI, of recordings that are retried."""
    known: dict[str, Row] = field(default_factory=dict)
    """Published rows that have fingerprints, by the hash of the file they were made from."""

    @property
    def work(self) -> list[Item]:
        return [*self.added, *self.changed, *self.retried]

    def counts(self) -> dict[str, int]:
        """How many of each, by their names in the summary of a run."""
        return {
            "added": len(self.added),
            "changed": len(self.changed),
            "withdrawn": len(self.removed),
            "retried": len(self.retried),
        }


def find_changes(items: list[Item], published: list[Row], source: str) -> Changes:
    """Compare a listing with the published tracks by URI, size and etag.

    Only tracks that came from the same source are removed when they are gone from it. A track
    that was removed by name stays so as long as its file is there.
    """
    known = {row["content_sha256"]: row for row in published if row["status"] == "ok"}
    changes = Changes(known=known)
    before = {row["uri"]: row for row in published}
    for item in items:
        row = before.pop(item.uri, None)
        if row is None:
            changes.added.append(item)
        elif row["status"] == "removed":
            changes.kept.append(row)
        elif item.info and (row["size"], row["etag"]) != (item.info.size, item.info.etag):
            changes.changed.append(item)
        elif row["status"] != "ok" and row["attempts"] < MAX_ATTEMPTS:
            changes.retried.append(item)
            changes.attempts[item.uri] = row["attempts"]
        else:
            changes.kept.append(row)
    for uri, row in before.items():
        if row["source"] == source:
            changes.removed.append(uri)
        else:
            changes.kept.append(row)
    return changes


def estimate(changes: Changes, hop_s: float) -> dict[str, float]:
    """Roughly what the work will bring, from file sizes and what the catalog knows."""
    heard = [row for row in changes.kept if row["status"] == "ok" and row["size"]]
    seconds = 0.0
    for extension in {_extension(item.uri) for item in changes.work}:
        size = sum(i.info.size for i in changes.work if i.info and _extension(i.uri) == extension)
        alike = [row for row in heard if _extension(row["uri"]) == extension]
        rate = _BYTES_A_SECOND.get(extension, _BYTES_A_SECOND[".mp3"])
        if alike:
            rate = sum(row["size"] for row in alike) / sum(row["duration_s"] for row in alike)
        seconds += size / rate
    fingerprints = round(seconds / hop_s)
    return {
        "audio_hours": round(seconds / 3600, 2),
        "fingerprints": fingerprints,
        "stored_mb": round(fingerprints * _BYTES_STORED / 1e6, 1),
        "task_memory_mb": round(populate_bytes(fingerprints) / 1e6),
    }


def join(
    changes: Changes, rows: list[Row], source: str, next_ordinal: int
) -> tuple[list[Row], int]:
    """Number new recordings; a copy of a known recording gets that one's fingerprints instead.

    Returns the whole track table by URI, and the next free ordinal.
    """
    known = dict(changes.known)
    for row in rows:
        row |= {"source": source, "ordinal": None, "stored_as": None}
        twin = known.get(row["content_sha256"]) if row["status"] in ("ok", "skipped") else None
        if twin:
            row |= {name: twin[name] for name in _SHARED} | {"status": "ok"}
        elif row["status"] == "ok":
            row |= {"ordinal": next_ordinal, "stored_as": row["track_id"]}
            known[row["content_sha256"]] = row
            next_ordinal += 1
    return sorted([*changes.kept, *rows], key=lambda row: row["uri"]), next_ordinal


def _extension(uri: str) -> str:
    return "." + uri.rpartition(".")[2].lower()
