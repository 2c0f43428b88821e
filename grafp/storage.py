"""Where bytes live: the only module that knows local disk from S3.

A URI is a local path (relative, absolute or file://) or s3://bucket/prefix; the usual AWS_*
variables reach any S3-compatible store. Every failure is a StorageError: one line with the URI
and what to do. A file appears whole or not at all.
"""

import contextlib
import fcntl
import hashlib
import os
import stat as modes
import time
import uuid
from collections.abc import Iterator
from typing import Any

from grafp import s3
from grafp.errors import StorageError
from grafp.s3 import FileInfo


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    tail = [part.strip("/") for part in parts if part.strip("/")]
    return "/".join([uri.rstrip("/"), *tail]) if tail else uri


def absolute(uri: str) -> str:
    """The same place, whatever the working directory. Raises StorageError like all below."""
    return uri if s3.is_s3(uri) else os.path.abspath(_path(uri))


def read(uri: str) -> bytes:
    """The whole content."""
    with _explained(uri):
        if s3.is_s3(uri):
            return s3.read(uri)
        with open(_path(uri), "rb") as file:
            return file.read()


def write(uri: str, data: bytes) -> None:
    """Store `data`, over what is there."""
    with _explained(uri):
        if s3.is_s3(uri):
            return s3.write(uri, data)
        with _staged(_path(uri), data) as temporary:
            os.replace(temporary, _path(uri))


def create(uri: str, data: bytes) -> bool:
    """Store `data` unless something is there; return whether it was stored.

    When S3's reply is lost and the request repeated, False can mean that this call stored it.
    """
    with _explained(uri):
        if s3.is_s3(uri):
            return s3.put_if(uri, data, IfNoneMatch="*")
        with _staged(_path(uri), data) as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, _path(uri))  # unlike a rename, it never overwrites
            return True
    return False


def replace(uri: str, data: bytes, expected_etag: str | None) -> bool:
    """Store `data` if the etag is still this one (None: nothing there); whether it was stored.

    False may follow a lost reply, as in `create`. On local disk, `write` does not wait for it.
    """
    if expected_etag is None:
        return create(uri, data)
    with _explained(uri):
        if s3.is_s3(uri):
            return s3.put_if(uri, data, IfMatch=f'"{expected_etag}"')
        with _locked(_path(uri)):
            info = stat(uri)
            if info is None or info.etag != expected_etag:
                return False
            write(uri, data)
    return True


def stat(uri: str) -> FileInfo | None:
    """Size, etag and time of a file; None if there is none (or it is a folder)."""
    with _explained(uri), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return s3.stat(uri) if s3.is_s3(uri) else _local_info(uri, _path(uri))
    return None


def list_files(
    uri: str, extensions: tuple[str, ...] = (), *, may_be_missing: bool = False
) -> list[FileInfo]:
    """All files in a folder and below, sorted; hidden files and folders are left out.

    Their URIs start with `uri` as given; `extensions` such as (".wav",) ignore case. A missing
    folder or prefix is an error unless it `may_be_missing`; a single file lists as itself.
    """
    suffixes = tuple(extension.lower() for extension in extensions)
    found: list[FileInfo] = []
    with _explained(uri):
        try:
            found = list(s3.list_files(uri) if s3.is_s3(uri) else _list_local(uri))
        except FileNotFoundError as error:
            if not may_be_missing or s3.is_missing_bucket(error):
                raise
    wanted = [info for info in found if not suffixes or info.uri.lower().endswith(suffixes)]
    return sorted(wanted, key=lambda info: info.uri)


def delete(uri: str) -> None:
    """Remove a file; one that does not exist is no error."""
    with _explained(uri), contextlib.suppress(FileNotFoundError):
        if s3.is_s3(uri):
            return s3.delete(uri)
        os.unlink(_path(uri))


def local_copy(uri: str, cache_dir: str) -> str:
    """A local path with the same bytes, downloaded once for all processes on `cache_dir`."""
    info = stat(uri)
    if info is None:
        raise StorageError(f"{uri}: not found")
    if not s3.is_s3(uri):
        return _path(uri)
    digest = hashlib.sha256(f"{uri}\n{info.etag}".encode()).hexdigest()[:32]
    path = os.path.join(cache_dir, digest + os.path.splitext(uri)[1][:16])
    with _explained(uri), _locked(path):
        if not os.path.exists(path):
            with _staged(path, b"") as temporary:
                s3.download(uri, temporary)
                if stat(uri) != info:  # large objects come in parts
                    raise StorageError(f"{uri}: was replaced while it was read; run again")
                os.replace(temporary, path)
    return path


def _path(uri: str) -> str:
    path = uri.removeprefix("file://")
    if "://" in path:
        raise StorageError(f"{uri}: unknown kind of address; use a path or s3://bucket/prefix")
    return path


@contextlib.contextmanager
def _staged(path: str, data: bytes) -> Iterator[str]:
    """A complete temporary file beside `path`, hidden from listings, gone afterwards."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # The kernel's clock ticks every few ms: two writes in one tick need different etags.
        before = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        now = max(time.time_ns(), before + 1)
        os.utime(temporary, ns=(now, now))
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Only one holder among all threads and processes; the system frees it when one dies."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.lock"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _local_info(uri: str, path: str) -> FileInfo | None:
    status = os.stat(path)
    if not modes.S_ISREG(status.st_mode):
        return None
    etag = f"{status.st_mtime_ns}-{status.st_size}"
    return FileInfo(uri, status.st_size, etag, status.st_mtime)


def _list_local(uri: str) -> Iterator[FileInfo]:
    root = _path(uri)
    if info := _local_info(uri, root):
        yield info
        return
    seen = set()  # linked folders are followed, but not round in circles
    for folder, folders, names in os.walk(root, onerror=_fail, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = os.path.join(folder, name)
            # A name that is not UTF-8 fits no table: listed readably, it fails when it is read.
            shown = os.fsencode(os.path.relpath(path, root)).decode(errors="replace")
            with contextlib.suppress(FileNotFoundError):  # a dangling link
                if not name.startswith(".") and (info := _local_info(join(uri, shown), path)):
                    yield info


def _fail(error: OSError) -> None:
    raise error  # os.walk would skip a folder it may not read, and its tracks would be withdrawn


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except _failures(uri) as error:
        told = _explain(uri, error)
        raise type(told)(" ".join(f"{uri}: {told}".split())) from error


def _failures(uri: str) -> tuple[type[Exception], ...]:
    return s3.failures() if s3.is_s3(uri) else (OSError, ValueError)


def _explain(uri: str, error: Exception) -> StorageError:
    """What happened and what to do about it; never a text that can hold a password."""
    if s3.is_s3(uri) and (told := s3.explain(error)):
        return told
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    if isinstance(error, FileNotFoundError):
        text = "not found" + ("; its name is not UTF-8, rename it" if "\ufffd" in uri else "")
    elif isinstance(error, PermissionError):
        text = f"{text}: {error.filename}; check the owner and mode"
    return StorageError(text)


def arrow_filesystem(uri: str) -> tuple[str, Any]:
    """A path and a pyarrow filesystem for libraries that want one; None for local disk."""
    if not s3.is_s3(uri):
        return _path(uri), None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return s3.path(uri), PyFileSystem(FSSpecHandler(s3.client()))
