"""Recordings decoded in a process of its own; a small module, for that process imports it too."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np

from grafp.audio import decode
from grafp.errors import AudioError, StorageError
from grafp.storage.sources import Item, read_recording


class Decoder:
    """Decodes in a process of its own, which a hostile file may crash."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._pool = _process()

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def samples_of(self, item: Item) -> np.ndarray | str:
        """16 kHz mono samples, or why there are none."""
        size = item.info.size if item.info else None
        try:
            return self._pool.submit(_samples, item.location, size, self._max_seconds).result()
        except BrokenProcessPool:
            self._pool = _process()
            return "the decoder crashes on it"


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _samples(location: str, size: int | None, max_seconds: float) -> np.ndarray | str:
    try:
        return decode(read_recording(location, size), max_seconds=max_seconds)
    except (AudioError, StorageError) as error:
        return str(error)
