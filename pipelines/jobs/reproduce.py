"""The paper's results from its data sets: train, index, evaluate, and one report beside the paper.

    grafp reproduce --fma fma_large/ --musan musan/ --air AIR_1_4/ --out paper/ --dry-run
    grafp reproduce --fma fma_small/ --musan musan/ --air AIR_1_4/ --out paper/

The job checks the data sets, prints an estimate of hours and storage, and then makes Table II,
Table III and Fig. 2. What is done is kept in OUT: the same command continues a run that was
interrupted. OUT/report.html has the paper's numbers beside ours.

Exit code: 0 done, 1 failed, 2 bad arguments.
"""

import argparse
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from grafp.errors import OptionError
from grafp.option_values import Kind, Natural, Uri, choice
from pipelines.common import cli


def _named_model(text: str) -> tuple[str, str]:
    name, equals, uri = text.partition("=")
    if not (name and equals and uri):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=URI, such as nafp=models/nafp")
    return name, uri


@dataclass(kw_only=True)
class Options(cli.EncoderOptions):
    after_interrupt: ClassVar = "the same command goes on with the step that was at work"

    fma: Uri
    """The folder of FMA's audio, such as fma_large/; fma_metadata is in it or beside it."""
    musan: Uri
    """MUSAN as it is unpacked; of it the noise."""
    air: Uri
    """AIR as it is unpacked."""
    out: Uri
    """Folder or prefix for everything that the job makes."""
    table: Annotated[list[str], Kind("{2,3}", choice("2", "3").read, True)] = field(
        default_factory=list
    )
    """A table to make; repeatable (default: all tables and figures)."""
    figure: Annotated[list[str], Kind("{2}", choice("2").read, True)] = field(default_factory=list)
    """A figure to make (default: all tables and figures)."""
    scale: Literal["tiny", "medium", "large"] = "medium"
    """How much of everything: tiny shows that it works; medium takes FMA small; large is the
    paper's, with FMA large."""
    model: Annotated[list[tuple[str, str]], Kind("NAME=URI", _named_model, True)] = field(
        default_factory=list
    )
    """A bundle to take instead of training nafp, ast, grafprint, grafprint-100, grafprint-125 or
    grafprint-250; repeatable."""
    num_workers: Natural | None = None
    """Ray Train workers of a training run, among which the batch is divided; 0 trains in this
    process (default: 1, with --scale tiny 0)."""
    dry_run: bool = False
    """Only check the data sets and print the estimate."""

    def __post_init__(self) -> None:
        names = [name for name, _ in self.model]
        if double := {name for name in names if names.count(name) > 1}:
            raise OptionError(f"--model {double.pop()}: given twice")


def options(arguments: list[str] | None = None, *, prog: str | None = None) -> Options:
    return cli.parse(Options, __doc__, arguments, prog=prog)


def main(chosen: Options) -> tuple[dict[str, Any], int]:
    from pipelines.reproducing.flow import reproduce
    from pipelines.reproducing.plan import RESULTS

    asked = {f"table-{number}" for number in chosen.table}
    asked |= {f"figure-{number}" for number in chosen.figure}
    summary = reproduce(
        chosen.fma,
        chosen.musan,
        chosen.air,
        chosen.out,
        scale=chosen.scale,
        results=[one for one in RESULTS if one in asked or not asked],
        models=dict(chosen.model),
        num_workers=chosen.num_workers,
        encoders=chosen.encoders,
        dry_run=chosen.dry_run,
    )
    return summary, cli.DONE
