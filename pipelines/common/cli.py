"""What all jobs share: options, one clear line for every error, exit codes, the summary line.

Exit codes: 0 done, 1 failed, 2 bad arguments, 3 done but too many inputs failed.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable

from grafp import errors
from grafp.errors import GrafpError, OptionError
from pipelines.common import logs

_WORKERS_ERROR = re.compile(r"^grafp\.errors\.(\w+): (.+)$", re.MULTILINE)
DONE, FAILED, BAD_ARGUMENTS, TOO_MANY_FAILURES = 0, 1, 2, 3


def run(main: Callable[[argparse.Namespace], tuple[dict, int]], options: argparse.Namespace) -> int:
    """Run a job; print its summary as the last line, or one line about what went wrong."""
    logs.show()
    try:
        summary, code = main(options)
    except Exception as error:  # the one boundary: Ray wraps what its workers raise
        known = known_error(error)
        if known is None or os.environ.get("GRAFP_TRACEBACK"):
            raise
        print(f"error: {known}", file=sys.stderr, flush=True)
        return BAD_ARGUMENTS if isinstance(known, OptionError) else FAILED
    print(json.dumps(summary), flush=True)
    return code


def known_error(error: BaseException | None) -> GrafpError | None:
    """The project's own error behind another: Ray keeps a worker's as `cause`, or its text."""
    text = str(error)
    while error is not None:
        cause = getattr(error, "cause", None) or error.__cause__
        if isinstance(error, GrafpError) and not isinstance(cause, GrafpError):
            return error
        error = cause
    if told := _WORKERS_ERROR.findall(text):  # Ray Data keeps no more than the text
        name, reason = told[-1]
        return getattr(errors, name, GrafpError)(reason)
    return None


def parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help shows each option's default and the job's own examples unchanged."""
    return argparse.ArgumentParser(
        description=description, formatter_class=_Formatter, allow_abbrev=False
    )


def given(options: argparse.ArgumentParser, arguments: list[str] | None) -> set[str]:
    """The options that a command line has, defaults apart."""
    nothing = dict.fromkeys(vars(options.parse_args(arguments)))
    found = vars(options.parse_args(arguments, argparse.Namespace(**nothing)))
    return {name for name, value in found.items() if value is not None}


def add_encoder_options(options: argparse.ArgumentParser) -> None:
    """The options of every job that fingerprints: how many encoders, and on what."""
    options.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="encoders at work at most; default: one per GPU, or per processor without GPUs, "
        "that the cluster has when the job starts",
    )
    options.add_argument(
        "--gpu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="encode on GPUs, on a cluster waiting for one to start; default: if there",
    )


def add_work_options(options: argparse.ArgumentParser, what: str, max_failures: str) -> None:
    """The options of every job that decodes and encodes recordings; `what` it calls them."""
    add_encoder_options(options)
    options.add_argument(
        "--max-failures",
        type=failure_limit,
        default=max_failures,
        metavar="N|P%",
        help=f"exit with 3 when more {what} than this cannot be used",
    )
    options.add_argument(
        "--max-seconds",
        type=positive_float,
        default=10_800.0,
        metavar="S",
        help=f"refuse {what} longer than this, seconds",
    )


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def positive_int(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value


def positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def numbers(low: float, high: float) -> Callable[[str], list[float]]:
    """A parser of lists such as 1,2,5 with each number between two bounds."""

    def parse(text: str) -> list[float]:
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not values or not all(low <= value <= high for value in values):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of numbers of {low:g} to {high:g}, such as 1,2,5"
            )
        return sorted(set(values))

    return parse


def failure_limit(text: str) -> str:
    """A count such as 10, or a share of the inputs such as 1%."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if value < 0 or (text.endswith("%") and value > 100):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a count such as 10 nor a share such as 1%"
        )
    return text


def too_many(failed: int, total: int, limit: str) -> bool:
    """Whether more inputs failed than --max-failures allows."""
    number = float(limit.removesuffix("%"))
    return failed > (number / 100 * total if limit.endswith("%") else number)
