"""Where the work of a flow is done: by Ray's workers, or in this process when it is small.

A flow names its tasks and its stages once. Within `at_work` with 0 encoders, they run here, one
after another, and Ray is not imported; starting it would take longer than the work.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import pyarrow as pa

from grafp.catalog.manifest import Manifest
from grafp.storage.sources import Item
from grafp.storage.tables import Row

if TYPE_CHECKING:
    import ray
    import ray.data

R = TypeVar("R")
SMALL_RECORDINGS, SMALL_BYTES = 100, 32 << 20
_HERE: ContextVar[bool] = ContextVar("here", default=False)


@dataclass(frozen=True)
class Encoders:
    """How many encoders work, and on what; by default as many as the machines allow."""

    count: int | None = None
    """At most; 0: all work is done in this process, without Ray."""
    gpu: bool | None = None
    """None takes GPUs that are there; True waits for one, and then does with CPUs."""
    least: int = 1
    """A cluster starts machines for so many at once."""

    def for_work(self, items: Sequence[Item], manifest: Manifest | None) -> "Encoders":
        """Those for these recordings and this catalog, if there is one yet, see `if_small`.

        Small are a hundred recordings or fewer, of 32 MB together, and a small catalog. Recordings
        whose size is not known may be long.
        """
        sizes = [item.info.size if item.info else SMALL_BYTES + 1 for item in items]
        few = len(sizes) <= SMALL_RECORDINGS and sum(sizes) <= SMALL_BYTES
        return self.if_small(few and (manifest is None or manifest.is_small))

    def if_small(self, small: bool) -> "Encoders":
        """0 for small work, where nobody asks for a number and no cluster is named or joined."""
        cluster = os.environ.get("RAY_ADDRESS") or "ray" in sys.modules
        return Encoders(0) if small and self == ENCODERS and not cluster else self


ENCODERS = Encoders()


@contextmanager
def at_work(encoders: Encoders) -> Iterator[None]:
    """Do the work of what follows in this process, if there are 0 encoders, or over Ray."""
    token = _HERE.set(encoders.count == 0)
    try:
        yield
    finally:
        _HERE.reset(token)


def is_here() -> bool:
    """Whether work is done in this process."""
    return _HERE.get()


def connect() -> None:
    """Join Ray, unless work is done here. Raises ClusterError."""
    if not is_here():
        from pipelines.common import runtime

        runtime.connect()


@dataclass(frozen=True)
class Pending(Generic[R]):
    """A value that may still have to be computed, wherever it is."""

    _get: "Callable[[], R] | ray.ObjectRef[R]"

    def result(self) -> R:
        """Compute it here, or wait for it."""
        if callable(self._get):
            return self._get()
        import ray

        return ray.get(self._get)


def share(value: R) -> Pending[R]:
    """A value for many tasks or rows, which workers of a machine have in memory once."""
    if is_here():
        return Pending(lambda: value)
    import ray

    return Pending(ray.put(value))


def start(
    function: Callable[..., R],
    *arguments: Any,
    cpus: float,
    memory: float = 0.0,
    gpu: Literal["none", "share", "free"] = "none",
) -> Pending[R]:
    """Start a task; in this process, it runs when its result is asked for.

    Args:
        arguments: of the function; of pending ones, it gets the results.
        memory: that the task claims, bytes, see `placement.memory_claim`.
        gpu: "share": a part of a GPU, if there is enough; "free": one that nobody uses now.
    """
    if is_here():
        return Pending(lambda: function(*map(_result, arguments)))
    from pipelines.common import placement

    gpus = {"none": float, "share": placement.gpu_share, "free": placement.gpu_is_free}[gpu]()
    needs: dict[str, float] = {"num_cpus": cpus, "num_gpus": float(gpus)}
    if memory:
        needs["memory"] = placement.memory_claim(memory)
    return Pending(_remote(function).options(**needs).remote(*map(_sent, arguments)))


def gather(work: Iterable[Pending[R]]) -> list[R]:
    """The results of tasks that were started, in order."""
    return [one.result() for one in work]


def has_gpu() -> bool:
    """Whether this task or stage was given a GPU."""
    if is_here():
        return False
    import ray

    return bool(ray.get_gpu_ids())


@cache
def _remote(function: Callable[..., R]) -> Any:
    import ray

    return ray.remote(function)


def _result(argument: Any) -> Any:
    return argument.result() if isinstance(argument, Pending) else argument


def _sent(argument: Any) -> Any:
    return argument._get if isinstance(argument, Pending) else argument


def dataset(rows: Iterable[Row], blocks: int) -> "ray.data.Dataset | Rows":
    """Rows for stages to work on; over Ray, in so many blocks."""
    if is_here():
        return Rows(rows)
    import ray.data

    return ray.data.from_items(list(rows), override_num_blocks=blocks)


class Rows:
    """Rows in this process, with the methods of `ray.data.Dataset` that the flows use."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows

    def map(self, function: Callable, *, fn_kwargs: dict[str, Any], **_needs: Any) -> "Rows":
        return Rows(function(row, **fn_kwargs) for row in self._rows)

    def flat_map(self, function: Callable, *, fn_kwargs: dict[str, Any], **_needs: Any) -> "Rows":
        return Rows(made for row in self._rows for made in function(row, **fn_kwargs))

    def map_batches(
        self, stage: Any, *, batch_size: int, fn_constructor_args: tuple = (), **_needs: Any
    ) -> "Rows":
        """`stage`: a function of a table, or a class of such, as in Ray Data."""
        if isinstance(stage, type):
            stage = stage(*fn_constructor_args)
        batches = self._batches(batch_size)
        return Rows(row for batch in batches for row in stage(batch).to_pylist())

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def iter_batches(self, **_format: Any) -> Iterator[pa.Table]:
        """A row at a time, as soon as it is there."""
        return self._batches(1)

    def _batches(self, size: int) -> Iterator[pa.Table]:
        held: list[Row] = []
        for row in self._rows:
            held.append(row)
            if len(held) == size:
                yield pa.Table.from_pylist(held)
                held = []
        if held:
            yield pa.Table.from_pylist(held)
