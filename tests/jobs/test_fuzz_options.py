"""Wrong options, hundreds of them: each ends in one line, never in a stack trace."""

import os
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from job_runs import outcome

from grafp.audio import encode, synthesis
from pipelines.common import cli
from pipelines.jobs import demo as demo_job

ROOT = Path(__file__).parents[2]
NEEDED = {
    "index_catalog": ["--audio", "{none}", "--catalog", "{none}"],
    "query_batch": ["--queries", "{none}", "--catalog", "{none}", "--out", "{out}"],
    "merge_index": ["--catalog", "{none}"],
    "evaluate": [
        "--catalog", "{none}", "--audio", "{none}", "--noise", "{none}", "--rir", "{none}",
        "--out", "{out}",
    ],
    "train": ["--music", "{none}", "--noise", "{none}", "--rir", "{none}", "--out", "{out}"],
    "reproduce": ["--fma", "{none}", "--musan", "{none}", "--air", "{none}", "--out", "{out}"],
    "demo": ["--audio", "{none}", "--out", "{out}"],
}  # fmt: skip
"""A line of each job that is right, but for folders that are not there."""
VALUES = (
    "",
    " ",
    "-1",
    "0",
    "nan",
    "inf",
    "1e99",
    "x",
    "0x10",
    "\u00b2",
    "9" * 30,
    "9" * 5000,
    "1,,2",
    "ä\n",
    "--",
    "{none}",
    "s3://",
)


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NEEDED)
def test_every_option_with_every_wrong_value(
    name: str,
    step: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the value is fine, the folders are not there: none of these begins any work.

    A step of 5 tries each option with a few values, others for the next option.
    """
    job = import_module(f"pipelines.jobs.{name}")
    monkeypatch.chdir(tmp_path)
    places = {"none": f"{tmp_path}/none", "out": f"{tmp_path}/out"}
    known = [one.name.replace("_", "-") for one in fields(job.Options) if one.init]
    cases = [(option, value) for option in known for value in VALUES]
    assert len(cases) > 60
    for option, value in cases[::step]:
        words = [*NEEDED[name], f"--{option}={value}"]
        code, error = outcome(job, [word.format(**places) for word in words], capsys)
        assert code in (cli.FAILED, cli.BAD_ARGUMENTS), (option, value, error)
        assert error, (option, value)
        assert error[-1].startswith("error: "), (option, value, error)
        assert len(error) <= 2, (option, value, error)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("query_batch", "--truth"), ("query_batch", "--catalog"), ("index_catalog", "--model"),
        ("merge_index", "--remove"), ("merge_index", "--rollback"), ("train", "--start-from"),
    ],
)  # fmt: skip
def test_a_variable_that_is_not_set_is_no_value(
    name: str, option: str, capsys: pytest.CaptureFixture
) -> None:
    """`--rollback "$SNAPSHOT"` must not maintain the catalog instead."""
    job = import_module(f"pipelines.jobs.{name}")
    code, error = outcome(job, [*NEEDED[name], option, ""], capsys)
    assert (code, error) == (cli.BAD_ARGUMENTS, [f"error: {option}: is empty"])


def test_a_demo_has_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    for out, reason in {
        tmp_path: f"--out {tmp_path}: holds other files; choose a folder that is empty or new",
        tmp_path / "file": f"{tmp_path}/file/made-by-demo: {tmp_path}/file is no folder",
    }.items():
        code, error = outcome(demo_job, ["--out", str(out)], capsys)
        assert code in (cli.FAILED, cli.BAD_ARGUMENTS)
        assert error == [f"error: {reason}"]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.slow
def test_a_demo_of_excerpts_that_nothing_is_as_long_as(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(2):
        sound = encode(synthesis.piece(number, 3.0), "wav")
        (tmp_path / f"{number}.wav").write_bytes(sound)
    words = ["--audio", str(tmp_path), "--out", f"{tmp_path}/out", "--seconds", "5"]
    expected = (cli.BAD_ARGUMENTS, ["error: --seconds 5: longer than the recordings"])
    assert outcome(demo_job, words, capsys) == expected
