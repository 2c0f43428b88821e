"""How long listed recordings are, before any is decoded: by headers of some, and by sizes."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from grafp import storage
from grafp.audio import declared_seconds
from grafp.catalog.changes import Changes, extension_of, seconds_a_byte
from grafp.errors import AudioError, StorageError
from grafp.storage.sources import Item
from pipelines.common.apart import Apart

_SAMPLED, _WHOLE = 100, 20  # of each extension: whose headers are read; that are read to the end
_HEADER, _LARGEST_WHOLE = 1 << 18, 64 << 20  # bytes
_AT_ONCE = 16


def audio_seconds(changes: Changes) -> float:
    """Of new and changed recordings: by the headers of some, by the catalog, or by their size."""
    by_extension: dict[str, list[Item]] = {}
    for item in changes.work:
        if item.info and item.info.size:
            by_extension.setdefault(extension_of(item.uri), []).append(item)
    seconds = 0.0
    with Apart() as process:  # a hostile file does no harm there
        for extension, items in by_extension.items():
            rate = _measured(items, process) or seconds_a_byte(changes, extension)
            seconds += rate * sum(item.info.size for item in items if item.info)
    return seconds


def _measured(items: Sequence[Item], process: Apart) -> float | None:
    """Seconds a byte of some of these recordings; None if no header says."""
    some = random.Random(0).sample(list(items), min(_SAMPLED, len(items)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        heads = pool.map(lambda item: _beginning(item, _HEADER), some)
        found = [_seconds(item, head, process) for item, head in zip(some, heads, strict=True)]
    # Some containers have the length at their end.
    for n in [n for n, seconds in enumerate(found) if seconds is None][:_WHOLE]:
        found[n] = _seconds(some[n], _beginning(some[n], _LARGEST_WHOLE), process)
    told = [(item, seconds) for item, seconds in zip(some, found, strict=True) if seconds]
    size = sum(item.info.size for item, _ in told if item.info)
    return sum(seconds for _, seconds in told) / size if size else None


def _beginning(item: Item, most: int) -> bytes:
    """So many bytes of a file at most; none if it cannot be read, for which the run has reasons."""
    assert item.info
    with suppress(StorageError):
        return storage.read_ranges(item.location, [(0, min(most, item.info.size))])[0]
    return b""


def _seconds(item: Item, head: bytes, process: Apart) -> float | None:
    assert item.info
    with suppress(AudioError):
        return process.call(declared_seconds, head, item.info.size) if head else None
    return None
