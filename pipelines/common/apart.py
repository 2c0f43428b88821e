"""Audio decoded in a process of its own; a small module, for that process imports it too."""

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from grafp.errors import UnreadableAudio

T = TypeVar("T")


class Apart:
    """A process that a hostile file may crash; another one takes its place."""

    def __init__(self) -> None:
        self._pool = _process()

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def call(self, decoder: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """What `decoder` returns or raises there; UnreadableAudio when the process dies."""
        try:
            return self._pool.submit(decoder, *arguments, **options).result()
        except BrokenProcessPool as error:
            self._pool = _process()
            raise UnreadableAudio("the decoder crashes on it") from error


def _process() -> ProcessPoolExecutor:
    # An interrupt at the terminal reaches all processes of a job, and the job ends this one.
    ignored = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=signal.signal, initargs=ignored
    )
