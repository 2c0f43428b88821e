"""Exported fingerprints as two Parquet files: tracks.parquet and queries.parquet."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grafp import storage
from grafp.errors import OptionError
from grafp.evaluation.exported.common import (
    Query,
    Settings,
    check_lengths,
    fingerprints,
    make_clip,
    seconds_of,
)
from grafp.model.fingerprint import DIMENSION

TRACKS_FILE, QUERIES_FILE = "tracks.parquet", "queries.parquet"
_TRUTH = ("track", "start_s")
_CONDITIONS = ("snr_db", "reverb")
_ROWS_AT_ONCE = 32


@dataclass
class TableExport:
    """An `Export` whose tables have a row for each track and each query."""

    folder: str
    settings: Settings
    _names: set[str] = field(init=False)

    def __post_init__(self) -> None:
        """Raises OptionError when a table is missing, lacks a column or names a track twice."""
        self._check_columns(QUERIES_FILE, ("query", "vectors", *_TRUTH))
        self._check_columns(TRACKS_FILE, ("track", "vectors"))
        self._names = self._unique(TRACKS_FILE, "track")
        self._unique(QUERIES_FILE, "query")

    def tracks(self) -> Iterator[tuple[str, np.ndarray]]:
        """See `Export`."""
        for row in self._rows(TRACKS_FILE, ["track", "vectors"]):
            name = row["track"].as_py()
            yield name, _vectors(row["vectors"], f"{self._told(TRACKS_FILE)}, track {name}")

    def queries(self, seconds: Sequence[float], count: int, seed: int) -> list[Query]:
        """All rows, whole; the arguments are for arrays."""
        del seconds, count, seed
        found = self._file(QUERIES_FILE).schema_arrow.names
        columns = [name for name in ("query", "vectors", *_TRUTH, *_CONDITIONS) if name in found]
        queries = [
            self._query(number, row) for number, row in enumerate(self._rows(QUERIES_FILE, columns))
        ]
        if not queries:
            raise OptionError(f"{self._told(QUERIES_FILE)}: has no rows")
        check_lengths(self.folder, queries)
        return queries

    def _query(self, number: int, row: dict[str, Any]) -> Query:
        name = row["query"].as_py()
        where = f"{self._told(QUERIES_FILE)}, query {name}"
        vectors_MD = _vectors(row["vectors"], where)
        track = row["track"].as_py() or None
        if track is not None and track not in self._names:
            raise OptionError(
                f"{where}: its track {track} is not in {TRACKS_FILE}; leave track empty for a "
                "query that is not in the database"
            )
        start_s = None if track is None else _number(row["start_s"], f"{where}: start_s")
        if start_s is not None and start_s < 0:
            raise OptionError(f"{where}: start_s is {start_s:g}; a query begins within its track")
        length_s = seconds_of(len(vectors_MD), self.settings.finer_hop_s)
        return Query(
            name,
            make_clip(number, track or name, length_s, *self._condition(row, where)),
            vectors_MD,
            track,
            start_s,
        )

    def _condition(self, row: dict[str, Any], where: str) -> tuple[float, bool]:
        snr_db, reverb = self.settings.snr_db, self.settings.reverb
        if "snr_db" in row:
            snr_db = _number(row["snr_db"], f"{where}: snr_db")
        if "reverb" in row:
            reverb = row["reverb"].as_py()
        if snr_db is None or not isinstance(reverb, bool):
            raise OptionError(
                f"{where}: needs snr_db (a number of dB) and reverb (true or false), as columns or "
                "for all queries in embeddings.json"
            )
        return snr_db, reverb

    def _check_columns(self, file: str, needed: Sequence[str]) -> None:
        schema = self._file(file).schema_arrow
        if lacking := set(needed) - set(schema.names):
            raise OptionError(
                f"{self._told(file)}: needs the columns {', '.join(needed)}; has no "
                f"{', '.join(sorted(lacking))}"
            )
        outer = schema.field("vectors").type
        inner = outer.value_type if _is_list(outer) else outer
        if not _is_list(inner) or not pa.types.is_floating(inner.value_type):
            raise OptionError(
                f"{self._told(file)}: vectors must be a list of lists of {DIMENSION} numbers of a "
                f"floating type, not {outer}"
            )

    def _unique(self, file: str, column: str) -> set[str]:
        names: set[str] = set()
        for row in self._rows(file, [column], 1 << 16):
            name = row[column].as_py()
            if not name or not isinstance(name, str):
                raise OptionError(f"{self._told(file)}: every row needs a {column}, as text")
            if name in names:
                raise OptionError(f"{self._told(file)}: {column} {name} is there twice")
            names.add(name)
        return names

    def _rows(
        self, file: str, columns: list[str], at_once: int = _ROWS_AT_ONCE
    ) -> Iterator[dict[str, Any]]:
        """The values of each row, as Arrow scalars; few rows are in memory at one time."""
        try:
            for batch in self._file(file).iter_batches(at_once, columns=columns):
                for number in range(len(batch)):
                    yield {name: batch[name][number] for name in columns}
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(file, error) from error

    def _file(self, file: str) -> pq.ParquetFile:
        uri = storage.join(self.folder, file)
        if storage.stat(uri) is None:
            raise OptionError(f"{self._told(file)}: missing, but the other table is there")
        path, filesystem = storage.arrow_filesystem(uri)
        try:
            return pq.ParquetFile(path, filesystem=filesystem)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(file, error) from error

    def _damaged(self, file: str, error: Exception) -> OptionError:
        reason = " ".join(str(error).split())[:200]
        return OptionError(f"{self._told(file)}: not a readable Parquet file ({reason})")

    def _told(self, file: str) -> str:
        return f"--embeddings {storage.join(self.folder, file)}"


def _is_list(kind: pa.DataType) -> TypeGuard[pa.ListType]:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _vectors(cell: pa.ListScalar, where: str) -> np.ndarray:
    """The fingerprints of a row, float16 (fingerprints, 128)."""
    vectors = cell.values
    if vectors is None or not len(vectors):
        raise OptionError(f"{where}: has no fingerprints")
    sizes = pc.unique(pc.list_value_length(vectors)).to_pylist()
    if sizes != [DIMENSION]:
        wrong = next(size for size in sizes if size != DIMENSION)
        raise OptionError(
            f"{where}: a fingerprint of {wrong or 'no'} numbers; all have {DIMENSION}"
        )
    flat_N = vectors.flatten().to_numpy(zero_copy_only=False)
    return fingerprints(flat_N.reshape(-1, DIMENSION), where)


def _number(cell: pa.Scalar, where: str) -> float | None:
    value = cell.as_py()
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise OptionError(f"{where} is {value!r}, not a number")
    return float(value)
