"""`grafp`: the jobs as one command."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from grafp.options import BAD_ARGUMENTS
from pipelines import command
from pipelines.jobs import evaluate, index_catalog, merge_index

ROOT = Path(__file__).parents[2]


def test_every_job_is_a_command_and_can_be_submitted_as_a_file() -> None:
    modules = [module for name, module in command.COMMANDS.items() if name != "plan"]
    files = {f"pipelines.jobs.{path.stem}" for path in (ROOT / "jobs").glob("*.py")}
    assert set(modules) == files


def test_help_lists_all_commands_and_imports_none(capsys: pytest.CaptureFixture) -> None:
    probe = "import sys; from pipelines.command import main; main(['--help']);"
    probe += "print([name for name in sys.modules if name.startswith('pipelines.jobs.')],"
    probe += "'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("[] False\n")
    assert "  index         Bring a catalog up to date with a collection of audio\n" in done.stdout
    assert command.main([]) == BAD_ARGUMENTS
    assert capsys.readouterr().err == done.stdout.removesuffix("[] False\n")


@pytest.mark.parametrize("name", command.COMMANDS)
def test_help_of_a_command_is_the_job_s_under_its_name(
    name: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"\n    grafp {name} " in shown
    assert f"\nusage: grafp {name} [-h]" in shown


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("indx", "indx: no such command; did you mean index? `grafp --help` lists all"),
        ("--versin", "--versin: no such command; did you mean --version? `grafp --help` lists all"),
        ("xyz", "xyz: no such command; `grafp --help` lists all"),
        ("''", "'': no such command; `grafp --help` lists all"),
        ("--completion", "--completion: give one of bash, zsh, fish"),
        ("--completion cmd", "--completion cmd: give one of bash, zsh, fish"),
        ("index --catalog c", "--audio: required"),
        ("plan", "--tracks: required"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line(
    words: str, line: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(shlex.split(words))
    assert stopped.value.code == BAD_ARGUMENTS
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_a_command_runs_its_job() -> None:
    command_line = [sys.executable, "-m", "grafp", "plan", "--tracks", "1e5"]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["fingerprints"] > 1e8
    command_line[3:] = ["merge", "--catalog", "/no/where", "--verify"]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: /no/where")


@pytest.mark.parametrize("shell", command.SHELLS)
def test_completion_knows_commands_options_and_choices(
    shell: str, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("reproduce", "catalog", "max-speed-change", "PQ64x4fs"):
        assert word in script


def test_the_catalog_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFP_CATALOG", "s3://bucket/catalog")
    assert merge_index.options(["--verify"]).catalog == "s3://bucket/catalog"
    assert index_catalog.options(["--audio", "a", "--catalog", "c"]).catalog == "c"
    words = ["--audio", "a", "--noise", "n", "--rir", "r", "--out", "o"]
    assert evaluate.options(words).catalog == "s3://bucket/catalog"
    assert evaluate.options(["--embeddings", "e", "--out", "o"]).catalog is None
    monkeypatch.setenv("GRAFP_CATALOG", "")  # as good as none
    with pytest.raises(SystemExit):
        merge_index.options(["--verify"])


def test_an_empty_catalog_is_refused_wherever_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("GRAFP_CATALOG", " ")
    for words in (["--verify"], ["--verify", "--catalog", ""]):
        with pytest.raises(SystemExit) as stopped:
            merge_index.options(words)
        assert stopped.value.code == BAD_ARGUMENTS
        assert capsys.readouterr().err == "error: --catalog: is empty\n"


@pytest.mark.parametrize(
    "words", ["--help", "--version", "--completion bash", "index --help", "plan --tracks 1e5"]
)
def test_a_reader_may_leave_early(words: str) -> None:
    """As in `grafp --help | head`; with and without a buffer Python meets the closed pipe at
    different places."""
    for buffered in ({}, {"PYTHONUNBUFFERED": "1"}):
        reader, writer = os.pipe()
        os.close(reader)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(
            [sys.executable, "-m", "grafp", *words.split()],
            cwd=ROOT, env=env | buffered, stdout=writer, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")
