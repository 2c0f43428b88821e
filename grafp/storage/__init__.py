"""Where bytes live: the only package that knows local disk from S3.

A URI is a local path (relative, absolute or file://) or s3://bucket/prefix; the usual AWS_*
variables reach any S3-compatible store. Every failure is a StorageError: one line with the URI
and what to do. A file appears whole or not at all.
"""

import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from grafp.errors import StorageError
from grafp.storage import copies, local, s3
from grafp.storage.copies import KEPT_FREE
from grafp.storage.s3 import FileInfo

logger = logging.getLogger(__name__)
_SAY_EVERY = 100_000
__all__ = [
    "KEPT_FREE", "FileInfo", "absolute", "arrow_filesystem", "check_writable", "create", "delete",
    "delete_folder", "join", "list_files", "local_copy", "read", "read_ranges",
    "replace", "stat", "write",
]  # fmt: skip


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    tail = [part.strip("/") for part in parts if part.strip("/")]
    base = uri if uri.endswith("://") else uri.rstrip("/")  # no local folder named "s3:"
    return "/".join([base, *tail]) if tail else uri


def absolute(uri: str) -> str:
    """The same URI, whatever the working directory. Raises StorageError like all below."""
    return uri if s3.is_s3(uri) else os.path.abspath(local.path(uri))


def read(uri: str) -> bytes:
    """The whole content."""
    with _backend(uri) as backend:
        return bytes(backend.read(uri))


def write(uri: str, data: bytes) -> None:
    """Store `data`, over what is there."""
    with _backend(uri) as backend:
        backend.write(uri, data)


def create(uri: str, data: bytes) -> bool:
    """Store `data` unless something is there; return whether it was stored.

    When S3's reply is lost and the request repeated, False can mean that this call stored it.
    """
    with _backend(uri) as backend:
        return bool(backend.create(uri, data))


def replace(uri: str, data: bytes, expected_etag: str | None) -> bool:
    """Store `data` if the etag is still this one (None: nothing there); whether it was stored.

    False may follow a lost reply, as in `create`.
    """
    if expected_etag is None:
        return create(uri, data)
    with _backend(uri) as backend:
        return bool(backend.replace(uri, data, expected_etag))


def stat(uri: str) -> FileInfo | None:
    """Size, etag and time of a file; None if there is none (or it is a folder)."""
    info: FileInfo | None = None
    with _backend(uri) as backend, contextlib.suppress(FileNotFoundError, NotADirectoryError):
        info = backend.stat(uri)
    return info


def list_files(
    uri: str, extensions: tuple[str, ...] = (), *, may_be_missing: bool = False
) -> list[FileInfo]:
    """All files in a folder and below, sorted; hidden files and folders are left out.

    Their URIs start with `uri` as given; `extensions` such as (".wav",) ignore case. A missing
    folder or prefix is an error unless it `may_be_missing`; a single file lists as itself.
    """
    suffixes = tuple(extension.lower() for extension in extensions)
    found: list[FileInfo] = []
    with _backend(uri) as backend:
        try:
            for info in backend.list_files(uri):
                found.append(info)
                if len(found) % _SAY_EVERY == 0:
                    logger.info(f"  {len(found):,} files of {uri} listed")
        except FileNotFoundError as error:
            if not may_be_missing or s3.is_missing_bucket(error):
                raise
    wanted = [info for info in found if not suffixes or info.uri.lower().endswith(suffixes)]
    return sorted(wanted, key=lambda info: info.uri)


def delete(uri: str) -> None:
    """Remove a file; one that does not exist is no error."""
    with _backend(uri) as backend, contextlib.suppress(FileNotFoundError):
        backend.delete(uri)


def check_writable(folder: str) -> None:
    """Raises StorageError if nothing can be written to a folder or prefix; makes the folder."""
    uri = join(folder, f".grafp-{uuid.uuid4().hex}")
    write(uri, b"")
    with contextlib.suppress(StorageError):  # who may not delete may still write
        delete(uri)


def delete_folder(folder: str) -> None:
    """Remove all files in a folder and below that are not hidden; one that is missing is no error.

    Folders of this machine that are empty then are removed too.
    """
    for info in list_files(folder, may_be_missing=True):
        delete(info.uri)
    if not s3.is_s3(folder):
        local.remove_empty(folder)


def local_copy(uri: str, cache_dir: str) -> str:
    """A local path with the same bytes, downloaded once for all processes on `cache_dir`.

    Copies that nobody opened for a day make room for it. Raises DiskFull when there is no room.
    """
    info = stat(uri)
    if info is None:
        raise StorageError(f"{uri}: not found")
    if not s3.is_s3(uri):
        return local.path(uri)
    digest = hashlib.sha256(f"{uri}\n{info.etag}".encode()).hexdigest()[:32]
    path = os.path.join(cache_dir, digest + os.path.splitext(uri)[1][:16])
    with _backend(uri), local.locked(path):
        if os.path.exists(path):
            copies.touch(path)
        else:
            copies.make_room(cache_dir, info.size)
            with local.staged(path, b"") as temporary:
                s3.download(uri, temporary)
                if stat(uri) != info:  # large objects come in parts
                    raise StorageError(f"{uri}: was replaced while it was read; run again")
                os.replace(temporary, path)
    return path


def read_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Some parts of a file, each from a byte to before another, several requests at a time."""
    with _backend(uri) as backend:
        parts: list[bytes] = backend.read_ranges(uri, ranges)
    return parts


def arrow_filesystem(uri: str) -> tuple[str, Any]:
    """A path and a pyarrow filesystem for libraries that want one; None for local disk."""
    if not s3.is_s3(uri):
        return local.path(uri), None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return s3.path(uri), PyFileSystem(FSSpecHandler(s3.client()))


@contextlib.contextmanager
def _backend(uri: str) -> Iterator[ModuleType]:
    """The module that reaches a URI; what fails within is a StorageError that names it."""
    backend = s3 if s3.is_s3(uri) else local
    try:
        yield backend
    except backend.failures() as error:
        told = backend.explain(uri, error) or local.explain(uri, error)
        raise type(told)(" ".join(f"{uri}: {told}".split())) from error
