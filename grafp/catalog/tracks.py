"""The track table of a snapshot: one row per recording, failed and removed ones included.

The status of a recording is `ok`, `failed` or `removed` (by name). Exact copies have rows of their
own, and share an ordinal and fingerprints.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grafp.storage.tables import from_parquet, table_of, to_parquet

Row = dict[str, Any]
"""A row of the track table, see `TRACK_SCHEMA`."""

_TEXT = pa.large_string()  # a `string` column ends at 2 GiB: the URIs of 50 million tracks
_ROWS_AT_ONCE = 1 << 16  # as Python objects
TRACK_SCHEMA = pa.schema(
    [
        ("track_id", _TEXT),
        ("stored_as", _TEXT),  # the track_id of its fingerprints; a copy shares them
        ("uri", _TEXT),
        ("ordinal", pa.int64()),
        ("source", _TEXT),
        ("size", pa.int64()),
        ("etag", _TEXT),
        ("modified", pa.float64()),
        ("content_sha256", _TEXT),
        ("duration_s", pa.float64()),
        ("status", _TEXT),
        ("error_kind", _TEXT),
        ("error", _TEXT),
        ("attempts", pa.int32()),
        ("model_id", _TEXT),
        ("hop_s", pa.float64()),
        ("n_segments", pa.int64()),
        ("embedding_file", _TEXT),
        ("embeddings_at", pa.int64()),  # byte of that file; float16, one after another
    ]
)


@dataclass(frozen=True, slots=True)
class TrackRef:
    """A track's fingerprints: the track's ordinal, and where they are stored."""

    ordinal: int
    stored_as: str
    embedding_file: str
    embeddings_at: int
    n_segments: int
    content_sha256: str


class LiveTracks:
    """The tracks that can be an answer, by ordinal; copies of one recording are one."""

    ordinal_T: np.ndarray
    """Ascending."""

    def __init__(self, tracks: pa.Table) -> None:
        ok_N = has_status(tracks, "ok")
        ordinal_N = tracks["ordinal"].filter(ok_N).to_numpy()
        self.ordinal_T, first_T = np.unique(ordinal_N, return_index=True)
        self._tracks, self._row_T = tracks, np.flatnonzero(ok_N)[first_T]

    def __len__(self) -> int:
        return len(self.ordinal_T)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ordinal_T.tolist())

    @property
    def fingerprints(self) -> int:
        return int(self._tracks["n_segments"].take(self._row_T).to_numpy().sum())

    def table(self, columns: list[str]) -> pa.Table:
        """Columns of the track table, a row for each of these tracks."""
        return self._tracks.select(columns).take(self._row_T)

    def values(self) -> list[TrackRef]:
        """All of them, by ordinal."""
        return self.of(self.ordinal_T)

    def of(self, ordinals: np.ndarray) -> list[TrackRef]:
        """Those of them with such ordinals, by ordinal."""
        wanted_N = np.zeros(len(self._tracks), bool)
        wanted_N[self._row_T[np.isin(self.ordinal_T, ordinals)]] = True
        part = self._tracks.select(list(TrackRef.__dataclass_fields__)).filter(wanted_N)
        rows = (row for batch in part.to_batches(_ROWS_AT_ONCE) for row in batch.to_pylist())
        return sorted((TrackRef(**row) for row in rows), key=lambda ref: ref.ordinal)


def has_status(tracks: pa.Table, status: str) -> np.ndarray:
    """Which rows have that status, bool (rows,)."""
    same_N: np.ndarray = pc.fill_null(pc.equal(tracks["status"], status), False).to_numpy()
    return same_N


def as_table(tracks: pa.Table | Iterable[Row]) -> pa.Table:
    """Rows as a track table. Raises ValueError for a row with other columns."""
    return tracks if isinstance(tracks, pa.Table) else table_of(tracks, TRACK_SCHEMA)


def tracks_to_bytes(tracks: pa.Table | Iterable[Row]) -> bytes:
    """The track table as a Parquet file. Raises ValueError for a row with other columns."""
    return to_parquet(as_table(tracks))


def tracks_from_bytes(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The track table of a Parquet file, or some of its columns."""
    table = from_parquet(data, columns)
    # Catalogs of older formats have `string` columns.
    return table.cast(pa.schema([TRACK_SCHEMA.field(name) for name in table.column_names]))


def live_refs(tracks: pa.Table | Iterable[Row]) -> LiveTracks:
    """The live tracks of a track table, or of its rows."""
    return LiveTracks(as_table(tracks))
