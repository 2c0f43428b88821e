"""A small batch of queries in this process: Ray alone would take longer to start.

The code that answers is that of `pipelines.querying.flow`, and so are the answers.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np

from grafp.audio import SAMPLE_RATE, decode
from grafp.errors import AudioError, StorageError
from grafp.opened import OpenCatalog
from grafp.storage.sources import Item, read_recording
from grafp.storage.tables import Row
from pipelines.querying.batch import Batch

_RECORDINGS, _BYTES, _FINGERPRINTS = 100, 32 << 20, 1_500_000


def is_small(batch: Batch) -> bool:
    """Whether no cluster is there, and starting Ray would take longer than the work.

    That is a hundred recordings or fewer, of 32 MB together, and a catalog of 1.5 million
    fingerprints. Recordings whose size is not known may be long.
    """
    assert batch.catalog.manifest
    if os.environ.get("RAY_ADDRESS") or "ray" in sys.modules:
        return False
    sizes = [item.info.size if item.info else _BYTES + 1 for item in batch.waiting]
    fingerprints = batch.catalog.manifest.counts["fingerprints"]
    return len(sizes) <= _RECORDINGS and sum(sizes) <= _BYTES and fingerprints < _FINGERPRINTS


def answered_here(batch: Batch) -> Iterator[Row]:
    """The answers to what is waiting, in order, see `Batch.finish`."""
    if not batch.left:
        return
    with _Decoder(batch.asked.max_seconds) as decoder:
        opened = OpenCatalog.of(
            batch.catalog,
            batch.acceptance,
            top_k=batch.asked.top_k,
            max_speed_change=batch.asked.max_speed_change,
            decode=batch.asked.decode,
        )
        for number, item in enumerate(batch.waiting):
            row: Row = {"number": number, "duration_s": 0.0, "error": None, "matches": []}
            row |= {"codes_scanned": 0.0, "search_seconds": 0.0}
            found = decoder.samples_of(item)
            if isinstance(found, str):
                yield row | {"error": found}
                continue
            before = opened.search.spent
            matches = opened.answers(found)
            spent = opened.search.spent - before
            row |= {"duration_s": len(found) / SAMPLE_RATE, "matches": matches}
            yield row | {"codes_scanned": float(spent.codes), "search_seconds": spent.seconds}


class _Decoder:
    """Decodes in a process of its own, which a hostile file may crash."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._pool = _process()

    def __enter__(self) -> "_Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def samples_of(self, item: Item) -> np.ndarray | str:
        """16 kHz mono samples, or why there are none."""
        size = item.info.size if item.info else None
        try:
            return self._pool.submit(_samples, item.location, size, self._max_seconds).result()
        except BrokenProcessPool:
            self._pool = _process()
            return "the decoder crashes on it"


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _samples(location: str, size: int | None, max_seconds: float) -> np.ndarray | str:
    try:
        return decode(read_recording(location, size), max_seconds=max_seconds)
    except (AudioError, StorageError) as error:
        return str(error)
