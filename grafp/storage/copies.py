"""Room for copies of stored files on this machine's disk.

Only grafp.storage imports this.
"""

import contextlib
import os
import shutil
import time

from grafp.errors import DiskFull

KEPT_FREE = 0.1
"""Share of a disk that copies leave free: with less than a twentieth, Ray stops its work."""
_UNUSED_S = 86_400.0


def touch(path: str) -> None:
    """Note that a copy is in use. Its time of modification stays, which tells its content."""
    os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))


def make_room(folder: str, size: int) -> None:
    """Remove copies that nobody opened for a day, the oldest first, while there is no room.

    Raises DiskFull when that is not enough for `size` bytes.
    """
    unused = iter(_unused(folder))
    while True:
        total, _, free = shutil.disk_usage(folder)
        if free - size >= KEPT_FREE * total:
            return
        if (path := next(unused, None)) is None:
            raise DiskFull(
                f"{folder}: the disk is full: {free / 1e9:.1f} of {total / 1e9:.1f} GB are free, "
                f"of which {100 * KEPT_FREE:g} % are kept; free some, or set TMPDIR to a folder on "
                "a larger one"
            )
        with contextlib.suppress(OSError):  # another process was first
            os.unlink(path)


def _unused(folder: str) -> list[str]:
    """Copies in a folder, not opened for a day; hidden files are being written, or locks."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                used = entry.stat(follow_symlinks=False).st_atime
                if entry.is_file() and not entry.name.startswith("."):
                    found.append((used, entry.path))
    return [path for used, path in sorted(found) if used < time.time() - _UNUSED_S]
