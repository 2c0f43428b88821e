"""matches.parquet: the answers to queries and timelines. Its columns, its rows, its writer.

A new column goes into MATCH_SCHEMA and `unmatched`, and into the rows of pipelines/querying.
"""

import pyarrow as pa

from grafp import storage
from grafp.storage.tables import Row, to_parquet

MATCH_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("query_start_s", pa.float64()),
        ("query_end_s", pa.float64()),
        ("rank", pa.int32()),
        ("track", pa.string()),
        ("track_start_s", pa.float64()),
        ("speed", pa.float64()),
        ("score", pa.float32()),
        ("matched", pa.bool_()),
        ("threshold", pa.float32()),
        ("false_positive_rate", pa.float64()),
        ("error", pa.string()),
    ]
)


def unmatched(query: str, duration_s: float, threshold: float, error: str | None) -> Row:
    """The row of a query without an answer, for matches to fill in: all columns are there."""
    return {
        "query": query,
        "query_start_s": 0.0,
        "query_end_s": duration_s,
        "rank": 1,
        "track": None,
        "track_start_s": None,
        "speed": None,
        "score": None,
        "matched": False,
        "threshold": threshold,
        "false_positive_rate": None,
        "error": error,
    }


def write_matches(out: str, table: pa.Table) -> pa.Table:
    """Write OUT/matches.parquet; returns its table. Raises StorageError."""
    storage.write(storage.join(out, "matches.parquet"), to_parquet(table))
    return table
