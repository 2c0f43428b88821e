"""A disk that is full: a small file system in memory, where this user may mount one."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grafp import storage
from grafp.errors import DiskFull

_MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_what_does_not_fit_is_an_error_that_says_so(disk: Path) -> None:
    with pytest.raises(DiskFull, match=f"^{disk}/large: No space left on device; free some"):
        storage.write(f"{disk}/large", bytes(9 * _MB))
    assert not os.listdir(disk)
    storage.write(f"{disk}/small", b"there is room again")


def test_copies_leave_a_tenth_free_and_old_ones_make_room(s3: str, disk: Path) -> None:
    for name in "abc":
        storage.write(f"{s3}/disk/{name}", name.encode() * 3 * _MB)
    first, second = (storage.local_copy(f"{s3}/disk/{name}", str(disk)) for name in "ab")
    with pytest.raises(DiskFull, match=r"the disk is full: 0\.0 of 0\.0 GB are free") as told:
        storage.local_copy(f"{s3}/disk/c", str(disk))
    assert str(disk) in str(told.value)
    assert "set TMPDIR" in str(told.value)
    for path in (first, second):  # as if nobody had opened them for two days
        stat = os.stat(path)
        os.utime(path, ns=(time.time_ns() - 2 * 86_400 * 10**9, stat.st_mtime_ns))
    assert storage.local_copy(f"{s3}/disk/b", str(disk)) == second  # it is in use again
    third = storage.local_copy(f"{s3}/disk/c", str(disk))
    assert Path(third).read_bytes() == b"c" * 3 * _MB
    assert not os.path.exists(first)
    assert os.path.exists(second)
