"""Audio decoded in a process of its own; a small module, for that process imports it too."""

import math
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

import numpy as np

from grafp.audio import SAMPLE_RATE, decode_chunks
from grafp.errors import TooShortAudio, UnreadableAudio
from grafp.storage.sources import read_recording

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


def read_excerpt(location: str, size: int | None, begin_s: float, seconds: float) -> np.ndarray:
    """What a recording has of these seconds, 16 kHz mono; nothing behind them is decoded.

    Raises AudioError, also when it has nothing there, or StorageError.
    """
    begin, end = round(max(0.0, begin_s) * SAMPLE_RATE), round((begin_s + seconds) * SAMPLE_RATE)
    parts = [np.zeros(0, np.float32)]
    data, chunk = read_recording(location, size), 10 * SAMPLE_RATE
    for first, sound_S in decode_chunks(data, samples=chunk, overlap=0, max_seconds=math.inf):
        parts.append(sound_S[max(0, begin - first) : max(0, end - first)])
        if first + len(sound_S) >= end:
            break
    excerpt_S = np.concatenate(parts)
    if not len(excerpt_S):
        raise TooShortAudio(f"ends before {begin / SAMPLE_RATE:.2f} s")
    return excerpt_S
