"""`ray job submit` from another folder to a head that asks for a token."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ray_head import Head

from grafp.audio import SAMPLE_RATE, encode, synthesis
from grafp.catalog.catalog import Catalog

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def audio(head: Head) -> Path:
    folder = head.folder / "music"
    folder.mkdir()
    for seed in range(8):
        (folder / f"{seed}.wav").write_bytes(encode(synthesis.piece(seed, 20.0), "wav"))
    return folder


def index(audio: Path, catalog: Path) -> list[str]:
    return ["python", "jobs/index_catalog.py", "--audio", str(audio), "--catalog", str(catalog)]


def test_the_package_is_small(head: Head) -> None:
    shown = head.submit("du", "-sk", ".")
    sizes = re.findall(r"^(\d+)\t\.$", shown.stdout, re.MULTILINE)
    assert 0 < int(sizes[0]) < 20_000, "KiB"


def test_a_job_ends_with_its_summary_and_its_name_is_used_once(head: Head, audio: Path) -> None:
    shown = head.submit(*index(audio, head.folder / "one"), name="night-1")
    assert shown.returncode == 0, shown.stdout
    log = head.ray_job("logs", "night-1").stdout.strip().splitlines()
    summary = [line for line in log if line.startswith("{")][-1]  # Ray's own lines may follow
    assert json.loads(summary)["embedded"] == 8
    assert len(log) < 20, "\n".join(log)
    again = head.submit(*index(audio, head.folder / "one"), name="night-1")
    assert again.returncode != 0
    assert "already exists" in again.stdout + again.stderr


@pytest.mark.parametrize(
    ("job", "code", "reason"),
    [
        (["python", "jobs/index_catalog.py", "--audio", "x"], 2, "--catalog"),
        (["python", "jobs/merge_index.py", "--catalog", "/no/where", "--verify"],
         1, "error: /no/where"),
    ],
)  # fmt: skip
def test_a_failed_job_says_why_and_keeps_its_exit_code(
    head: Head, job: list[str], code: int, reason: str
) -> None:
    shown = head.submit(*job)
    assert shown.returncode == 1  # Ray's own
    assert reason in shown.stdout
    assert f"exit code {code}" in shown.stdout + shown.stderr


def test_a_stopped_job_is_continued(head: Head, tmp_path: Path) -> None:
    root, audio = tmp_path / "catalog", tmp_path / "noises"
    audio.mkdir()
    random = np.random.default_rng(1)
    for number in range(150):  # so many that the job is still at work when it is asked to stop
        noise = 0.1 * random.standard_normal(20 * SAMPLE_RATE, np.float32)
        (audio / f"{number}.wav").write_bytes(encode(noise, "wav"))
    assert head.submit(*index(audio, root), name="stopped", wait=False).returncode == 0
    deadline = time.monotonic() + 120
    while not list(root.glob("embeddings/*/*/*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert head.ray_job("stop", "stopped").returncode == 0
    assert Catalog.open(str(root)).manifest is None
    shown = head.submit(*index(audio, root))
    assert shown.returncode == 0, shown.stdout
    assert Catalog.open_published(str(root)).manifest is not None


def test_a_wrong_token_is_refused(head: Head, audio: Path) -> None:
    shown = head.ray_job("list", token="wrong")
    assert shown.returncode != 0
    assert "token" in shown.stdout + shown.stderr
    arguments = [sys.executable, *index(audio, head.folder / "no")[1:]]
    env = {**head.env("wrong"), "RAY_ADDRESS": head.gcs}
    shown = subprocess.run(
        arguments, env=env, cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert shown.returncode == 1
    assert shown.stderr.strip().splitlines()[-1].startswith("error: RAY_ADDRESS=")
    assert "token" in shown.stderr
