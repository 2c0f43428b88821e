"""What is new, changed or gone since the published snapshot, and how results join the catalog.

Tracks that stay as they are stay in Arrow's tables: only those with work become Python's objects.
"""

import binascii
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grafp.audio.formats import FORMATS
from grafp.catalog.tracks import TRACK_SCHEMA, Row, has_status
from grafp.storage import FileInfo
from grafp.storage.sources import Item
from grafp.storage.tables import table_of

MAX_ATTEMPTS = 3
"""A recording that failed so often is left alone until its file changes."""
_SHARED = (
    "ordinal", "stored_as", "embedding_file", "embeddings_at", "n_segments", "duration_s",
)  # fmt: skip
_BYTES_A_SECOND = {one.extension: one.bytes_a_second for one in FORMATS}
_NO_COPY = "its hash begins like that of another recording; the next run decodes it"
_PREFIX = 16  # hexadecimal digits of a content hash
_ROWS_AT_ONCE = 1 << 16
LISTING_SCHEMA = pa.schema(
    [
        *(TRACK_SCHEMA.field(name) for name in ("uri", "size", "etag", "modified")),
        ("location", pa.large_string()),  # null: the URI
    ]
)


@dataclass
class Changes:
    """Differences between a listing and the published snapshot."""

    published: pa.Table
    """The track table of the snapshot."""
    kept_N: np.ndarray
    """Which of its rows stay as they are, bool."""
    added: list[Item]
    changed: list[Item]
    retried: list[Item]
    removed: int
    """Tracks that are gone from the source."""
    attempts: dict[str, int] = field(default_factory=dict)
    """Earlier attempts by URI, of recordings that are retried."""

    @property
    def work(self) -> list[Item]:
        return [*self.added, *self.changed, *self.retried]

    def counts(self) -> dict[str, int]:
        """How many of each, by their names in the summary of a run."""
        return {
            "added": len(self.added),
            "changed": len(self.changed),
            "withdrawn": self.removed,
            "retried": len(self.retried),
        }


def listing_of(items: Iterable[Item]) -> pa.Table:
    """Recordings as a table with the columns of LISTING_SCHEMA."""
    left = iter(items)
    parts = [LISTING_SCHEMA.empty_table()]
    while some := [_listed(item) for item in itertools.islice(left, _ROWS_AT_ONCE)]:
        parts.append(table_of(some, LISTING_SCHEMA))
    return pa.concat_tables(parts)


def _listed(item: Item) -> Row:
    info = item.info
    return {
        "uri": item.uri,
        "size": info.size if info else None,
        "etag": info.etag if info else None,
        "modified": info.modified if info else None,
        "location": item.location if item.location != item.uri else None,
    }


def _items(listing: pa.Table) -> list[Item]:
    items = []
    for row in listing.to_pylist():
        location = row["location"] or row["uri"]
        known = row["size"] is not None
        info = FileInfo(location, row["size"], row["etag"], row["modified"]) if known else None
        items.append(Item(row["uri"], location, info, {}))
    return items


def find_changes(listing: pa.Table, published: pa.Table, source: str) -> Changes:
    """Compare a listing (see `listing_of`) with the published tracks by URI, size and etag.

    Only tracks that came from the same source are removed when they are gone from it. A track
    that was removed by name stays so as long as its file is there.
    """
    row_L = pc.index_in(listing["uri"], value_set=published["uri"])
    old_L = row_L.is_valid()
    row_K, known = row_L.drop_null().to_numpy(), listing.filter(old_L)  # K: listed and published
    before = published.select(["uri", "status", "size", "etag", "attempts"]).take(row_K)
    stays_removed_K = has_status(before, "removed")
    same_K = _equal(known["size"], before["size"]) & _equal(known["etag"], before["etag"])
    differs_K = known["size"].is_valid().to_numpy() & ~(same_K | stays_removed_K)
    few_K = pc.fill_null(pc.less(before["attempts"], MAX_ATTEMPTS), False).to_numpy()
    again_K = few_K & ~(has_status(before, "ok") | stays_removed_K | differs_K)
    kept_N = np.ones(len(published), bool)
    kept_N[row_K] = False
    gone_N = kept_N & _equal(published["source"], source)
    kept_N &= ~gone_N
    kept_N[row_K[~(differs_K | again_K)]] = True
    again = before.filter(again_K)
    return Changes(
        published,
        kept_N,
        added=_items(listing.filter(pc.invert(old_L))),
        changed=_items(known.filter(differs_K)),
        retried=_items(known.filter(again_K)),
        removed=int(gone_N.sum()),
        attempts=dict(zip(again["uri"].to_pylist(), again["attempts"].to_pylist(), strict=True)),
    )


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray | str) -> np.ndarray:
    """Which values are equal, bool; an unknown one is not."""
    equal_N: np.ndarray = pc.fill_null(pc.equal(one, other), False).to_numpy()
    return equal_N


def known_hashes(published: pa.Table) -> np.ndarray:
    """The beginning of each content hash that has fingerprints, uint64, ascending; for `is_known`.

    Eight bytes a track, for all decoders of a machine together. Two recordings may have the same
    beginning. The second fails (see `join`), and its beginning is left out here, so that the next
    run decodes it.
    """
    heard = _beginnings(published["content_sha256"].filter(has_status(published, "ok")))
    failed = _beginnings(published["content_sha256"].filter(has_status(published, "failed")))
    return np.setdiff1d(heard, failed)


def is_known(known_H: np.ndarray, content_sha256: str) -> bool:
    """Whether a recording with this hash most likely has fingerprints."""
    beginning = np.uint64(int(content_sha256[:_PREFIX], 16))
    place = int(np.searchsorted(known_H, beginning))
    return place < len(known_H) and bool(known_H[place] == beginning)


def _beginnings(hashes: pa.ChunkedArray) -> np.ndarray:
    parts = [np.zeros(0, np.uint64)]
    for chunk in hashes.drop_null().chunks:
        if len(chunk):
            text = pc.utf8_slice_codeunits(chunk, 0, _PREFIX).buffers()[2]
            parts.append(np.frombuffer(binascii.unhexlify(text), ">u8"))
    return np.concatenate(parts, dtype=np.uint64)


def seconds_a_byte(changes: Changes, extension: str) -> float:
    """Of recordings with this extension in the catalog; without any, of typical ones."""
    kept = changes.published.select(["uri", "status", "size", "duration_s"]).filter(changes.kept_N)
    heard = kept.filter(has_status(kept, "ok") & (pc.fill_null(kept["size"], 0).to_numpy() > 0))
    alike = heard.filter(pc.ends_with(heard["uri"], extension, ignore_case=True))
    if len(alike):
        return float(pc.sum(alike["duration_s"]).as_py() / pc.sum(alike["size"]).as_py())
    return 1 / _BYTES_A_SECOND.get(extension, _BYTES_A_SECOND[".mp3"])


def extension_of(uri: str) -> str:
    """In lower case, such as ".mp3"."""
    return "." + uri.rpartition(".")[2].lower()


def join(changes: Changes, rows: list[Row], source: str, next_ordinal: int) -> tuple[pa.Table, int]:
    """Number new recordings; a copy of a known recording gets that one's fingerprints instead.

    One that was skipped (see `known_hashes`), but is no copy of any, fails until the next run.

    Returns the whole track table by URI, and the next free ordinal.
    """
    known = _twins(changes.published, rows)
    for row in rows:
        row |= {"source": source, "ordinal": None, "stored_as": None}
        twin = known.get(row["content_sha256"]) if row["status"] in ("ok", "skipped") else None
        if twin:
            row |= {name: twin[name] for name in _SHARED} | {"status": "ok"}
        elif row["status"] == "ok":
            row |= {"ordinal": next_ordinal, "stored_as": row["track_id"]}
            known[row["content_sha256"]] = row
            next_ordinal += 1
        elif row["status"] == "skipped":
            row |= {"status": "failed", "error_kind": "hash", "error": _NO_COPY}
    everything = pa.concat_tables([changes.published, table_of(rows, TRACK_SCHEMA)])
    new_N = np.arange(len(changes.published), len(everything))
    row_N = np.concatenate([np.flatnonzero(changes.kept_N), new_N])
    order = pc.sort_indices(everything["uri"].take(row_N)).to_numpy()
    return everything.take(row_N[order]), next_ordinal


def _twins(published: pa.Table, rows: list[Row]) -> dict[str, Row]:
    """Published tracks that have fingerprints and the content of one of the rows, by its hash."""
    wanted = {row["content_sha256"] for row in rows} - {None}
    heard = published.select(["content_sha256", *_SHARED]).filter(has_status(published, "ok"))
    there = pc.is_in(heard["content_sha256"], pa.array(sorted(wanted), pa.large_string()))
    return {row["content_sha256"]: row for row in heard.filter(there).to_pylist()}
