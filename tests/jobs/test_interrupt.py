"""Ctrl-C: a job ends at once, with one line about how to go on, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from grafp.audio import encode, synthesis

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
INTERRUPTED = 130


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for number in range(30):
        (folder / f"{number}.flac").write_bytes(encode(synthesis.piece(number, 30.0), "flac"))
    return folder


Ended = tuple[int, str, float, list[psutil.Process]]


def interrupted(when: str, job: str, *words: object) -> Ended:
    """Exit code, standard error, seconds to the end, and processes that are left.

    Interrupted a second after the output has `when`, as a terminal does it: all processes of the
    job's group get the signal.
    """
    run = subprocess.Popen(
        [sys.executable, "-u", f"jobs/{job}.py", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        start_new_session=True,
        # What starts in the background of a shell ignores interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert run.stdout
    for line in run.stdout:
        if when in line:
            break
    time.sleep(1.0)
    children = psutil.Process(run.pid).children(recursive=True)
    begun = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    _, error = run.communicate(timeout=60)
    took = time.monotonic() - begun
    _, left = psutil.wait_procs(children, timeout=10)
    return run.returncode, error, took, left


@pytest.mark.parametrize("workers", [0, 1])
def test_an_index_run_ends_and_goes_on(music: Path, tmp_path: Path, workers: int) -> None:
    code, error, took, left = interrupted(
        "30 recordings listed", "index_catalog", "--audio", music,
        "--catalog", tmp_path / "catalog", "--workers", workers,
    )  # fmt: skip
    assert (code, left) == (INTERRUPTED, [])
    assert error.strip() == "interrupted; nothing was published; the same command goes on"
    assert took < 30  # far more than a second, for machines that are busy


def test_training_says_how_to_go_on(music: Path, tmp_path: Path) -> None:
    code, error, _, left = interrupted(
        "decoding 30 recordings", "train", "--music", music, "--out", tmp_path / "run",
        "--noise", music, "--rir", music, "--num-workers", "0", "--steps", "100000",
    )  # fmt: skip
    assert (code, left) == (INTERRUPTED, [])
    assert error.strip() == "interrupted; add --resume to go on from the last checkpoint"
