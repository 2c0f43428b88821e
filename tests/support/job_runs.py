"""Jobs run in this process, as `python jobs/NAME.py` would."""

import json

import pytest

from pipelines.common import cli


def run_job(job, capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, dict, str]:
    """Exit code, the summary of the last line, and standard error of a job in this process."""
    code = cli.run(job.main, job.options(list(arguments)))
    shown = capsys.readouterr()
    last = shown.out.strip().splitlines()[-1] if shown.out.strip() else "{}"
    return code, json.loads(last) if last.startswith("{") else {}, shown.err
