"""What all jobs share: one clear line for every error, exit codes, the summary line.

Exit codes: 0 done, 1 failed, 2 bad arguments, 3 done but too many inputs failed, 130 interrupted
(Ctrl-C), 143 terminated (SIGTERM).
"""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from grafp import errors
from grafp.errors import GrafpError, OptionError
from grafp.options import (
    BAD_ARGUMENTS,
    Kind,
    Natural,
    Parser,
    not_empty,
    numbers,
    parse,
    parse_given,
    positive_float,
    positive_int,
    tell,
)
from pipelines.common import logs
from pipelines.common.interrupt import ends_at_once
from pipelines.common.stderr import without_noise

__all__ = [  # for jobs and benchmarks
    "BAD_ARGUMENTS", "CATALOG_VARIABLE", "DONE", "FAILED", "TOO_MANY_FAILURES", "Catalog",
    "EncoderOptions", "FailureLimit", "Model", "OptionError", "known_error", "numbers", "parse",
    "parse_given", "parser", "positive_float", "positive_int", "run", "too_many",
]  # fmt: skip

T = TypeVar("T")
DONE, FAILED, TOO_MANY_FAILURES = 0, 1, 3
_WORKERS_ERROR = re.compile(r"^grafp\.errors\.(\w+): (.+)$", re.MULTILINE)


def run(main: Callable[[T], tuple[dict[str, Any], int]], options: T) -> int:
    """Run a job; print its summary as the last line, or one line about what went wrong."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A log that is followed shows each line, and names that are not UTF-8 can be shown.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    logs.show()
    try:
        how = getattr(options, "after_interrupt", "start it again")
        with ends_at_once(how), without_noise():
            summary, code = main(options)
    except Exception as error:  # the one boundary: Ray wraps what its workers raise
        known = known_error(error)
        if known is None or os.environ.get("GRAFP_TRACEBACK"):
            raise
        tell(str(known))
        return BAD_ARGUMENTS if isinstance(known, OptionError) else FAILED
    print(json.dumps(summary), flush=True)
    return code


def known_error(error: BaseException | None) -> GrafpError | None:
    """The project's own error behind another: Ray keeps a worker's as `cause`, or its text."""
    text = str(error)
    while error is not None:
        inside = getattr(error, "cause", None)
        if isinstance(error, GrafpError) and inside is None:
            return error
        error = inside or error.__cause__
    if told := _WORKERS_ERROR.findall(text):  # Ray Data keeps no more than the text
        name, reason = told[-1]
        return getattr(errors, name, GrafpError)(reason)
    return None


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser for benchmarks, with help and errors like those of the jobs."""
    return Parser(description)


@dataclass(kw_only=True)
class EncoderOptions:
    """The options of every job that fingerprints recordings."""

    workers: Natural | None = None
    """Largest number of encoders at work; 0: all work in this process, without Ray (default: one
    per GPU, or per CPU without GPUs, that the cluster has when the job starts; 0 for small work,
    where no cluster is named)."""
    gpu: bool | None = None
    """Encode on GPUs; a cluster starts one if none is there (default: if there)."""

    def __post_init__(self) -> None:
        if self.workers == 0 and self.gpu:
            raise OptionError("--workers 0: not with --gpu")


def _failure_limit(text: str) -> str:
    """A count such as 10, or a share of the inputs such as 1%."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not value >= 0 or (text.endswith("%") and value > 100):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a count such as 10 nor a share such as 1%"
        )
    return text


Model = Annotated[str, Kind("NAME|URI")]
CATALOG_VARIABLE = "GRAFP_CATALOG"
Catalog = Annotated[str, Kind("URI", not_empty, variable=CATALOG_VARIABLE)]
FailureLimit = Annotated[str, Kind("N|P%", _failure_limit)]


def too_many(failed: int, total: int, limit: str) -> bool:
    """Whether more inputs failed than --max-failures allows."""
    number = float(limit.removesuffix("%"))
    return failed > (number / 100 * total if limit.endswith("%") else number)
