"""Progress in a terminal and elsewhere."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORK = """
import logging
from pipelines.common import logs
from pipelines.common.progress import progress

logs.show()
with progress("pieces", 3) as advance:
    for piece in range(3):
        logging.getLogger("pipelines").info(f"piece {piece} is next")
        advance(note="12x real time")
"""
COLOR, CURSOR = "\x1b[3", "\x1b[?25"


def shown_in_a_terminal(**variables: str) -> str:
    """What a terminal of 100 columns gets."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    run = subprocess.Popen(
        [sys.executable, "-c", WORK], stdout=theirs, cwd=ROOT,
        env={**kept, "TERM": "xterm", "COLUMNS": "100", **variables},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert run.wait() == 0
    return shown.decode()


def test_a_terminal_has_a_bar_and_log_lines_above_it() -> None:
    shown = shown_in_a_terminal()
    assert COLOR in shown
    assert "3/3" in shown
    lines = [line.rstrip("\r").rsplit("\x1b[2K", 1)[-1] for line in shown.split("\n")]
    assert [line for line in lines if "next" in line] == [f"piece {n} is next" for n in range(3)]
    assert shown.rstrip().endswith("\x1b[?25h")


def test_no_color_is_asked_for() -> None:
    shown = shown_in_a_terminal(NO_COLOR="1")
    assert COLOR not in shown
    assert CURSOR in shown


def test_a_terminal_without_control_codes_has_lines() -> None:
    lines = shown_in_a_terminal(TERM="dumb").replace("\r", "").splitlines()
    assert lines[-1] == "  3/3 pieces, 12x real time, 0 s left"
    assert lines[:-1] == [f"piece {n} is next" for n in range(3)]


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_log_has_lines(term: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "TERM": term},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "  3/3 pieces, 12x real time, 0 s left"
    assert done.stderr == ""
