"""Decoded audio to fingerprints with Ray Data: encode (actors), store or pass on.

Between the stages, audio and fingerprints travel as raw bytes: one row is one recording, and a
recording that cannot be used is a row with a status and a reason.
"""

import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grafp import storage
from grafp.catalog.embeddings import EMBEDDING_SCHEMA
from grafp.model.fingerprint import DIMENSION
from grafp.storage.sources import Item
from pipelines.common.decode import decoded
from pipelines.common.encode import encoded
from pipelines.common.placement import Encoders
from pipelines.common.runtime import finished_rows
from pipelines.indexing.build import is_fresh

_TRACKS_A_FILE = 32


@dataclass(frozen=True)
class EmbeddingStore:
    """Where a run's embedding files go, and what every row of them says."""

    root: str
    folder: str
    model_id: str
    hop_s: float
    attempts: dict[str, int]
    """Earlier attempts by URI, of recordings that failed before."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write one Parquet file and return its rows without the fingerprints."""
        rows = []
        for row in batch.to_pylist():
            vectors_ND = np.frombuffer(row["embeddings"], np.float16).reshape(-1, DIMENSION)
            rows.append(
                {
                    **row,
                    "track_id": hashlib.sha256(row["uri"].encode()).hexdigest()[:32],
                    "attempts": self.attempts.get(row["uri"], 0) + 1,
                    "model_id": self.model_id,
                    "hop_s": self.hop_s,
                    "embeddings": list(vectors_ND),
                }
            )
        table = pa.Table.from_pylist(rows, schema=EMBEDDING_SCHEMA)
        # Named by what is in it: a task that runs twice writes the same file twice.
        name = hashlib.sha256("\n".join(row["uri"] for row in rows).encode()).hexdigest()[:16]
        key = f"{self.folder}/{name}.parquet"
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        storage.write(storage.join(self.root, key), buffer.getvalue())
        return table.drop_columns(["embeddings"]).append_column(
            "embedding_file", pa.array([key] * len(table), pa.string())
        )


def embed(
    items: list[Item],
    model_uri: str,
    store: EmbeddingStore,
    *,
    known: Iterable[str],
    encoders: Encoders,
    max_seconds: float,
) -> list[dict]:
    """Fingerprint recordings into Parquet files; returns one row per recording.

    `known` are content hashes of recordings that have fingerprints; their copies are skipped.
    """
    recordings = decoded(items, max_seconds, known)
    stored = encoded(recordings, model_uri, store.hop_s, encoders).map_batches(
        store, batch_size=_TRACKS_A_FILE, batch_format="pyarrow", num_cpus=0.25
    )
    return list(finished_rows(stored, len(items)))


def left_over(
    root: str, model_id: str, hop_s: float, published: set[str], items: list[Item]
) -> list[dict]:
    """Rows that earlier runs finished for these recordings but died before publishing.

    `published` are the embedding files of the snapshot; only the others are looked at, and only
    at their rows, not at the fingerprints.
    """
    wanted = {(i.uri, i.info.size, i.info.etag): i for i in items if i.info}
    folder = storage.join(root, "embeddings", model_id)
    files = storage.list_files(folder, (".parquet",), may_be_missing=True)
    keys = {info.uri[len(root.rstrip("/")) + 1 :]: info for info in files}
    unpublished = [key for key, info in keys.items() if key not in published and is_fresh(info)]
    rows = []
    with ThreadPoolExecutor(max_workers=8) as pool:
        for found in pool.map(lambda key: _rows_of(root, key), unpublished):
            for row in found:
                this = (row["uri"], row["size"], row["etag"])
                fits = row["status"] == "ok" and row["hop_s"] == hop_s
                if fits and wanted.pop(this, None):
                    rows.append(row)
    return rows


def _rows_of(root: str, key: str) -> list[dict]:
    """The rows of an embedding file without the fingerprints; none if it cannot be read."""
    path, filesystem = storage.arrow_filesystem(storage.join(root, key))
    columns = [name for name in EMBEDDING_SCHEMA.names if name != "embeddings"]
    try:
        table = pq.read_table(path, filesystem=filesystem, columns=columns)
    except (pa.ArrowException, OSError):
        return []  # its recordings are done again
    return [{**row, "embedding_file": key} for row in table.to_pylist()]
