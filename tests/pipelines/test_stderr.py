"""What a user sees on standard error: everything but one message of Ray's core."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grafp.audio import encode, synthesis
from pipelines.common import cli
from pipelines.common.stderr import without_noise

ROOT = Path(__file__).parents[2]
NOISE = (
    b"[2026-11-24 18:54:58,527 E 1 1] core_worker.cc:2465: Actor with class name: 'MapWorker' and "
    b"ID: '99' has constructor arguments in the object store and max_restarts > 0. If they are lost"
)


def test_the_message_that_no_user_can_act_on_is_left_out(capfd: pytest.CaptureFixture) -> None:
    with without_noise():
        os.write(2, b"before\n" + NOISE + b"\nbetween, ")
        os.write(2, b"and after\n")
    os.write(2, b"outside\n")
    assert capfd.readouterr().err == "before\nbetween, and after\noutside\n"


def test_an_error_passes_through_it(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="wrong"), without_noise():
        raise ValueError("wrong")
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


def test_a_ray_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    job = (
        "import sys; from pipelines.common import cli, runtime; "
        "sys.exit(cli.run(lambda _: (runtime.connect() or {}, 0), None))"
    )
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    (tmp_path / "file").touch()
    shown = subprocess.run(
        [sys.executable, "-c", job], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**env, "RAY_TMPDIR": str(tmp_path / "file" / "folder")},
    )  # fmt: skip
    assert shown.returncode == cli.FAILED
    assert shown.stderr.startswith("error: Ray did not start on this machine (")
    assert shown.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_job_leaves_standard_error_empty(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    for seed in range(3):
        (tmp_path / "music" / f"{seed}.wav").write_bytes(encode(synthesis.piece(seed, 5.0), "wav"))
    options = ["--audio", str(tmp_path / "music"), "--catalog", str(tmp_path / "catalog")]
    shown = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "index_catalog.py"), *options],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert shown.stderr == ""
