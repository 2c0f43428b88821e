"""Recordings decoded once, for training: PCM in Parquet shards, and what became of each recording.

Before: grafp/storage/sources.py, which lists the files of a collection.
After: prepare.py, which has every part written and makes one table of them.

DATA/shards/PART-N.parquet  uri, group, sha256, seconds, pcm: int16 little-endian, 16 kHz mono
DATA/parts/PART.parquet     one row per recording of a part, written after its shards

A part is what one task decodes. Its name comes from its content: two runs at once write the same
files, and a run continues where an interrupted one stopped.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from grafp import storage
from grafp.audio import SAMPLE_RATE, decode, to_pcm
from grafp.audio.formats import FORMATS
from grafp.datasets import Kind, list_part
from grafp.errors import AudioError, StorageError, StoreUnreachable
from grafp.storage.sources import Item, held_out, read_recording
from grafp.storage.tables import from_parquet, table_of, to_parquet

FORMAT_VERSION = 1
SHARD_BYTES = 64 << 20
MIN_SECONDS = {"music": 1.1, "noise": 0.25, "rir": 0.0}
"""Kinds of collections, and how long a recording of each must be."""
_ITEMS_A_PART = 1024
# Bytes of PCM that a byte of a file becomes, about. Only the sizes of tasks depend on it.
_GROWTH = {one.extension: 2 * SAMPLE_RATE / one.bytes_a_second for one in FORMATS}
_SHARD = pa.schema(
    [
        ("uri", pa.string()),
        ("group", pa.string()),
        ("sha256", pa.string()),
        ("seconds", pa.float64()),
        ("pcm", pa.large_binary()),
    ]
)
PART = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("group", pa.string()),
        ("status", pa.string()),  # ok, failed, or unread: it is there, but the store refuses it
        ("error", pa.string()),
        ("sha256", pa.string()),  # of the PCM
        ("samples", pa.int64()),
        ("shard", pa.string()),
        ("row", pa.int32()),
        ("shard_bytes", pa.int64()),
    ]
)

Part = list[dict[str, Any]]
"""Recordings for one task: uri, location, size, etag and group of each, and `validation` of those
with that split."""


@dataclass(frozen=True)
class Sources:
    """The recordings of a collection, in the order of the shards to come."""

    what: Kind
    uri: str
    rows: Part

    @classmethod
    def of(cls, what: Kind, uri: str) -> "Sources":
        """List what a collection has for training.

        Groups lie together, in an order that does not depend on their names; those for validation
        come last.

        Raises StorageError, and OptionError when nothing is there.
        """
        items = list_part(what, uri, "train")
        items.sort(key=lambda item: (_held_out(item), short_hash(item.group), item.uri))
        return cls(what, uri, [_row(item) for item in items])

    @property
    def validation(self) -> frozenset[str]:
        """The groups with the split `validation`, none of which is trained on."""
        return frozenset(row["group"] for row in self.rows if "validation" in row)

    @property
    def digest(self) -> str:
        """Changes with the collection, and with the way it is decoded."""
        return short_hash(FORMAT_VERSION, self.what, MIN_SECONDS[self.what], self.rows)

    def parts(self) -> list[Part]:
        """About a shard each."""
        parts: list[Part] = []
        left = 0.0
        for row in self.rows:
            growth = _GROWTH.get(os.path.splitext(row["location"])[1].lower(), 1.0)
            left -= growth * (row["size"] or 0)
            if not parts or left < 0 or len(parts[-1]) == _ITEMS_A_PART:
                parts.append([])
                left = SHARD_BYTES - growth * (row["size"] or 0)
            parts[-1].append(row)
        return parts


def _row(item: Item) -> dict[str, Any]:
    size, etag = (item.info.size, item.info.etag) if item.info else (None, None)
    names = {"uri": item.uri, "location": item.location, "group": item.group}
    marked = {"validation": True} if item.row.get("split") == "validation" else {}
    return {**names, "size": size, "etag": etag, **marked}


def _held_out(item: Item) -> bool:
    return item.row.get("split") == "validation" or held_out(item)


def short_hash(*values: Any) -> str:
    """The same for equal values, in every process."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class PartWriter:
    """Decodes parts and writes their shards."""

    store: str
    what: str
    shard_bytes: int = field(default_factory=lambda: SHARD_BYTES)
    """Of PCM in a shard, more only where a single recording has more."""

    def key(self, part: Part) -> str:
        """Of the table that says what became of a part."""
        return f"parts/{self._name(part)}.parquet"

    def __call__(
        self,
        part: Part,
        decoder: Callable[..., np.ndarray] | None = None,
        spread: Callable[..., Iterable[dict[str, Any]]] = map,
    ) -> list[dict[str, Any]]:
        """Work on one part; returns what became of each recording, see `PART`.

        Args:
            decoder: called with the row, the bytes and options of `grafp.audio.decode`.
            spread: `map`, or a thread pool's.

        Raises StorageError when the shards cannot be written, StoreUnreachable.
        """
        rows: list[dict[str, Any]] = []
        shard: list[dict[str, Any]] = []
        convert = partial(_convert, min_seconds=MIN_SECONDS[self.what], decoder=decoder)
        for row in spread(convert, part):
            rows.append(row)
            if row["status"] != "ok":
                continue
            if shard and sum(len(r["pcm"]) for r in shard) + len(row["pcm"]) > self.shard_bytes:
                self._flush(part, shard, rows)
            shard.append(row)
        if shard:
            self._flush(part, shard, rows)
        write_parquet(storage.join(self.store, self.key(part)), rows, PART)
        return rows

    def _flush(self, part: Part, shard: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
        """Write a shard, and empty it."""
        number = len({row["shard"] for row in rows} - {None})
        key = f"shards/{self._name(part)}-{number}.parquet"
        sounds = [{**row, "seconds": row["samples"] / SAMPLE_RATE} for row in shard]
        size = write_parquet(storage.join(self.store, key), sounds, _SHARD)
        for number, row in enumerate(shard):
            row |= {"shard": key, "row": number, "shard_bytes": size, "pcm": b""}
        shard.clear()

    def _name(self, part: Part) -> str:
        return short_hash(FORMAT_VERSION, MIN_SECONDS[self.what], part)


def _convert(
    row: dict[str, Any], min_seconds: float, decoder: Callable[..., np.ndarray] | None
) -> dict[str, Any]:
    """Read and decode one recording; `status` and `error` tell the result.

    Raises StoreUnreachable, which is no fault of this recording.
    """
    result = {name: row[name] for name in ("uri", "size", "etag", "group")}
    result |= {"status": "ok", "error": None, "sha256": None, "samples": 0, "pcm": b""}
    result |= {"shard": None, "row": None, "shard_bytes": None}
    options: dict[str, Any] = {"min_seconds": min_seconds, "allow_silent": False}
    try:
        data = read_recording(row["location"], row["size"])
        samples_S = decoder(row, data, **options) if decoder else decode(data, **options)
    except StoreUnreachable:
        raise
    except (AudioError, StorageError) as error:
        refused = isinstance(error, StorageError) and row["size"] is not None
        return result | {"status": "unread" if refused else "failed", "error": str(error)}
    pcm = to_pcm(samples_S).astype("<i2").tobytes()
    sha256 = hashlib.sha256(pcm).hexdigest()
    return result | {"pcm": pcm, "sha256": sha256, "samples": len(samples_S)}


def read_pcm(uri: str, rows: np.ndarray) -> list[np.ndarray]:
    """Some recordings of a shard, int16 (samples,) each.

    Raises StorageError when the shard is gone or damaged.
    """
    column = read_parquet(uri, ["pcm"])["pcm"].combine_chunks()
    return [np.frombuffer(column[int(row)].as_buffer(), "<i2") for row in rows]


def read_parquet(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read a table. Raises StorageError when it is gone or damaged."""
    data = storage.read(uri)
    try:
        return from_parquet(data, columns)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise StorageError(f"{uri}: damaged ({reason}); delete it and run again") from error


def write_parquet(uri: str, rows: list[dict[str, Any]], schema: pa.Schema) -> int:
    """Write the columns of a schema; returns the bytes. PCM is noise to a compressor.

    Raises KeyError for a row without one of the columns.
    """
    table = table_of([{name: row[name] for name in schema.names} for row in rows], schema)
    data = to_parquet(table, compression="NONE", use_dictionary=False)
    storage.write(uri, data)
    return len(data)
