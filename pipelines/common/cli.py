"""What all jobs share: one clear line for every error, exit codes, the summary line.

Exit codes: 0 done, 1 failed, 2 bad arguments, 3 done but too many inputs failed, 4 done but the
index is below --min-recall, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

import argparse
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from grafp import errors
from grafp.errors import GrafpError, OptionError
from grafp.option_values import (
    Kind,
    natural_number,
    not_empty,
    numbers,
    positive_float,
    positive_int,
)
from grafp.options import (
    BAD_ARGUMENTS,
    Parser,
    parse,
    parse_given,
    tell,
)
from pipelines.common import logs
from pipelines.common.interrupt import ends_at_once
from pipelines.common.metrics import write_metrics
from pipelines.common.stderr import without_noise

__all__ = [  # for jobs and benchmarks
    "BAD_ARGUMENTS",
    "CATALOG_VARIABLE",
    "DONE",
    "FAILED",
    "INDEX_BELOW_LIMIT",
    "TOO_MANY_FAILURES",
    "Catalog",
    "EncoderOptions",
    "FailureLimit",
    "Metrics",
    "Model",
    "OptionError",
    "known_error",
    "numbers",
    "parse",
    "parse_given",
    "parser",
    "positive_float",
    "positive_int",
    "run",
    "too_many",
]  # fmt: skip

if TYPE_CHECKING:
    from pipelines.common.work import Encoders

T = TypeVar("T")
DONE, FAILED, TOO_MANY_FAILURES, INDEX_BELOW_LIMIT = 0, 1, 3, 4
_WORKERS_ERROR = re.compile(r"^grafp\.errors\.(\w+): (.+)$", re.MULTILINE)


def run(main: Callable[[T], tuple[dict[str, Any], int]], options: T) -> int:
    """Run a job; print its summary as the last line, or one line about what went wrong."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A log that is followed shows each line, and names that are not UTF-8 can be shown.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    logs.show()
    started = time.monotonic()

    def record(summary: dict[str, Any], code: int) -> int:
        if metrics := getattr(options, "metrics", None):
            name = main.__module__.rpartition(".")[2]
            write_metrics(metrics, name, summary, code, time.monotonic() - started)
        return code

    try:
        how = getattr(options, "after_interrupt", "start it again")
        with ends_at_once(how), without_noise():
            summary, code = main(options)
        record(summary, code)
    except Exception as error:  # the one boundary: Ray wraps what its workers raise
        known = known_error(error)
        if known is None or os.environ.get("GRAFP_TRACEBACK"):
            raise
        tell(str(known))
        with suppress(GrafpError):  # what went wrong first is told
            record({}, BAD_ARGUMENTS if isinstance(known, OptionError) else FAILED)
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


class Workers(NamedTuple):
    """How many encoders work."""

    least: int
    most: int


def _workers(text: str) -> Workers:
    """A largest number, or the smallest and the largest as in 4:32."""
    words = text.split(":")
    try:
        least, most = natural_number(words[0]), natural_number(words[-1])
    except argparse.ArgumentTypeError:
        words = []
    if len(words) == 1:
        return Workers(min(1, most), most)
    if len(words) != 2 or not 1 <= least <= most:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number such as 8 nor a range such as 4:32"
        )
    return Workers(least, most)


@dataclass(kw_only=True)
class EncoderOptions:
    """The options of every job that fingerprints recordings."""

    workers: Annotated[Workers, Kind("N|MIN:MAX", _workers)] | None = None
    """Largest number of encoders at work. With MIN, a cluster starts machines for so many at once.
    0: all work in this process, without Ray (default: on a cluster, as many as its limits allow
    while recordings wait; else one per GPU, or per CPU without GPUs; 0 for small work, where no
    cluster is named)."""
    gpu: bool | None = None
    """Encode on GPUs; a cluster starts one if none is there (default: if there)."""

    def __post_init__(self) -> None:
        if self.in_process and self.gpu:
            raise OptionError("--workers 0: not with --gpu")

    @property
    def in_process(self) -> bool:
        """Whether --workers 0 is given."""
        return self.workers is not None and self.workers.most == 0

    @property
    def encoders(self) -> "Encoders":
        from pipelines.common.work import Encoders

        if self.workers is None:
            return Encoders(gpu=self.gpu)
        return Encoders(self.workers.most, self.gpu, max(1, self.workers.least))


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
Metrics = Annotated[str, Kind("FILE|URI")]
FailureLimit = Annotated[str, Kind("N|P%", _failure_limit)]


def too_many(failed: int, total: int, limit: str) -> bool:
    """Whether more inputs failed than --max-failures allows."""
    number = float(limit.removesuffix("%"))
    return failed > (number / 100 * total if limit.endswith("%") else number)
