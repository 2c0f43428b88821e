"""What every flow needs of Ray: a connection, a time limit, metrics, quiet logs."""

import logging
import os
import queue
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

# Read by Ray when it is imported or started. Nothing is reported to anyone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# On few cores, Ray would end workers that wait a second for their next task, and start them again,
# which costs seconds of imports each time.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
# Errors of Ray Data's own actors, such as one that counts rows and was started again. The flows
# wait for the results of all their tasks, and so see the errors of these.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

# What the autoscaler does, and cannot do yet, several times a second; `machines` tells it once.
os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")

import pyarrow as pa
import ray
import ray.data
from ray.util.metrics import Counter

from grafp.errors import ClusterError
from pipelines.common import placement
from pipelines.common.interrupt import keeps_sigterm

logger = logging.getLogger(__name__)
T = TypeVar("T")
_QUIET, _STALLED = 60.0, 3600.0


def connect() -> None:
    """Join the cluster of RAY_ADDRESS (`ray job submit` sets it), else start one here.

    Raises ClusterError when it cannot be joined, or has no CPU for work in time.
    """
    if not ray.is_initialized():
        with keeps_sigterm():
            _join()
    context = ray.data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):  # Ray's log files keep its stack traces
            handler.setLevel(logging.CRITICAL)
    context.enable_progress_bars = False  # the jobs print their own, in units a user cares for
    context.target_max_block_size = 32 << 20  # decoded audio waits between stages: keep it small


def _join() -> None:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        _start()
        return
    _check_head(address)
    try:
        ray.init(logging_level=logging.ERROR)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise ClusterError(f"RAY_ADDRESS={address}: {' '.join(str(error).split())}") from error
    if not placement.available([{"CPU": 0.5}], "a CPU"):
        raise ClusterError(
            f"no CPU for work within {placement.wait_seconds():g} s; the cluster has "
            f"{placement.what_there_is()}"
        )


def _start() -> None:
    """Start Ray on this machine, without its dashboard, which takes processes of its own."""
    try:
        ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray's own for a busy machine; it has no class
        raise ClusterError(
            f"Ray did not start on this machine ({' '.join(str(error).split())}); if the machine "
            "is busy, run the same again later; small work does without Ray: --workers 0"
        ) from error


def _check_head(address: str) -> None:
    """Ray itself tries for two minutes and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto", "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ClusterError(f"RAY_ADDRESS={address}: no Ray head answers there ({error})") from error


def with_time_limit(batches: Iterable[T]) -> Iterator[T]:
    """The same batches; logs every minute in which none comes.

    Ray waits without end for machines that are gone. Raises ClusterError when nothing came for an
    hour; the next run uses what is finished by then.
    """
    arrived: queue.Queue[tuple[T | None, Exception | None]] = queue.Queue(1)

    def produce() -> None:
        try:
            for batch in batches:
                arrived.put((batch, None))
            arrived.put((None, None))
        except Exception as error:  # noqa: BLE001 - raised below, where it can be caught
            arrived.put((None, error))

    threading.Thread(target=produce, daemon=True).start()
    waited = 0.0
    while True:
        try:
            batch, error = arrived.get(timeout=_QUIET)
        except queue.Empty:
            waited += _QUIET
            text = f"nothing finished for {waited:.0f} s; there are {placement.what_there_is()}"
            if waited >= _STALLED:
                raise ClusterError(f"{text}; run the same again when there are more") from None
            logger.info(f"  {text}")
            continue
        if error:
            raise error
        if batch is None:
            return
        waited = 0.0
        yield batch


def counted(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, counted in Ray's metrics; they need `status` and `duration_s`."""
    recordings = Counter("grafp_recordings", "Recordings worked on.", ("status",))
    audio = Counter("grafp_audio_seconds", "Audio worked on, seconds.")
    for batch in batches:
        for row in batch.select(["status", "duration_s"]).to_pylist():
            recordings.inc(tags={"status": row["status"]})
            if row["duration_s"] > 0:
                audio.inc(row["duration_s"])
        yield batch
