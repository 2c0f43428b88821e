"""Keeps one message of Ray's off standard error that no user can act on.

Ray Data gives its actors arguments in the object store, and Ray's core warns of just that for each
of them (https://github.com/ray-project/ray/issues/53727). The core writes past Python's logging.
"""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

_NOISE = re.compile(rb"[^\n]*has constructor arguments in the object store[^\n]*\n?")


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Pass on what this process writes to standard error, `_NOISE` left out."""
    sys.stderr.flush()
    original = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)

    def forward() -> None:
        while data := os.read(reader, 1 << 16):  # the core writes a line in one piece
            os.write(original, _NOISE.sub(b"", data))

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)  # closes the pipe, which ends the thread
        thread.join(timeout=1)
