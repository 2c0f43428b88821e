"""Ctrl-C and SIGTERM: a job ends at once, says how to go on, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from grafp.audio import encode, synthesis
from grafp.storage.sources import list_items
from pipelines.common.interrupt import ends_at_once
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog

ROOT = Path(__file__).parents[2]
INTERRUPTED = 130
STUBBORN = """
import subprocess, sys, time
from pipelines.common.interrupt import ends_at_once

with ends_at_once("go on"):
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for number in range(30):
        (folder / f"{number}.flac").write_bytes(encode(synthesis.piece(number, 30.0), "flac"))
    return folder


Ended = tuple[int, str, list[psutil.Process]]


def interrupted(
    when: str, job: str, *words: object, delay: float = 1.0, by: int = signal.SIGINT
) -> Ended:
    """Exit code, standard error, and processes that are left.

    The signal comes `delay` seconds after the output has `when`. SIGINT comes as a terminal sends
    it, to all processes of the job's group; SIGTERM to the job alone.
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
    time.sleep(delay)
    children = psutil.Process(run.pid).children(recursive=True)
    if by == signal.SIGINT:
        os.killpg(run.pid, by)
    else:
        run.send_signal(by)
    _, error = run.communicate(timeout=60)
    _, left = psutil.wait_procs(children, timeout=10)
    return run.returncode, error, left


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_takes_exceptions_for_its_own_ends(by: int) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert run.stdout
    child = psutil.Process(int(run.stdout.readline()))
    run.send_signal(by)
    _, error = run.communicate(timeout=60)
    name = "interrupted" if by == signal.SIGINT else "terminated"
    assert (run.returncode, error) == (128 + by, f"\n{name}; go on\n")
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_handlers_are_as_before_when_a_job_has_ended() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with ends_at_once("go on"):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


# Without Ray; while Ray starts; while recordings are encoded over Ray.
@pytest.mark.slow
@pytest.mark.parametrize(("workers", "delay"), [(0, 1.0), (1, 1.0), (1, 15.0)])
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_index_run_ends_and_goes_on(
    music: Path, tmp_path: Path, workers: int, delay: float, by: int
) -> None:
    code, error, left = interrupted(
        "30 recordings listed", "index_catalog", "--audio", music,
        "--catalog", tmp_path / "catalog", "--workers", workers, delay=delay, by=by,
    )  # fmt: skip
    name = "interrupted" if by == signal.SIGINT else "terminated"
    assert (code, left) == (128 + by, [])
    assert error.strip() == f"{name}; nothing was published; the same command goes on"


@pytest.mark.slow
def test_a_query_batch_ends_and_goes_on(music: Path, tmp_path: Path) -> None:
    index_catalog(list_items(str(music))[:2], str(tmp_path / "catalog"), encoders=Encoders(0))
    words = ("--catalog", tmp_path / "catalog", "--queries", music, "--out", tmp_path / "out")
    code, error, left = interrupted(
        "30 queries against", "query_batch", *words, "--workers", 0
    )  # fmt: skip
    assert (code, left) == (INTERRUPTED, [])
    assert error.strip().startswith("interrupted; the same command goes on")


@pytest.mark.slow
def test_training_says_how_to_go_on(music: Path, tmp_path: Path) -> None:
    code, error, left = interrupted(
        "decoding 30 recordings", "train", "--music", music, "--out", tmp_path / "run",
        "--noise", music, "--rir", music, "--num-workers", "0", "--steps", "100000",
    )  # fmt: skip
    assert (code, left) == (INTERRUPTED, [])
    assert error.strip() == "interrupted; add --resume to go on from the last checkpoint"
