"""Exported fingerprints as arrays, as the official code of GraFPrint and NAFP writes them.

`db` and `query` have the same shape, and row i of `query` is the degraded row i of `db`. `dummy_db`
makes the database larger. An array is NAME.npy, or NAME.mm (float32) with NAME_shape.npy.
"""

import io
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from grafp import storage
from grafp.errors import OptionError, StorageError
from grafp.evaluation.exported.common import Query, Settings, fingerprints, make_clip
from grafp.model.fingerprint import DIMENSION, SEGMENT_SECONDS
from grafp.storage.sources import read_table

DATABASE, QUERIES, MORE = "db", "query", "dummy_db"
UNDIVIDED = 1 << 16
"""Rows of an array without a table of its tracks that count as one track."""


@dataclass(frozen=True)
class Part:
    """The rows of one track in an array."""

    track: str
    first: int
    count: int


@dataclass
class ArrayExport:
    """An `Export` of arrays."""

    folder: str
    settings: Settings
    _database: dict[str, np.ndarray] = field(init=False)
    _queries_ND: np.ndarray = field(init=False)
    _parts: dict[str, list[Part]] = field(init=False)

    def __post_init__(self) -> None:
        """Raises OptionError when an array is missing, or its shape does not fit the others."""
        if self.settings.stride != 1:
            raise self._error("query_hop_s must be hop_s: row i of query is row i of db")
        if self.settings.snr_db is None or self.settings.reverb is None:
            raise self._error("embeddings.json needs snr_db and reverb, which arrays do not have")
        names = [DATABASE, *([MORE] if self.has(MORE) else [])]
        self._database = {name: self._array(name) for name in names}
        self._queries_ND = self._array(QUERIES)
        shapes = self._queries_ND.shape, self._database[DATABASE].shape
        if shapes[0] != shapes[1]:
            raise self._error(
                f"query has the shape {shapes[0]} and db {shapes[1]}; row i of query is the "
                "degraded row i of db, so they are equal"
            )
        self._parts = {name: self._read_parts(name) for name in names}
        tracks = [part.track for parts in self._parts.values() for part in parts]
        if len(set(tracks)) < len(tracks):
            raise self._error("a track is named twice in db_tracks and dummy_db_tracks")

    def has(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return any(self._exists(f"{name}{ending}") for ending in (".npy", ".mm"))

    def tracks(self) -> Iterator[tuple[str, np.ndarray]]:
        """See `Export`."""
        for name, parts in self._parts.items():
            for part in parts:
                rows = slice(part.first, part.first + part.count)
                where = f"--embeddings {self._uri(name)}, from row {part.first} on"
                yield part.track, fingerprints(self._database[name][rows], where)

    def queries(self, seconds: Sequence[float], count: int, seed: int) -> list[Query]:
        """At most `count` starts at random, at every length; no query crosses a track's border."""
        hop_s, snr_db, reverb = self.settings.hop_s, self.settings.snr_db, self.settings.reverb
        assert snr_db is not None
        assert reverb is not None
        rows = {s: math.floor((s - SEGMENT_SECONDS) / hop_s + 1e-6) + 1 for s in seconds}
        possible = [
            (part, row)
            for part in self._parts[DATABASE]
            for row in range(part.first, part.first + part.count - max(rows.values()) + 1)
        ]
        if not possible:
            raise OptionError(f"--seconds: no track of db is as long as {max(seconds):g} s")
        random = np.random.default_rng(seed)
        chosen = random.choice(len(possible), min(count, len(possible)), replace=False)
        queries: list[Query] = []
        for part, row in (possible[n] for n in sorted(chosen)):
            where = f"--embeddings {self._uri(QUERIES)}, from row {row} on"
            longest_MD = fingerprints(self._queries_ND[row : row + max(rows.values())], where)
            start_s = (row - part.first) * hop_s
            for length_s in sorted(rows):
                clip = make_clip(len(queries), part.track, length_s, snr_db, reverb)
                name = f"row {row}, {length_s:g} s"
                queries.append(Query(name, clip, longest_MD[: rows[length_s]], part.track, start_s))
        return queries

    def _array(self, name: str) -> np.ndarray:
        """An array, mapped from its file."""
        if not self.has(name):
            raise self._error(f"has neither {name}.npy nor {name}.mm")
        if not self._exists(f"{name}.npy"):
            return self._memory_map(name)
        try:
            array_ND: np.ndarray = np.load(
                self._local(f"{name}.npy"), mmap_mode="r", allow_pickle=False
            )
        except (ValueError, EOFError) as error:
            raise self._error(f"{name}.npy is no array that NumPy reads ({error})") from error
        if not isinstance(array_ND, np.ndarray) or not np.issubdtype(array_ND.dtype, np.floating):
            raise self._error(f"{name}.npy is no array of floating-point numbers")
        return self._checked(name, array_ND)

    def _memory_map(self, name: str) -> np.ndarray:
        if not self._exists(f"{name}_shape.npy"):
            raise self._error(
                f"{name}_shape.npy is missing; it has the shape of {name}.mm, (fingerprints, "
                f"{DIMENSION}), as numpy.save writes it"
            )
        try:
            stored = np.load(io.BytesIO(storage.read(self._uri(f"{name}_shape.npy"))))
            rows, columns = (int(size) for size in stored)
        except (ValueError, TypeError, EOFError) as error:
            raise self._error(f"{name}_shape.npy has no two whole numbers ({error})") from error
        path = self._local(f"{name}.mm")
        wanted, there = 4 * rows * columns, os.path.getsize(path)
        if rows < 1 or columns < 1 or there < wanted:
            raise self._error(
                f"{name}.mm has {there:,} bytes; {rows:,} x {columns} float32, which "
                f"{name}_shape.npy says, are {wanted:,}"
            )
        # The official evaluation appends db to dummy_db.mm: the shape says how much counts.
        return self._checked(name, np.memmap(path, np.float32, "r", shape=(rows, columns)))

    def _checked(self, name: str, array_ND: np.ndarray) -> np.ndarray:
        """Its shape; its numbers are checked when they are used."""
        if array_ND.ndim != 2 or array_ND.shape[1] != DIMENSION or not len(array_ND):
            raise self._error(
                f"{name} has the shape {array_ND.shape}, not (fingerprints, {DIMENSION})"
            )
        return array_ND

    def _read_parts(self, name: str) -> list[Part]:
        rows, file = len(self._database[name]), f"{name}_tracks.csv"
        if not self._exists(file):
            first = range(0, rows, UNDIVIDED)
            return [Part(f"{name} {n}", f, min(UNDIVIDED, rows - f)) for n, f in enumerate(first)]
        parts: list[Part] = []
        end = 0
        for line, row in enumerate(read_table(self._uri(file)), 2):
            track, count = str(row.get("track") or ""), str(row.get("fingerprints") or "")
            if not track or not count.isdigit() or int(count) < 1:
                raise self._error(f"{file}, line {line}: needs track and fingerprints (1 or more)")
            parts.append(Part(track, end, int(count)))
            end += int(count)
        if end != rows:
            raise self._error(f"{file} has {end:,} fingerprints in all, but {name} has {rows:,}")
        return parts

    def _local(self, file: str) -> str:
        cache = os.path.join(tempfile.gettempdir(), f"grafp-cache-{os.getuid()}")
        try:
            return storage.local_copy(self._uri(file), cache)
        except StorageError as error:
            raise self._error(f"{file} cannot be read ({error})") from error

    def _exists(self, file: str) -> bool:
        return storage.stat(self._uri(file)) is not None

    def _uri(self, file: str) -> str:
        return storage.join(self.folder, file)

    def _error(self, reason: str) -> OptionError:
        return OptionError(f"--embeddings {self.folder}: {reason}")
