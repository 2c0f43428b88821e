"""Files to decoded audio; apart from encoding, so that Ray's workers for it stay small."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from grafp.audio import SAMPLE_RATE, decode, decode_chunks
from grafp.catalog.changes import is_known
from grafp.errors import AudioError, StorageError
from grafp.storage.sources import Item, read_recording
from pipelines.common.apart import Apart
from pipelines.common.work import Pending, Rows, dataset, is_here, share

if TYPE_CHECKING:
    import ray.data

T = TypeVar("T")
_DECODE_CPUS = 0.25  # unlike an encoder's share, so that Ray keeps the two stages apart


def decoded(
    items: list[Item], max_seconds: float, known_H: np.ndarray | None = None
) -> "ray.data.Dataset | Rows":
    """One row per recording, see `decode_row`; `number` is its number in the list."""
    rows = _rows(items)
    known = None if known_H is None else share(known_H)
    if is_here():
        return Rows(_decoded_here(rows, max_seconds, known))
    # Small blocks: what a worker holds must not grow with the length of the list.
    recordings = dataset(rows, blocks=max(1, min(len(rows) // 4, 4096)))
    arguments = {"max_seconds": max_seconds, "known": known, "decoder": decode}
    return recordings.map(guarded_row, fn_kwargs=arguments, num_cpus=_DECODE_CPUS)


def _decoded_here(
    rows: list[dict], max_seconds: float, known: Pending[np.ndarray] | None
) -> Iterator[dict]:
    with Apart() as process:
        for row in rows:
            yield decode_row(row, max_seconds, known, partial(process.call, decode))


def guarded_row(
    row: dict,
    max_seconds: float,
    known: Pending[np.ndarray] | None,
    decoder: Callable[..., np.ndarray],
) -> dict:
    """Like `decode_row`, in a worker of Ray.

    A recording that a worker of this machine died of is decoded in a process of its own, and fails
    if that dies too.
    """
    return decode_row(row, max_seconds, known, partial(decode_guarded, row, decoder))


def decode_row(
    row: dict,
    max_seconds: float,
    known: Pending[np.ndarray] | None,
    decoder: Callable[..., np.ndarray],
) -> dict:
    """Read and decode one recording; `status` and `error` say how that went.

    `known`: see `grafp.catalog.changes.known_hashes`. A recording that is known by its content is
    skipped.
    """
    result = {**row, "status": "ok", "error_kind": None, "error": None, "pcm": b""}
    result |= {"duration_s": 0.0, "content_sha256": None}
    try:
        data = read_recording(row["location"], row["size"])
        result["content_sha256"] = hashlib.sha256(data).hexdigest()
        if known is not None and is_known(known.result(), result["content_sha256"]):
            return result | {"status": "skipped"}
        samples_S = decoder(data, max_seconds=max_seconds)
        result |= {"pcm": samples_S.tobytes(), "duration_s": len(samples_S) / SAMPLE_RATE}
    except (AudioError, StorageError) as error:
        kind = error.kind if isinstance(error, AudioError) else "storage"
        result |= {"status": "failed", "error_kind": kind, "error": str(error)}
    return result


def decoded_chunks(
    items: list[Item], max_seconds: float, samples: int, overlap: int
) -> "ray.data.Dataset | Rows":
    """Long recordings, one row per chunk (`grafp.audio.decode_chunks`), see `_chunks`."""
    rows = _rows(items)
    recordings = dataset(rows, blocks=max(1, min(len(rows), 4096)))
    arguments = {"max_seconds": max_seconds, "samples": samples, "overlap": overlap}
    return recordings.flat_map(_chunks, fn_kwargs=arguments, num_cpus=_DECODE_CPUS)


def _chunks(row: dict, max_seconds: float, samples: int, overlap: int) -> Iterator[dict]:
    """The chunks of one recording; `duration_s` is what each adds to those before.

    A row that failed may follow others: the recording cannot be used.
    """
    result = {"number": row["number"], "status": "ok", "error": None, "pcm": b""}
    result |= {"begin_s": 0.0, "duration_s": 0.0}
    options: dict[str, Any] = {"samples": samples, "overlap": overlap, "max_seconds": max_seconds}
    try:
        data = read_recording(row["location"], row["size"])
        with _marked(row["location"]) as was_deadly:
            if was_deadly:
                _apart(_last_sample)(data, **options)
            for first, sound_S in decode_chunks(data, **options):
                added = len(sound_S) - (overlap if first else 0)
                result |= {"begin_s": first / SAMPLE_RATE, "duration_s": added / SAMPLE_RATE}
                yield {**result, "pcm": sound_S.tobytes()}
    except (AudioError, StorageError) as error:
        yield {**result, "duration_s": 0.0, "status": "failed", "error": str(error)}


def _last_sample(data: bytes, **options: Any) -> int:
    """Decode everything and keep nothing."""
    return max(first + len(sound_S) for first, sound_S in decode_chunks(data, **options))


def _rows(items: list[Item]) -> list[dict]:
    return [
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


def decode_guarded(
    row: dict, decoder: Callable[..., np.ndarray], data: bytes, **options: Any
) -> np.ndarray:
    """Decode a recording; one that a worker of this machine died of, in a process of its own.

    Raises AudioError, also when that process dies.
    """
    with _marked(row["location"]) as was_deadly:
        return (_apart(decoder) if was_deadly else decoder)(data, **options)


@contextmanager
def _marked(location: str) -> Iterator[bool]:
    """Mark a recording as being decoded; whether a mark was there, left by a worker that died.

    Ray Data would give a recording that crashes its worker to the next one, without end. A mark
    is an empty file: it has to outlive its process, not the machine, so nothing waits for a disk.
    """
    name = hashlib.sha256(location.encode(errors="replace")).hexdigest()[:32]
    folder = os.path.join(tempfile.gettempdir(), f"grafp-decoding-{os.getuid()}")
    mark = os.path.join(folder, name)
    try:
        os.makedirs(folder, exist_ok=True)
        found = os.path.exists(mark)
        open(mark, "wb").close()
    except OSError:  # a full disk is no reason to leave the recording out
        yield False
        return
    try:
        yield found
    finally:
        with suppress(FileNotFoundError):
            os.unlink(mark)


def _apart(decoder: Callable[..., T]) -> Callable[..., T]:
    """The same decoder in a new process, whose death is an UnreadableAudio."""

    def decode_apart(data: bytes, **options: Any) -> T:
        with Apart() as process:
            return process.call(decoder, data, **options)

    return decode_apart
