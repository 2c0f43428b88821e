"""What every flow needs of Ray: a connection, a count of processors, quiet logs."""

import logging
import os
import time
from collections.abc import Callable, Iterator

# Read by Ray when it is imported or started. Nothing is reported to anyone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# On few processors, workers that wait a second for their next task would be ended and started anew,
# which costs them seconds of imports each time.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")

import ray
import ray.data
from ray.util.metrics import Counter

_PART_OF_A_CPU = 0.5
"""What an encoder reserves: a pool that took every CPU would leave none to feed it."""


def connect() -> None:
    """Join the cluster of RAY_ADDRESS (`ray job submit` sets it), else start one here."""
    if not ray.is_initialized():
        address = None if os.environ.get("RAY_ADDRESS") else "local"
        ray.init(address=address, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):  # Ray's log files keep its stack traces
            handler.setLevel(logging.CRITICAL)
    context.enable_progress_bars = False  # the jobs print their own, in units a user cares for
    context.target_max_block_size = 32 << 20  # decoded audio waits between stages: keep it small


def encoder_pool(workers: int | None) -> dict[str, object]:
    """Arguments of a Ray Data stage of encoder actors: one a GPU, or one a processor."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    count = workers or gpus or max(1, int(resources.get("CPU", 1)))
    need = {"num_gpus": 1} if gpus else {"num_cpus": _PART_OF_A_CPU}
    return {"compute": ray.data.ActorPoolStrategy(min_size=1, max_size=count), **need}


def finished_rows(
    dataset: ray.data.Dataset, total: int | None, say: Callable[[str], None]
) -> Iterator[dict]:
    """The rows of a dataset as its last stage finishes them, saying how far the work is.

    Rows need `status` and `duration_s`; `total` is how many there will be, None where stretches
    of recordings come and nobody knows.
    """
    started = said = time.monotonic()
    recordings = Counter("grafp_recordings", "Recordings worked on.", ("status",))
    audio = Counter("grafp_audio_seconds", "Audio worked on, seconds.")
    done = failed = 0
    seconds = 0.0
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        rows = batch.to_pylist()
        for row in rows:
            recordings.inc(tags={"status": row["status"]})
            if row["duration_s"] > 0:
                audio.inc(row["duration_s"])
        done += len(rows)
        failed += sum(row["status"] == "failed" for row in rows)
        seconds += sum(row["duration_s"] for row in rows)
        now = time.monotonic()
        if now - said > 5 or done == total:
            said, elapsed = now, now - started
            speed = f"{seconds / 3600:.2f} h of audio, {seconds / elapsed:.0f}x real time"
            if total is None:
                say(f"  {done} stretches, {speed}, {failed} failed")
            else:
                left = elapsed / done * (total - done)
                say(f"  {done}/{total} recordings, {speed}, {failed} failed, {left:.0f} s left")
        yield from rows
