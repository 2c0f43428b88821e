"""What is particular to local disk: atomic writes, locks, listings and error texts.

Only grafp.storage imports this. It offers the same functions as grafp.storage.s3.
"""

import contextlib
import errno
import fcntl
import os
import stat as modes
import time
import uuid
from collections.abc import Iterator, Sequence

from grafp.errors import DiskFull, StorageError
from grafp.storage.s3 import FileInfo

_TEMPORARY = ".tmp"
_SPECIAL = "neither a file nor a folder, but a pipe or a device"


def path(uri: str) -> str:
    """The path of a URI. Raises StorageError for another kind of address."""
    name = uri.removeprefix("file://")
    if "://" in name:
        raise StorageError(f"{uri}: unknown kind of address; use a path or s3://bucket/prefix")
    return name


def read(uri: str) -> bytes:
    with open(path(uri), "rb", opener=_at_once) as file:
        if not modes.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, _SPECIAL)
        return file.read()


def _at_once(name: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is not waited for."""
    return os.open(name, flags | os.O_NONBLOCK)


def read_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    with open(path(uri), "rb") as file:
        return [os.pread(file.fileno(), after - first, first) for first, after in ranges]


def write(uri: str, data: bytes) -> None:
    with staged(path(uri), data) as temporary:
        os.replace(temporary, path(uri))


def create(uri: str, data: bytes) -> bool:
    with staged(path(uri), data) as temporary, contextlib.suppress(FileExistsError):
        os.link(temporary, path(uri))  # unlike a rename, it never overwrites
        return True
    return False


def replace(uri: str, data: bytes, expected_etag: str) -> bool:
    """`write` does not wait for it."""
    with locked(path(uri)):
        info = None
        with contextlib.suppress(FileNotFoundError):
            info = stat(uri)
        if info is None or info.etag != expected_etag:
            return False
        write(uri, data)
    return True


def stat(uri: str) -> FileInfo | None:
    """None for a folder. Raises FileNotFoundError if there is nothing."""
    return _info(uri, path(uri))


def delete(uri: str) -> None:
    os.unlink(path(uri))


def remove_empty(uri: str) -> None:
    """Remove a folder and those below, if there is nothing in them."""
    for folder, _, _ in os.walk(path(uri), topdown=False):
        with contextlib.suppress(OSError):  # another run writes there
            os.rmdir(folder)


def list_files(uri: str) -> Iterator[FileInfo]:
    """All files in a folder and below in no promised order; one file as itself."""
    root = path(uri)
    if info := _info(uri, root):
        yield info
        return
    if os.path.exists(root) and not os.path.isdir(root):
        raise OSError(errno.EINVAL, _SPECIAL)
    seen = set()  # linked folders are followed, but not round in circles
    for folder, folders, names in os.walk(root, onerror=_fail, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            file = os.path.join(folder, name)
            # A name that is not UTF-8 fits no table: listed readably, it fails when it is read.
            shown = os.fsencode(os.path.relpath(file, root)).decode(errors="replace")
            if not name.startswith(".") and (info := _listed(f"{uri.rstrip('/')}/{shown}", file)):
                yield info


def failures() -> tuple[type[Exception], ...]:
    """Every kind of exception with which an access can fail."""
    return OSError, ValueError


def explain(uri: str, error: Exception) -> StorageError:
    """What happened and what to do about it."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{text}; free some space, or use a folder on another disk")
    if isinstance(error, FileNotFoundError):
        text = "not found" + ("; its name is not UTF-8, rename it" if "\ufffd" in uri else "")
    elif isinstance(error, IsADirectoryError):
        text = "a folder; give a file"
    elif isinstance(error, NotADirectoryError | FileExistsError):
        text = f"{_not_a_folder(path(uri))} is no folder"
    elif isinstance(error, PermissionError):
        folder, name = os.path.split(str(error.filename))
        where = folder if name.endswith(_TEMPORARY) else error.filename
        text = f"{text}: {where}; check the owner and mode"
    return StorageError(text)


def _not_a_folder(path: str) -> str:
    """The part of a path that is a file."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


@contextlib.contextmanager
def staged(path: str, data: bytes) -> Iterator[str]:
    """A complete temporary file beside `path`, hidden from listings, gone afterwards."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}{_TEMPORARY}")
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
def locked(path: str) -> Iterator[None]:
    """Only one holder among all threads and processes; the system frees it when one dies."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.lock"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _info(uri: str, file: str) -> FileInfo | None:
    status = os.stat(file)
    if not modes.S_ISREG(status.st_mode):
        return None
    etag = f"{status.st_mtime_ns}-{status.st_size}"
    return FileInfo(uri, status.st_size, etag, status.st_mtime)


def _listed(uri: str, file: str) -> FileInfo | None:
    """None for what is no file: a link that leads nowhere or in a circle, a folder."""
    try:
        return _info(uri, file)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise


def _fail(error: OSError) -> None:
    raise error  # os.walk would skip a folder it may not read, and its tracks would be removed
