"""Folders of fingerprints as another program would write them, in both layouts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VECTORS = pa.list_(pa.list_(pa.float32()))


def write_settings(folder: Path, **settings: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "embeddings.json").write_text(json.dumps({"hop_s": 0.1} | settings))


def write_table(path: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> None:
    """A Parquet file of rows whose `vectors` are arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    types = {"vectors": VECTORS} | types
    rows = [
        {**row, "vectors": list(row["vectors"])} if row.get("vectors") is not None else row
        for row in rows
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    arrays = {name: pa.array(column, types.get(name)) for name, column in columns.items()}
    pq.write_table(pa.table(arrays), path)


def write_tables(
    folder: Path, tracks: Mapping[str, np.ndarray], queries: list[dict[str, Any]]
) -> None:
    rows = [{"track": name, "vectors": vectors} for name, vectors in tracks.items()]
    write_table(folder / "tracks.parquet", rows)
    write_table(folder / "queries.parquet", queries)


def write_memory_map(folder: Path, name: str, vectors_ND: np.ndarray) -> None:
    """NAME.mm and NAME_shape.npy, as the official code writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors_ND.astype(np.float32).tofile(folder / f"{name}.mm")
    np.save(folder / f"{name}_shape.npy", vectors_ND.shape)
