"""Embedding files: fingerprints of some recordings in Parquet, the record of truth.

The index can be made again from them, and exact scores are read from them: every recording is a
row group, its fingerprints one page without compression, so their position in the file is known and
a search reads only what it compares. A file is named by the recordings in it, so that a task that
runs twice writes the same file twice.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from grafp import storage
from grafp.catalog.tracks import TRACK_SCHEMA, Row, TrackRef
from grafp.errors import CatalogError, GrafpError
from grafp.model.fingerprint import DIMENSION
from grafp.storage.tables import from_parquet, table_of, to_parquet

BYTES = 2 * DIMENSION
"""Of a fingerprint."""
_LATER = ("ordinal", "stored_as", "source", "embedding_file", "embeddings_at")
EMBEDDING_SCHEMA = pa.schema(
    [
        *(field for field in TRACK_SCHEMA if field.name not in _LATER),  # those: known later
        ("embeddings", pa.list_(pa.list_(pa.float16(), DIMENSION))),
    ]
)
_WITHOUT_VECTORS = [name for name in EMBEDDING_SCHEMA.names if name != "embeddings"]


def write_embeddings(root: str, folder: str, rows: list[Row]) -> tuple[str, list[int]]:
    """Write a file of rows with the columns of EMBEDDING_SCHEMA.

    `embeddings` of a row is float16 (segments, 128).

    Returns its key under `root`, and at which byte the fingerprints of each row begin.
    """
    rows = [{**row, "embeddings": list(row["embeddings"])} for row in rows]
    name = hashlib.sha256("\n".join(row["uri"] for row in rows).encode()).hexdigest()[:16]
    key = f"{folder}/{name}.parquet"
    data = to_parquet(
        table_of(rows, EMBEDDING_SCHEMA),
        row_group_size=1,
        data_page_size=1 << 30,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    storage.write(storage.join(root, key), data)
    return key, _positions(
        pq.read_metadata(io.BytesIO(data)), [len(row["embeddings"]) for row in rows]
    )


def _is_mapped(metadata: pq.FileMetaData) -> bool:
    """Whether fingerprints have positions: earlier versions compressed them."""
    number = EMBEDDING_SCHEMA.get_field_index("embeddings")
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    return all(
        group.num_rows == 1 and group.column(number).compression == "UNCOMPRESSED"
        for group in groups
    )


def _positions(metadata: pq.FileMetaData, counts: Iterable[int]) -> list[int]:
    """At which byte the fingerprints of each row begin: they are what its page ends with."""
    number = EMBEDDING_SCHEMA.get_field_index("embeddings")
    positions = []
    for group, count in enumerate(counts):
        column = metadata.row_group(group).column(number)
        end = column.data_page_offset + column.total_compressed_size
        positions.append(end - count * BYTES)
    return positions


def read_rows(root: str, key: str) -> list[Row]:
    """The rows of a file without their fingerprints, with `embedding_file` and `embeddings_at`.

    Empty when the file cannot be read, or is of a catalog before format 6: its recordings are
    fingerprinted again.
    """
    path, filesystem = storage.arrow_filesystem(storage.join(root, key))
    try:
        with pq.ParquetFile(path, filesystem=filesystem) as file:
            if not _is_mapped(file.metadata):
                return []
            rows = file.read(_WITHOUT_VECTORS).to_pylist()
            positions = _positions(file.metadata, [row["n_segments"] or 0 for row in rows])
    except (pa.ArrowException, OSError, KeyError):
        return []
    return [
        {**row, "embedding_file": key, "embeddings_at": position}
        for row, position in zip(rows, positions, strict=True)
    ]


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


def read_part(root: str, track: TrackRef, wanted: range) -> np.ndarray:
    """Some fingerprints of a track, float16 (len(wanted), 128); the file is not read whole.

    Raises CatalogError when they cannot be read.
    """
    path, filesystem = storage.arrow_filesystem(storage.join(root, track.embedding_file))
    try:
        with (filesystem or LocalFileSystem()).open_input_file(path) as file:
            begin = track.embeddings_at + wanted.start * BYTES
            data = file.read_at(len(wanted) * BYTES, begin)
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise CatalogError(f"{root}/{track.embedding_file}: cannot be read ({reason})") from error
    if len(data) != len(wanted) * BYTES:
        raise CatalogError(f"{root}/{track.embedding_file}: damaged (it is cut off)")
    return np.frombuffer(data, np.float16).reshape(-1, DIMENSION)


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
