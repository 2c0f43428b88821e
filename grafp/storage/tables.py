"""Parquet files: rows with exactly the columns of a schema, to bytes and back."""

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def table_of(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """A table of rows. Raises ValueError when a row lacks a column or has another one."""
    rows, names = list(rows), set(schema.names)
    for row in rows:
        if differing := row.keys() ^ names:
            raise ValueError(f"a row and its schema differ in {', '.join(sorted(differing))}")
    return pa.Table.from_pylist(rows, schema=schema)


def to_parquet(table: pa.Table, **options: Any) -> bytes:
    """A Parquet file with checksums in its pages; options are those of pyarrow."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True, **options)
    return buffer.getvalue()


def from_parquet(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file. Raises ArrowException or OSError when it is damaged."""
    return pq.read_table(io.BytesIO(data), columns=columns, page_checksum_verification=True)
