"""A small batch of queries in this process: Ray alone would take longer to start.

The code that answers is that of `pipelines.querying.flow`, and so are the answers.
"""

import os
import sys
from collections.abc import Iterator

from grafp.audio import SAMPLE_RATE
from grafp.opened import OpenCatalog
from grafp.storage.tables import Row
from pipelines.querying.batch import Batch
from pipelines.querying.decoder import Decoder

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
    with Decoder(batch.asked.max_seconds) as decoder:
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
