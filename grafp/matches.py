"""matches.parquet, the answers to queries: its columns, its writer."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from grafp import storage

MATCH_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("query_start_s", pa.float64()),
        ("query_end_s", pa.float64()),
        ("rank", pa.int32()),
        ("track", pa.string()),
        ("track_start_s", pa.float64()),
        ("score", pa.float32()),
        ("matched", pa.bool_()),
        ("threshold", pa.float32()),
        ("error", pa.string()),
    ]
)


def write_matches(out: str, lines: list[dict]) -> pa.Table:
    """Write OUT/matches.parquet; returns its table."""
    table = pa.Table.from_pylist(lines, schema=MATCH_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write(storage.join(out, "matches.parquet"), buffer.getvalue())
    return table
