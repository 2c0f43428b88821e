"""The rows of a flow's last stage, with progress."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from grafp.storage.tables import Row
from pipelines.common.progress import progress
from pipelines.common.work import Rows

if TYPE_CHECKING:
    import ray.data


def finished_rows(dataset: "ray.data.Dataset | Rows", total: int | None) -> Iterator[Row]:
    """The rows of a dataset as its last stage finishes them; shows progress.

    Rows need `status` and `duration_s`. `total` is the number of rows; None: it is not known, as
    for chunks of recordings.
    """
    started = time.monotonic()
    failed, seconds = 0, 0.0
    with progress("recordings" if total else "chunks", total) as advance:
        for batch in _batches(dataset):
            rows = batch.to_pylist()
            failed += sum(row["status"] == "failed" for row in rows)
            seconds += sum(row["duration_s"] for row in rows)
            speed = seconds / (time.monotonic() - started)
            told = f"{seconds / 3600:.2f} h of audio, {speed:.0f}x real time, {failed} failed"
            advance(len(rows), told)
            yield from rows


def _batches(dataset: "ray.data.Dataset | Rows") -> Iterable[pa.Table]:
    batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    if isinstance(dataset, Rows):
        return batches
    from pipelines.common.runtime import counted, with_time_limit

    return counted(with_time_limit(batches))
