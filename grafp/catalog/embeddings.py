"""Embedding files: fingerprints of up to some recordings in Parquet, the record of truth."""

import io
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grafp import storage
from grafp.catalog.tracks import TRACK_SCHEMA, TrackRef
from grafp.errors import CatalogError
from grafp.model.fingerprint import DIMENSION

_EMBEDDINGS = pa.list_(pa.list_(pa.float16(), DIMENSION))
EMBEDDING_SCHEMA = pa.schema(
    [f for f in TRACK_SCHEMA if f.name not in ("ordinal", "stored_as", "source", "embedding_file")]
    + [("embeddings", _EMBEDDINGS)]
)


def by_file(tracks: Iterable[TrackRef]) -> dict[str, list[TrackRef]]:
    """The tracks of each embedding file, which is read once for all of them."""
    groups: dict[str, list[TrackRef]] = {}
    for track in tracks:
        groups.setdefault(track.embedding_file, []).append(track)
    return groups


def read_fingerprints(
    root: str, key: str, tracks: list[TrackRef]
) -> Iterator[tuple[TrackRef, np.ndarray]]:
    """The float16 fingerprints, (segments, 128), of the wanted tracks of one embedding file.

    Raises CatalogError when the file is damaged.
    """
    data = storage.read(storage.join(root, key))
    try:
        table = pq.read_table(
            io.BytesIO(data),
            columns=["track_id", "embeddings"],
            page_checksum_verification=True,
        )
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CatalogError(f"{root}/{key}: a damaged embedding file ({reason})") from error
    wanted = {track.stored_as: track for track in tracks}
    for row, track_id in enumerate(table["track_id"].to_pylist()):
        if track_id in wanted:
            flat = table["embeddings"][row].values.flatten()
            vectors_ND = flat.to_numpy(zero_copy_only=False).reshape(-1, DIMENSION)
            yield wanted[track_id], vectors_ND
