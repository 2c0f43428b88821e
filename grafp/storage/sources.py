"""What a job is to work on: the audio in a folder, under a prefix, or named by a table."""

import csv
import hashlib
import io
import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grafp import storage
from grafp.audio import EXTENSIONS, SAMPLE_RATE, decode_chunks
from grafp.errors import AudioError, OptionError, StorageError, TooShortAudio
from grafp.storage import FileInfo
from grafp.storage.inventory import inventory_files, is_inventory

logger = logging.getLogger(__name__)
MAX_FILE_BYTES = 2 << 30
_TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Item:
    """One recording: its URI as the user gave it, and where its bytes are."""

    uri: str
    location: str
    info: FileInfo | None
    """Size, etag and time; None if it could not be found."""
    row: dict[str, Any]
    """The other columns of the table that named it."""

    @property
    def group(self) -> str:
        """What must stay on one side of a split: a piece, an album, a room; itself by default."""
        return str(self.row.get("group") or self.row.get("room") or self.uri)


def list_items(
    uri: str, *, may_be_missing: bool = False, ignored: Counter[str] | None = None
) -> list[Item]:
    """The recordings of a folder or prefix (searched recursively), a table, an S3 Inventory, or one
    file.

    Tables (CSV or Parquet) have a column `path` or `uri`; a relative entry is meant from the
    table's own folder and may not leave it. `manifest.json` is that of an S3 Inventory. Files with
    other extensions are logged, in one line, and counted in `ignored`, by extension.

    Raises StorageError if nothing is there, unless it `may_be_missing`; OptionError if `uri` is
    another file, or a folder of other files, or if a table lacks the column, names a recording
    twice, or one outside its folder by a relative path.
    """
    if is_table(uri):
        return _from_table(uri)
    if is_inventory(uri):
        return from_files(uri, inventory_files(uri), ignored)
    files = storage.list_files(uri, may_be_missing=may_be_missing)
    if [file.uri for file in files] == [uri] and not uri.lower().endswith(EXTENSIONS):
        raise OptionError(f"{uri}: neither a folder, nor a recording, nor a table (.csv, .parquet)")
    recordings = from_files(uri, files, ignored)
    if files and not recordings and not may_be_missing:
        raise OptionError(f"{uri}: no recordings among its files; another folder may be meant")
    return recordings


def is_table(uri: str) -> bool:
    """Whether a URI names a table of recordings, by its extension."""
    return uri.lower().endswith(_TABLES)


def from_files(
    uri: str, files: Sequence[FileInfo], ignored: Counter[str] | None = None
) -> list[Item]:
    """The recordings among the files of a folder; the others are logged, in one line."""
    recordings = [file for file in files if file.uri.lower().endswith(EXTENSIONS)]
    others = Counter(
        os.path.splitext(file.uri)[1].lower() or "none"
        for file in files
        if not file.uri.lower().endswith(EXTENSIONS)
    )
    _log_ignored(uri, others)
    if ignored is not None:
        ignored.update(others)
    return [item_of(file) for file in recordings]


def item_of(file: FileInfo, **row: Any) -> Item:
    """A listed file as a recording, with the columns that are known of it."""
    return Item(file.uri, storage.absolute(file.uri), file, row)


def _log_ignored(uri: str, extensions: Counter[str]) -> None:
    if ignored := extensions.total():
        most_first = sorted(extensions.items(), key=lambda pair: (-pair[1], pair[0]))
        told = ", ".join(f"{extension} {count}" for extension, count in most_first)
        files = "1 file" if ignored == 1 else f"{ignored} files"
        logger.info("%s: ignored %s with other extensions: %s", uri, files, told)


def held_out(item: Item) -> bool:
    """Whether a recording is for validation: a tenth of all groups, the same in every run."""
    return is_held_out(item.group)


def is_held_out(group: str, share: float = 0.1) -> bool:
    """Whether a group is in the share that is for validation, which is rounded to 1/256.

    What a smaller share has, a larger one has too.
    """
    return hashlib.sha256(group.encode()).digest()[0] < round(256 * share)


def read_recording(location: str, size: int | None) -> bytes:
    """Raises AudioError for a file that is too large to be a recording, StorageError."""
    if (size or 0) > MAX_FILE_BYTES:
        raise AudioError(f"the file has {size} bytes; the limit is {MAX_FILE_BYTES}")
    return storage.read(location)


def read_excerpt(location: str, size: int | None, begin_s: float, seconds: float) -> np.ndarray:
    """What a recording has of these seconds, 16 kHz mono; nothing behind them is decoded.

    Raises AudioError, also when it has nothing there, or StorageError.
    """
    begin, end = round(max(0.0, begin_s) * SAMPLE_RATE), round((begin_s + seconds) * SAMPLE_RATE)
    parts = [np.zeros(0, np.float32)]
    data, chunk = read_recording(location, size), 10 * SAMPLE_RATE
    for first, sound_S in decode_chunks(data, samples=chunk, overlap=0, max_seconds=math.inf):
        parts.append(sound_S[max(0, begin - first) : max(0, end - first)])
        if first + len(sound_S) >= end:
            break
    excerpt_S = np.concatenate(parts)
    if not len(excerpt_S):
        raise TooShortAudio(f"ends before {begin / SAMPLE_RATE:.2f} s")
    return excerpt_S


def read_table(uri: str) -> list[dict[str, Any]]:
    """The rows of a CSV or Parquet file. Raises OptionError when it is neither."""
    data = storage.read(uri)
    try:
        if uri.lower().endswith(".parquet"):
            return pq.read_table(io.BytesIO(data)).to_pylist()
        return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (ValueError, OSError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise OptionError(f"{uri}: not a readable table ({reason})") from error


def _from_table(uri: str) -> list[Item]:
    rows = read_table(uri)
    if not rows:
        return []
    column = next((name for name in ("path", "uri") if name in rows[0]), None)
    if column is None:
        names = ", ".join(filter(None, rows[0]))  # None: what is longer than the header
        raise OptionError(f"{uri}: needs a column named path or uri, has {names}")
    named: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        name = str(row.pop(column) or "").strip()
        if name in named:
            raise OptionError(f"{uri}, row {number}: {name} is named a second time")
        if not _is_full(name) and os.path.normpath(name).split(os.sep)[0] == os.pardir:
            raise OptionError(
                f"{uri}, row {number}: {name} is outside the table's folder; give its full path"
            )
        if name:
            named[name] = row
    locations = [_resolve(name, uri) for name in named]
    with ThreadPoolExecutor(max_workers=16) as pool:  # a request each, on S3
        infos = pool.map(_stat, locations)
        return [
            Item(name, location, info, row)
            for (name, row), location, info in zip(named.items(), locations, infos, strict=True)
        ]


def _resolve(name: str, table_uri: str) -> str:
    if _is_full(name):
        return name
    return storage.join(storage.absolute(table_uri).rpartition("/")[0], name)


def _is_full(name: str) -> bool:
    return "://" in name or os.path.isabs(name)


def _stat(location: str) -> FileInfo | None:
    try:
        return storage.stat(location)
    except StorageError:
        return None  # the reading step gives this recording its reason
