"""Jobs run in this process, as `python jobs/NAME.py` would."""

import json
from typing import Any

import pytest

from pipelines.common import cli


def run_job(job, capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, dict, str]:
    """Exit code, the summary of the last line, and standard error of a job in this process."""
    code = cli.run(job.main, job.options(list(arguments)))
    shown = capsys.readouterr()
    last = shown.out.strip().splitlines()[-1] if shown.out.strip() else "{}"
    return code, json.loads(last) if last.startswith("{") else {}, shown.err


def outcome(job: Any, words: list[str], capsys: pytest.CaptureFixture) -> tuple[int, list[str]]:
    """Exit code and the lines of standard error; other exceptions than exits are not caught."""
    try:
        code = cli.run(job.main, job.options(words))
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, capsys.readouterr().err.strip().splitlines()
