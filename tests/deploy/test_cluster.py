"""The jobs' command lines."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py"))


@pytest.mark.parametrize("job", JOBS)
def test_jobs_are_executable_and_explain_themselves_quickly(job: str) -> None:
    path = ROOT / "jobs" / job
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/usr/bin/env python3\n")
    probe = (
        "import atexit, runpy, sys; sys.argv = sys.argv[1:];"
        "atexit.register(lambda: print('torch' in sys.modules));"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", probe, str(path), "--help"],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert shown.returncode == 0
    assert "usage:" in shown.stdout
    assert shown.stdout.strip().endswith("False"), (
        "PyTorch was imported before the options were read"
    )


@pytest.mark.parametrize(
    ("job", "arguments", "named"),
    [
        ("index_catalog.py", ["--audio", "x"], "--catalog"),
        ("index_catalog.py", ["--audio", "x", "--catalog", "y", "--max-failures", "lots"], "lots"),
        ("index_catalog.py", ["--audio", "x", "--catalog", "y", "--workers", "-1"], "--workers"),
        ("query_batch.py", ["--catalog", "x", "--queries", "y", "--out", "z", "--min-score", "7"],
         "--min-score"),
        ("train.py", ["--music", "x", "--out", "y", "--steps", "1", "--minutes", "1"], "--minutes"),
        ("train.py", ["--music", "x", "--out", "y", "--preset", "huge"], "small"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_and_exits_with_2(job: str, arguments: list, named: str) -> None:
    shown = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / job), *arguments],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert shown.returncode == 2
    assert named in shown.stderr


def test_searching_and_merging_start_without_pytorch() -> None:
    """It takes seconds of every worker's start, and none of these needs it."""
    flows = "querying.flow, querying.timeline, common.search, indexing.maintain"
    modules = ", ".join(f"pipelines.{name}" for name in flows.split(", "))
    probe = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, timeout=60).returncode == 0
