"""What flows ask of machines, and what they say when it is not there."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grafp.errors import ClusterError, OptionError, StorageError
from pipelines.common import placement, runtime

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("ray_here")
def test_a_gpu_that_this_machine_lacks_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match="--gpu: this machine has no GPU"):
        placement.encoder_pool(None, True)


@pytest.mark.usefixtures("ray_here")
def test_claims_fit_one_machine() -> None:
    [machine] = placement.machines()
    assert placement.memory_claim(1e15) == machine["memory"] / 2
    assert placement.memory_claim(1000) == 1000
    most = {"memory": machine["memory"]}
    assert placement.available([most], "memory")
    assert not placement.available([most, {"memory": 1.0}], "memory")


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan", ""])
def test_a_wrong_time_to_wait_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFP_WAIT_SECONDS", text)
    with pytest.raises(OptionError, match="GRAFP_WAIT_SECONDS"):
        placement.wait_seconds()


def test_a_head_that_is_not_there_is_one_line() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        probe = "from pipelines.common import runtime; runtime.connect()"
        shown = subprocess.run(
            [sys.executable, "-c", probe], cwd=ROOT, env={**os.environ, "RAY_ADDRESS": address},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    last = shown.stderr.strip().splitlines()[-1]
    assert last.startswith(f"grafp.errors.ClusterError: RAY_ADDRESS={address}: no Ray head answers")


def test_what_comes_is_passed_on_and_an_error_too() -> None:
    def batches() -> Iterator[int]:
        yield from (1, 2, 3)
        raise StorageError("gone")

    arrived = runtime.with_time_limit(batches())
    assert [next(arrived) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(StorageError, match="gone"):
        next(arrived)
    assert list(runtime.with_time_limit([])) == []


@pytest.mark.usefixtures("ray_here")
def test_silence_is_reported_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "_QUIET", 0.1)
    monkeypatch.setattr(runtime, "_STALLED", 0.35)
    caplog.set_level("INFO")
    monkeypatch.setattr(logging.getLogger("pipelines"), "propagate", True)  # `logs.show` ends it

    def slow() -> Iterator[float]:
        for pause in (0.0, 0.2, 60.0):
            time.sleep(pause)
            yield pause

    arrived = runtime.with_time_limit(slow())
    assert [next(arrived), next(arrived)] == [0.0, 0.2]
    with pytest.raises(ClusterError, match=r"nothing finished for .* CPUs"):
        next(arrived)
    assert "nothing finished for" in caplog.text
