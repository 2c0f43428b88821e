"""Embedding files: fingerprints of some recordings in Parquet, the record of truth.

Index and exact fingerprints of shards can be made again from them. A file is named by the
recordings in it, so that a task that runs twice writes the same file twice.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grafp import storage
from grafp.catalog.tracks import TRACK_SCHEMA, Row, TrackRef
from grafp.errors import CatalogError, GrafpError
from grafp.model.fingerprint import DIMENSION
from grafp.storage.tables import from_parquet, table_of, to_parquet

_LATER = ("ordinal", "stored_as", "source", "embedding_file")  # known when a run publishes
EMBEDDING_SCHEMA = pa.schema(
    [
        *(field for field in TRACK_SCHEMA if field.name not in _LATER),
        ("embeddings", pa.list_(pa.list_(pa.float16(), DIMENSION))),
    ]
)
_WITHOUT_VECTORS = [name for name in EMBEDDING_SCHEMA.names if name != "embeddings"]


def write_embeddings(root: str, folder: str, rows: list[Row]) -> str:
    """Write a file of rows with the columns of EMBEDDING_SCHEMA; returns its key under `root`.

    `embeddings` of a row is float16 (segments, 128).
    """
    rows = [{**row, "embeddings": list(row["embeddings"])} for row in rows]
    name = hashlib.sha256("\n".join(row["uri"] for row in rows).encode()).hexdigest()[:16]
    key = f"{folder}/{name}.parquet"
    data = to_parquet(table_of(rows, EMBEDDING_SCHEMA), compression="zstd")
    storage.write(storage.join(root, key), data)
    return key


def read_rows(root: str, key: str) -> list[Row]:
    """The rows of a file without their fingerprints, with `embedding_file`.

    Empty when the file cannot be read: its recordings are fingerprinted again.
    """
    path, filesystem = storage.arrow_filesystem(storage.join(root, key))
    try:
        table = pq.read_table(path, filesystem=filesystem, columns=_WITHOUT_VECTORS)
    except (pa.ArrowException, OSError):
        return []
    return [{**row, "embedding_file": key} for row in table.to_pylist()]


def by_file(tracks: Iterable[TrackRef]) -> dict[str, list[TrackRef]]:
    """The tracks of each embedding file, which is read once for all of them."""
    groups: dict[str, list[TrackRef]] = {}
    for track in tracks:
        groups.setdefault(track.embedding_file, []).append(track)
    return groups


def read_fingerprints(
    root: str, key: str, tracks: list[TrackRef]
) -> Iterator[tuple[TrackRef, np.ndarray]]:
    """The fingerprints, float16 (segments, 128), of the wanted tracks of one file.

    Raises CatalogError when the file is damaged.
    """
    table = _read(root, key, ["track_id", "embeddings"])
    wanted = {track.stored_as: track for track in tracks}
    for row, track_id in enumerate(table["track_id"].to_pylist()):
        if track_id in wanted:
            flat = table["embeddings"][row].values.flatten()
            vectors_ND = flat.to_numpy(zero_copy_only=False).reshape(-1, DIMENSION)
            yield wanted[track_id], vectors_ND


def damage(root: str, key: str, tracks: list[TrackRef]) -> str | None:
    """What is wrong with a file that should hold these tracks; None: nothing.

    Embedding files carry no hash: Parquet's own checksums tell.
    """
    try:
        table = _read(root, key)
        counts = zip(table["track_id"].to_pylist(), table["n_segments"].to_pylist(), strict=True)
    except GrafpError as error:
        return str(error)
    stored = dict(counts)
    missing = [track for track in tracks if stored.get(track.stored_as) != track.n_segments]
    return f"{root}/{key}: {len(missing)} tracks are not in it" if missing else None


def _read(root: str, key: str, columns: list[str] | None = None) -> pa.Table:
    data = storage.read(storage.join(root, key))
    try:
        table = from_parquet(data, columns)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CatalogError(f"{root}/{key}: a damaged embedding file ({reason})") from error
    if lacking := set(columns or _WITHOUT_VECTORS) - set(table.column_names):
        raise CatalogError(f"{root}/{key}: not an embedding file (no {min(lacking)})")
    return table
