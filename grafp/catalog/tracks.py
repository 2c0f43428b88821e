"""The track table of a snapshot: one row per recording, failed and removed ones included."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

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
    ]
)


@dataclass(frozen=True)
class TrackRef:
    """A track's fingerprints: their place in the catalog's numbering and in its files."""

    ordinal: int
    stored_as: str
    embedding_file: str
    n_segments: int
    content_sha256: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> "TrackRef":
        """From a row of the track table."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


def live_refs(rows: Iterable[Row]) -> dict[int, TrackRef]:
    """Whose fingerprints can be an answer, by ordinal; copies of one recording are one."""
    return {row["ordinal"]: TrackRef.of(row) for row in rows if row["status"] == "ok"}
