"""Audio decoded in a process of its own; a small module, for that process imports it too."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from types import ModuleType
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
            with _no_main_module():
                result = self._pool.submit(decoder, *arguments, **options)
            return result.result()
        except BrokenProcessPool as error:
            self._pool = _process()
            raise UnreadableAudio("the decoder crashes on it") from error


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_live_with_parent)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Start processes without the caller's script, which would run there once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _live_with_parent() -> None:
    """End when the parent ends, however that is, and not by an interrupt at the terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
