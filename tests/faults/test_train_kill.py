"""Training whose worker or driver is killed in the middle: it goes on and finishes."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nodes
import psutil
import pytest
from ray_head import ROOT

from grafp import storage
from grafp.audio import encode, synthesis

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for seed in range(8):
        (folder / f"{seed}.wav").write_bytes(encode(synthesis.piece(seed, 4.0), "wav"))
    return folder


def start(out: Path, *arguments: object) -> subprocess.Popen[str]:
    """The job as a process, with a Ray of its own; errors are in its output."""
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--out", out, *arguments]
    return subprocess.Popen(
        [*map(str, command)],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def workers(job: subprocess.Popen[str]) -> list[psutil.Process]:
    processes = psutil.Process(job.pid).children(recursive=True)
    return [one for one in processes if "RayTrainWorker" in " ".join(one.cmdline())]


def steps(lines: list[str]) -> list[int]:
    return [int(step) for line in lines for step in re.findall(r"step (\d+)  loss", line)]


def check_finished(lines: list[str], out: Path) -> None:
    assert any("resumed after step 100" in line for line in lines)
    assert steps(lines) == [120, 140, 160]
    assert nodes.summary(lines)["steps"] == 160
    parts = [info.uri[-3:] for info in storage.list_files(f"{out}/tensorboard")]
    assert parts == ["100", "160"]


def test_a_run_goes_on_when_a_worker_is_killed(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = start(out, "--music", music, "--steps", 160, "--pairs", 4, "--num-workers", 2)
    before = nodes.lines_until("step 120 ", job)
    at_work = workers(job)
    assert len(at_work) == 2
    os.kill(at_work[1].pid, signal.SIGKILL)
    after = nodes.lines_until(None, job)
    assert job.returncode == 0, before + after
    since = next(i for i, line in enumerate(after) if "resumed after" in line)
    check_finished(after[since:], out)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_run_whose_driver_is_killed_goes_on_with_resume(
    music: Path, tmp_path: Path, num_workers: int
) -> None:
    out = tmp_path / "run"
    job = start(out, "--music", music, "--steps", 160, "--pairs", 4, "--num-workers", num_workers)
    nodes.lines_until("step 120 ", job)
    all_processes = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.wait()
    assert job.stdout
    job.stdout.close()
    psutil.wait_procs(all_processes, timeout=60)
    again = start(out, "--resume")
    lines = nodes.lines_until(None, again)
    assert again.returncode == 0, lines
    check_finished(lines, out)
