"""The rows of a flow's last stage, with progress."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from grafp.storage.tables import Row
from pipelines.common.work import Rows

if TYPE_CHECKING:
    import ray.data

logger = logging.getLogger(__name__)
_SAY_EVERY = 5.0  # seconds


def finished_rows(dataset: "ray.data.Dataset | Rows", total: int | None) -> Iterator[Row]:
    """The rows of a dataset as its last stage finishes them; logs progress.

    Rows need `status` and `duration_s`. `total` is the number of rows; None: it is not known, as
    for chunks of recordings.
    """
    started = said = time.monotonic()
    done = failed = 0
    seconds = 0.0
    for batch in _batches(dataset):
        rows = batch.to_pylist()
        done += len(rows)
        failed += sum(row["status"] == "failed" for row in rows)
        seconds += sum(row["duration_s"] for row in rows)
        now = time.monotonic()
        if now - said > _SAY_EVERY or done == total:
            said, elapsed = now, now - started
            speed = f"{seconds / 3600:.2f} h of audio, {seconds / elapsed:.0f}x real time"
            if total is None:
                logger.info(f"  {done} chunks, {speed}, {failed} failed")
            else:
                left = elapsed / done * (total - done)
                logger.info(
                    f"  {done}/{total} recordings, {speed}, {failed} failed, {left:.0f} s left"
                )
        yield from rows


def _batches(dataset: "ray.data.Dataset | Rows") -> Iterable[pa.Table]:
    batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    if isinstance(dataset, Rows):
        return batches
    from pipelines.common.runtime import counted, with_time_limit

    return counted(with_time_limit(batches))
