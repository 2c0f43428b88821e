"""The track table of a snapshot: one row per recording, failed and removed ones included.

The status of a recording is `ok`, `failed` or `removed` (by name). Exact copies have rows of their
own, and share an ordinal and fingerprints.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from grafp.storage.tables import from_parquet, table_of, to_parquet

Row = dict[str, Any]
"""A row of the track table, see `TRACK_SCHEMA`."""

TRACK_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("stored_as", pa.string()),  # the track_id of its fingerprints; a copy shares them
        ("uri", pa.string()),
        ("ordinal", pa.int64()),
        ("source", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("modified", pa.float64()),
        ("content_sha256", pa.string()),
        ("duration_s", pa.float64()),
        ("status", pa.string()),
        ("error_kind", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("model_id", pa.string()),
        ("hop_s", pa.float64()),
        ("n_segments", pa.int64()),
        ("embedding_file", pa.string()),
        ("embeddings_at", pa.int64()),  # byte of that file; float16, one after another
    ]
)


@dataclass(frozen=True)
class TrackRef:
    """A track's fingerprints: the track's ordinal, and where they are stored."""

    ordinal: int
    stored_as: str
    embedding_file: str
    embeddings_at: int
    n_segments: int
    content_sha256: str

    @classmethod
    def of(cls, row: Row) -> "TrackRef":
        """From a row of the track table."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


def tracks_to_bytes(rows: Iterable[Row]) -> bytes:
    """The track table as a Parquet file. Raises ValueError for a row with other columns."""
    return to_parquet(table_of(rows, TRACK_SCHEMA))


def tracks_from_bytes(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The track table of a Parquet file, or some of its columns."""
    return from_parquet(data, columns)


def live_refs(rows: Iterable[Row]) -> dict[int, TrackRef]:
    """The tracks that can be an answer, by ordinal; copies of one recording are one."""
    return {row["ordinal"]: TrackRef.of(row) for row in rows if row["status"] == "ok"}
