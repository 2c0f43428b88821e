"""Recordings to embedding files: decode, encode, store."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from grafp import storage
from grafp.catalog.catalog import is_reusable
from grafp.catalog.embeddings import EMBEDDING_SCHEMA, read_rows, write_embeddings
from grafp.catalog.tracks import Row
from grafp.model.fingerprint import DIMENSION
from grafp.storage.sources import Item
from pipelines.common.decode import decoded
from pipelines.common.encode import encoded
from pipelines.common.finished import finished_rows
from pipelines.common.work import Encoders, Rows

_TRACKS_A_FILE = 32
_GIVEN = (
    "uri", "size", "etag", "modified", "content_sha256", "duration_s", "status", "error_kind",
    "error", "n_segments",
)  # fmt: skip


@dataclass(frozen=True)
class EmbeddingStore:
    """A stage: encoded recordings to embedding files, and what their rows say."""

    root: str
    folder: str
    model_id: str
    hop_s: float
    attempts: dict[str, int]
    """Earlier attempts by URI, of recordings that failed before."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write one Parquet file; returns its rows without the fingerprints."""
        rows = [self._row(encoded_row) for encoded_row in batch.to_pylist()]
        key, positions = write_embeddings(self.root, self.folder, rows)
        schema = EMBEDDING_SCHEMA.remove(EMBEDDING_SCHEMA.get_field_index("embeddings"))
        table = pa.Table.from_pylist(rows, schema=schema)
        table = table.append_column("embedding_file", pa.array([key] * len(table), pa.string()))
        return table.append_column("embeddings_at", pa.array(positions, pa.int64()))

    def _row(self, encoded_row: Row) -> Row:
        uri = encoded_row["uri"]
        return {name: encoded_row[name] for name in _GIVEN} | {
            "track_id": hashlib.sha256(uri.encode()).hexdigest()[:32],
            "attempts": self.attempts.get(uri, 0) + 1,
            "model_id": self.model_id,
            "hop_s": self.hop_s,
            "embeddings": np.frombuffer(encoded_row["embeddings"], np.float16).reshape(
                -1, DIMENSION
            ),
        }


def embed(
    items: list[Item],
    model_uri: str,
    store: EmbeddingStore,
    *,
    known_H: np.ndarray,
    encoders: Encoders,
    max_seconds: float,
) -> list[dict]:
    """Fingerprint recordings into Parquet files; returns one row per recording.

    `known_H`: see `grafp.catalog.changes.known_hashes`; copies of these recordings are skipped.
    """
    fingerprints = encoded(decoded(items, max_seconds, known_H), model_uri, store.hop_s, encoders)
    how: dict[str, Any] = {"batch_format": "pyarrow", "num_cpus": 0.25}
    how |= {"batch_size": _TRACKS_A_FILE}
    if isinstance(fingerprints, Rows):  # progress by recording, since files are written in bursts
        return list(Rows(finished_rows(fingerprints, len(items))).map_batches(store, **how))
    return list(finished_rows(fingerprints.map_batches(store, **how), len(items)))


def left_over(
    root: str, model_id: str, hop_s: float, published: set[str], items: list[Item]
) -> list[dict]:
    """Rows that interrupted runs finished for these recordings and did not publish.

    `published` are the embedding files of the snapshot; only the others are looked at, and only
    at their rows, not at the fingerprints.
    """
    wanted = {(i.uri, i.info.size, i.info.etag): i for i in items if i.info}
    folder = storage.join(root, "embeddings", model_id)
    files = storage.list_files(folder, (".parquet",), may_be_missing=True)
    keys = {info.uri[len(root.rstrip("/")) + 1 :]: info for info in files}
    unpublished = [key for key, info in keys.items() if key not in published and is_reusable(info)]
    rows = []
    with ThreadPoolExecutor(max_workers=8) as pool:
        for found in pool.map(lambda key: read_rows(root, key), unpublished):
            for row in found:
                this = (row["uri"], row["size"], row["etag"])
                fits = row["status"] == "ok" and row["hop_s"] == hop_s
                if fits and wanted.pop(this, None):
                    rows.append(row)
    return rows
