"""Answers of a batch that is not finished, so that the next run of the same job goes on with them.

OUT/unfinished/<job>/<number>.parquet holds rows of finished queries; <job> is a hash of all that
decides the answers. OUT/matches.parquet is written from them when all queries are answered, and
OUT/unfinished is removed.
"""

import hashlib
import json
import time
from typing import Any

import pyarrow as pa

from grafp import storage
from grafp.matches import MATCH_SCHEMA
from grafp.storage.tables import Row, from_parquet, table_of, to_parquet

_SCHEMA = pa.schema(
    [
        *MATCH_SCHEMA,
        ("number", pa.int64()),  # of the query in the list
        ("codes_scanned", pa.float64()),  # for the whole query, in its first row
        ("search_seconds", pa.float64()),
    ]
)
_SECONDS, _SHARE = 5.0, 0.01  # between two files, at least; of the time so far


class Unfinished:
    """The answers so far of one job."""

    def __init__(self, out: str, job: Any) -> None:
        """`job`: what decides the answers, as JSON has it. Raises StorageError."""
        name = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]
        self._all = storage.join(out, "unfinished")
        self._folder = storage.join(self._all, name)
        files = storage.list_files(self._folder, (".parquet",), may_be_missing=True)
        self._tables = [from_parquet(storage.read(info.uri)) for info in files]
        self._rows: list[Row] = []
        self._started = self._written = time.monotonic()
        self.done = {n for table in self._tables for n in table["number"].unique().to_pylist()}
        """Numbers of the queries that were answered before."""

    def add(self, rows: list[Row]) -> None:
        """Keep the rows of a query. Raises StorageError."""
        self._rows += rows
        now = time.monotonic()
        if now - self._written >= max(_SECONDS, _SHARE * (now - self._started)):
            table = table_of(self._rows, _SCHEMA)
            name = f"{int(table['number'][0].as_py()):012d}.parquet"
            storage.write(storage.join(self._folder, name), to_parquet(table))
            self._tables.append(table)
            self._rows, self._written = [], now

    def table(self) -> pa.Table:
        """All rows, by the number of the query, then by rank."""
        tables = [*self._tables, table_of(self._rows, _SCHEMA)]
        return pa.concat_tables(tables).sort_by([("number", "ascending"), ("rank", "ascending")])

    def remove(self) -> None:
        """Raises StorageError."""
        storage.delete_folder(self._all)
