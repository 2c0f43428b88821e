"""How far work is: a bar with rate and time left in a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

logger = logging.getLogger(__name__)
_SAY_EVERY = 5.0  # seconds
Advance = Callable[..., None]
"""Called with how many more are done (1), and `note`, what else there is to say."""


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Show how many of `total` are done; None: it is not known how many there are.

    Standard output that is a terminal has a bar, and log lines appear above it.
    """
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(console, what, total) as advance:
            yield advance
    else:
        yield _lines(what, total)


@contextmanager
def _bar(console: Console, what: str, total: int | None) -> Iterator[Advance]:
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.description}{task.fields[note]}", markup=False),
        TimeRemainingColumn(elapsed_when_finished=True) if total else TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as shown:
        task = shown.add_task(what, total=total, note="")

        def advance(count: int = 1, note: str = "") -> None:
            shown.update(task, advance=count, note=note and f", {note}")

        yield advance


def _lines(what: str, total: int | None) -> Advance:
    started = said = time.monotonic()
    done = 0

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal done, said
        done += count
        now = time.monotonic()
        if now - said < _SAY_EVERY and done != total:
            return
        said = now
        words = [f"{done}/{total} {what}" if total else f"{done} {what}", *filter(None, [note])]
        if total:
            words.append(f"{(now - started) / done * (total - done):.0f} s left")
        logger.info(f"  {', '.join(words)}")

    return advance
