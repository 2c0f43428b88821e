"""Ctrl-C and SIGTERM end a job at once, with one line about how to go on.

No data has to be cleaned up: what a job publishes, it publishes in one step. Processes that it
started are killed: those of a local Ray would end by themselves, but some seconds later.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

_SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it


@contextmanager
def ends_at_once(how: str) -> Iterator[None]:
    """Let signals end this process, with exit code 130 or 143; `how`: how a user can go on.

    A thread does it: the main one may be in a long call of a library, or in one that takes the
    exception for its own. Signals that are ignored stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.getsignal(one) for one in chosen}
    # Ray's noise is filtered in a thread of its own, which would not get to the last line.
    shown = os.dup(2)
    arrived, sent = os.pipe()
    os.set_blocking(sent, False)
    former = signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    for one in chosen:
        signal.signal(one, _ignore)
    thread = threading.Thread(target=_wait, args=(arrived, shown, how), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        for one, handler in before.items():
            signal.signal(one, handler)
        os.close(sent)
        thread.join()
        os.close(arrived)
        os.close(shown)


@contextmanager
def keeps_sigterm() -> Iterator[None]:
    """Set the handler of SIGTERM again; Ray sets one that prints a stack trace."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _ignore(*_: object) -> None:
    """In Python's place, so that no exception is raised; the thread sees the signal."""


def _wait(arrived: int, shown: int, how: str) -> None:
    while number := os.read(arrived, 1):
        name = _SIGNALS.get(signal.Signals(number[0]))
        if name is None:  # one that others handle
            continue
        with suppress(OSError):  # nobody may read it any more
            if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
                os.write(1, _SHOW_CURSOR)
            os.write(shown, f"\n{name}; {how}\n".encode())
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(128 + number[0])
