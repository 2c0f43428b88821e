"""What every flow needs of Ray: a connection, a count of processors, quiet logs."""

import logging
import os
from collections.abc import Iterator

# Read by Ray when it is imported or started. Nothing is reported to anyone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.data

_PART_OF_A_CPU = 0.5
"""What an encoder reserves: a pool that took every CPU would leave none to feed it."""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (set inside `ray job submit`), else start one here."""
    if not ray.is_initialized():
        address = None if os.environ.get("RAY_ADDRESS") else "local"
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=True)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the jobs print their own, in units a user cares for
    context.target_max_block_size = 32 << 20  # decoded audio waits between stages: keep it small
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def encoder_pool(workers: int | None) -> dict[str, object]:
    """Arguments of a Ray Data stage of encoder actors: one a GPU, or one a processor."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    count = workers or gpus or max(1, int(resources.get("CPU", 1)))
    need = {"num_gpus": 1} if gpus else {"num_cpus": _PART_OF_A_CPU}
    return {"compute": ray.data.ActorPoolStrategy(min_size=1, max_size=count), **need}


def finished_rows(dataset: ray.data.Dataset) -> Iterator[dict]:
    """The rows of a dataset as its last stage finishes them."""
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()
