"""A collection made ready for training: decoded once, exact duplicates kept once.

Before: pcm.py, which decodes parts of it into shards.
After: partition.py, which divides the table's recordings among workers.

DATA/tables/KIND-HASH.parquet  one row per recording: what became of it, and its shard and row
DATA/KIND-DIGEST.json          the manifest, written last: sources, settings, table, shards

KIND is music, noise or rir; earlier versions wrote rooms for rir and decode such files anew.
Tables are never overwritten: runs that use one keep it.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from grafp import storage
from grafp.audio import SAMPLE_RATE
from grafp.errors import StorageError, TrainingError
from grafp.storage.sources import is_held_out
from grafp.training.data.pcm import (
    FORMAT_VERSION,
    MIN_SECONDS,
    PART,
    Part,
    PartWriter,
    Sources,
    read_parquet,
    short_hash,
    write_parquet,
)

logger = logging.getLogger(__name__)

TABLE = PART.append(pa.field("validation", pa.bool_()))
"""Columns of a collection's table. `status` can be "duplicate". `validation`: its group has that
split; earlier versions knew no such rows and lack the column."""
_NAMED_FAILURES = 20

Spread = Callable[[list[Part], PartWriter], None]
"""Has the writer work on every part: in this process, or over a cluster."""


@dataclass(frozen=True)
class Collected:
    """A collection that is decoded into shards."""

    store: str
    digest: str
    """Of its sources, see `Sources.digest`."""
    key: str
    """Of its table."""
    held_out: float = 0.1
    """Share of its groups that is for validation, 0 to 0.5, where no row has that split."""

    def table(self) -> pa.Table:
        """One row per recording of the sources, see `TABLE`. Raises StorageError."""
        return read_parquet(storage.join(self.store, self.key))

    def usable(self) -> tuple[pa.Table, pa.Table]:
        """The rows that can be used: for training, and for validation. Raises StorageError.

        Whole groups are for validation, see `validation_groups`.
        """
        table = self.table()
        marked: set[str] = set()
        if "validation" in table.column_names:
            marked = set(table.filter(pc.field("validation"))["group"].to_pylist())
        usable = table.filter(pc.field("status") == "ok")
        held = validation_groups(set(usable["group"].to_pylist()), marked, self.held_out)
        is_held = pc.field("group").isin(pa.array(sorted(held), pa.string()))
        return usable.filter(~is_held), usable.filter(is_held)


def collect(
    sources: Sources,
    store: str,
    spread: Spread | None = None,
    before: Collected | None = None,
    held_out: float = 0.1,
) -> Collected:
    """Decode what is not decoded yet, and log what can be used.

    Args:
        spread: does the work; None: this process.
        before: what the run that is resumed uses; files that the store refused then stay out.
        held_out: share of the groups that is for validation, where no row has that split.

    Raises StorageError when a store fails, after which the next run continues, and TrainingError
    when nothing can be used.
    """
    digest = sources.digest
    manifest_uri = storage.join(store, f"{sources.what}-{digest}.json")
    files = storage.list_files(store, (".parquet",), may_be_missing=True)
    sizes = {file.uri: file.size for file in files}
    good = {"ok", "failed", "duplicate"}
    if before and before.digest == digest and _is_whole(before, sizes, good | {"unread"}):
        collected = before
    else:
        collected = Collected(store, digest, _published(manifest_uri) or "", held_out)
        if not _is_whole(collected, sizes, good):
            logger.info(f"{sources.what}: decoding {len(sources.rows)} recordings into {store}")
            key = _decode(sources, store, sizes, manifest_uri, spread or _here)
            collected = Collected(store, digest, key, held_out)
    _tell(sources, collected)
    return collected


def _decode(
    sources: Sources, store: str, sizes: dict[str, int], manifest_uri: str, spread: Spread
) -> str:
    """Decode, and publish the manifest; returns the key of the table."""
    writer, parts = PartWriter(store, sources.what), sources.parts()
    finished = [Collected(store, "", writer.key(part)) for part in parts]
    with ThreadPoolExecutor(max_workers=16) as pool:  # a request each, on S3
        done = pool.map(lambda one: _is_whole(one, sizes, {"ok", "failed"}), finished)
        spread([part for part, is_done in zip(parts, done) if not is_done], writer)
        tables = pool.map(Collected.table, finished)
        rows = [row for table in tables for row in table.to_pylist()]
    marked = _marked(rows, sources.validation)
    key = f"tables/{sources.what}-{short_hash(marked)}.parquet"
    size = write_parquet(storage.join(store, key), marked, TABLE)
    shards: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["shard"]:
            shard = shards.setdefault(row["shard"], {"count": 0, "seconds": 0.0})
            shard["bytes"] = row["shard_bytes"]
            shard["count"] += 1
            shard["seconds"] += row["samples"] / SAMPLE_RATE
    manifest = {
        "format_version": FORMAT_VERSION,
        "what": sources.what,
        "sources": {"uri": sources.uri, "count": len(rows), "digest": sources.digest},
        "settings": {"sample_rate": SAMPLE_RATE, "min_seconds": MIN_SECONDS[sources.what]},
        "table": {"key": key, "bytes": size},
        "shards": [{"key": name, **values} for name, values in shards.items()],
    }
    storage.write(manifest_uri, (json.dumps(manifest, indent=2) + "\n").encode())
    return key


def _here(parts: list[Part], writer: PartWriter) -> None:
    """Decode in this process, on all its cores."""
    total, done, logged = sum(map(len, parts)), 0, time.monotonic()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # decoding releases Python's lock
        for part in parts:
            done += len(writer(part, spread=pool.map))
            if time.monotonic() - logged > 5:
                logged = time.monotonic()
                logger.info(f"  {done}/{total} recordings")


def _published(manifest_uri: str) -> str | None:
    """The key of the table that a manifest names; None if there is none to be used."""
    if storage.stat(manifest_uri) is None:
        return None
    try:
        return str(json.loads(storage.read(manifest_uri))["table"]["key"])
    except (ValueError, KeyError, TypeError):
        return None


def _is_whole(collected: Collected, sizes: dict[str, int], good: set[str]) -> bool:
    """Whether a table and all its shards are there, and nothing in it should be tried again."""
    if storage.join(collected.store, collected.key) not in sizes:
        return False
    try:
        table = collected.table()
    except StorageError:
        return False
    shards = set(zip(table["shard"].to_pylist(), table["shard_bytes"].to_pylist()))
    there = {storage.join(collected.store, name): size for name, size in shards if name}
    return there.items() <= sizes.items() and set(table["status"].to_pylist()) <= good


def _marked(rows: list[dict[str, Any]], validation: frozenset[str]) -> list[dict[str, Any]]:
    """Rows with duplicates and the groups of the split `validation` marked."""
    first: dict[str, str] = {}
    for row in rows:
        if row["status"] == "ok" and first.setdefault(row["sha256"], row["uri"]) != row["uri"]:
            row |= {"status": "duplicate", "error": f"sounds as {first[row['sha256']]}"}
    return [{**row, "validation": row["group"] in validation} for row in rows]


def validation_groups(groups: set[str], marked: set[str], share: float) -> set[str]:
    """The groups for validation: those with that split (`marked`), whatever the share.

    Without any, this share of the groups; where that is none or all, one of five or more, else
    none. Of a share of 0, none.
    """
    if marked:
        return marked
    if not share:
        return set()
    held = {group for group in groups if is_held_out(group, share)}
    if held and held != groups:
        return held
    return {max(groups)} if len(groups) >= 5 else set()


def _tell(sources: Sources, collected: Collected) -> None:
    """Log what can be used, and what cannot for which reason.

    Raises TrainingError when nothing can.
    """
    rows = collected.table().to_pylist()
    failed = [row for row in rows if row["status"] in ("failed", "unread")]
    for row in failed[:_NAMED_FAILURES]:
        logger.info(f"  left out: {row['uri']}: {row['error']}")
    if len(failed) > _NAMED_FAILURES:
        logger.info(f"  left out: {len(failed) - _NAMED_FAILURES} more")
    usable = [row for row in rows if row["status"] == "ok"]
    if not usable:
        least = f"of at least {MIN_SECONDS[sources.what]:g} s"
        raise TrainingError(f"{sources.uri}: no usable {sources.what} (recordings {least})")
    train, held = map(len, collected.usable())
    hours = sum(row["samples"] for row in usable) / SAMPLE_RATE / 3600
    doubles = len(rows) - len(usable) - len(failed)
    logger.info(
        f"{sources.what}: {train} for training, {held} for validation, "
        f"{hours:.2f} h" + (f"; {doubles} exact duplicates left out" if doubles else "")
    )


def changes(before: pa.Table, sources: Sources) -> str:
    """What is new, gone or replaced in a collection, as text for a message."""
    names = ("uri", "size", "etag", "group")
    old, new = (
        {row["uri"]: tuple(row[name] for name in names) for row in rows}
        for rows in (before.to_pylist(), sources.rows)
    )
    kinds = {
        "new": sorted(new.keys() - old.keys()),
        "gone": sorted(old.keys() - new.keys()),
        "replaced": sorted(uri for uri in old.keys() & new.keys() if old[uri] != new[uri]),
    }
    return ", ".join(f"{len(uris)} {kind} ({uris[0]})" for kind, uris in kinds.items() if uris)
