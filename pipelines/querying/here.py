"""A small batch of queries in this process: Ray alone would take longer to start.

The code that answers is that of `pipelines.querying.flow`, and so are the answers.
"""

import os
import sys
from collections.abc import Iterator

from grafp.audio import SAMPLE_RATE
from grafp.errors import AudioError, StorageError
from grafp.opened import OpenCatalog
from grafp.storage.tables import Row
from pipelines.common.apart import Apart, read_and_decode
from pipelines.querying.batch import Batch

_RECORDINGS, _BYTES = 100, 32 << 20


def is_small(batch: Batch) -> bool:
    """Whether no cluster is there, and starting Ray would take longer than the work.

    That is a hundred recordings or fewer, of 32 MB together, and a small catalog. Recordings
    whose size is not known may be long.
    """
    assert batch.catalog.manifest
    if os.environ.get("RAY_ADDRESS") or "ray" in sys.modules:
        return False
    sizes = [item.info.size if item.info else _BYTES + 1 for item in batch.waiting]
    few = len(sizes) <= _RECORDINGS and sum(sizes) <= _BYTES
    return few and batch.catalog.manifest.is_small


def answered_here(batch: Batch) -> Iterator[Row]:
    """The answers to what is waiting, in order, see `Batch.finish`."""
    if not batch.left:
        return
    with Apart() as process:
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
            size = item.info.size if item.info else None
            try:
                samples_S = process.call(
                    read_and_decode, item.location, size, batch.asked.max_seconds
                )
            except (AudioError, StorageError) as error:
                yield row | {"error": str(error)}
                continue
            before = opened.search.spent
            matches = opened.answers(samples_S)
            spent = opened.search.spent - before
            row |= {"duration_s": len(samples_S) / SAMPLE_RATE, "matches": matches}
            yield row | {"codes_scanned": float(spent.codes), "search_seconds": spent.seconds}
