"""Files to decoded audio with Ray Data; apart from encoding, so that its workers stay small."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import ray.data

from grafp import storage
from grafp.audio import SAMPLE_RATE, decode
from grafp.collection import Item
from grafp.errors import AudioError, StorageError, UnreadableAudio

MAX_FILE_BYTES = 2 << 30
_DECODE_CPUS = 0.25  # unlike an encoder's share, so that Ray keeps the two stages apart


def decoded(items: list[Item], max_seconds: float, known: Iterable[str] = ()) -> ray.data.Dataset:
    """One row per recording, see `decode_row`; `number` is its place in the list."""
    rows = [
        {
            "number": number,
            "uri": item.uri,
            "location": item.location,
            "size": item.info.size if item.info else None,
            "etag": item.info.etag if item.info else None,
            "modified": item.info.modified if item.info else None,
        }
        for number, item in enumerate(items)
    ]
    # Small blocks: what a worker holds must not grow with the length of the list.
    dataset = ray.data.from_items(rows, override_num_blocks=max(1, min(len(rows) // 4, 4096)))
    arguments = {"max_seconds": max_seconds, "known": frozenset(known), "decoder": decode}
    return dataset.map(decode_row, fn_kwargs=arguments, num_cpus=_DECODE_CPUS)


def decode_row(
    row: dict, max_seconds: float, known: frozenset[str], decoder: Callable[..., np.ndarray]
) -> dict:
    """Read and decode one recording; `status` and `error` say how that went.

    One whose content hash is `known` is skipped: its fingerprints exist. One that a worker of
    this machine died of is decoded in a process of its own, and fails if that dies too.
    """
    result = {**row, "status": "ok", "error_kind": None, "error": None, "pcm": b""}
    result |= {"duration_s": 0.0, "content_sha256": None}
    try:
        if (row["size"] or 0) > MAX_FILE_BYTES:
            raise AudioError(f"the file has {row['size']} bytes; the limit is {MAX_FILE_BYTES}")
        data = storage.read(row["location"])
        result["content_sha256"] = hashlib.sha256(data).hexdigest()
        if result["content_sha256"] in known:
            return result | {"status": "skipped"}
        with _marked(row["location"]) as was_deadly:
            decode_one = _apart(decoder) if was_deadly else decoder
            samples_S = decode_one(data, max_seconds=max_seconds)
        result |= {"pcm": samples_S.tobytes(), "duration_s": len(samples_S) / SAMPLE_RATE}
    except (AudioError, StorageError) as error:
        kind = error.kind if isinstance(error, AudioError) else "storage"
        result |= {"status": "failed", "error_kind": kind, "error": str(error)}
    return result


@contextmanager
def _marked(location: str) -> Iterator[bool]:
    """Mark a recording as being decoded; whether a mark was there, left by a worker that died.

    Ray Data would give a recording that crashes its worker to the next one, without end.
    """
    name = hashlib.sha256(location.encode(errors="replace")).hexdigest()[:32]
    mark = os.path.join(tempfile.gettempdir(), f"grafp-decoding-{os.getuid()}", name)
    found = storage.stat(mark) is not None
    storage.write(mark, b"")
    try:
        yield found
    finally:
        storage.delete(mark)


def _apart(decoder: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The same decoder in a new process, whose death is an UnreadableAudio."""

    def decode_apart(data: bytes, **options: float) -> np.ndarray:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                return pool.submit(decoder, data, **options).result()
            except BrokenProcessPool as error:
                raise UnreadableAudio("the decoder crashes on it") from error

    return decode_apart
