"""OUT/report.json and OUT/report.html: how good the answers to a batch of queries are."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from grafp import storage
from grafp.evaluation.metrics import Answer, score_answers
from grafp.evaluation.truth import Truth, compare
from grafp.reports.pages import render

_LABELS = {
    "hit_track": ("Right track", "best answer, whatever its score"),
    "hit_50ms": ("Right track within 50 ms", "best answer, whatever its score"),
    "false_positive": ("False positives", "not in the catalog, yet matched"),
    "false_negative": ("False negatives", "in the catalog, yet not matched to their track"),
}
_SHOWN = 50


def write_report(out: str, matches: pa.Table, truth: Truth) -> dict[str, Any]:
    """Write OUT/report.json and OUT/report.html; returns the rates for the job's summary.

    Raises OptionError when a query has no line in the truth.
    """
    answers = compare(matches, truth)
    rates = {name: rate.to_dict() for name, rate in score_answers(answers).items()}
    details = [vars(answer) | {"right": answer.right_offset} for answer in answers]
    document = {"queries": len(answers), **rates, "answers": details}
    storage.write(storage.join(out, "report.json"), json.dumps(document, indent=1).encode())
    storage.write(storage.join(out, "report.html"), answers_report(answers).encode())
    return rates


def answers_report(answers: Sequence[Answer]) -> str:
    """An HTML report: the rates with their intervals, and the wrong answers."""
    rates = score_answers(answers)
    wrong = [answer for answer in answers if answer.wrong]
    wrong.sort(key=lambda answer: -(answer.score or 0.0))
    return render(
        "answers.html",
        title="Answers against the truth",
        queries=len(answers),
        rates=[(rate, *_LABELS[name]) for name, rate in rates.items() if rate.total],
        wrong=len(wrong),
        limit=_SHOWN,
        shown=[_row(answer) for answer in wrong[:_SHOWN]],
    )


def _row(answer: Answer) -> list[str]:
    return [
        answer.query,
        answer.true_track or "not in the catalog",
        "" if answer.true_start_s is None else f"{answer.true_start_s:.2f}",
        answer.error or answer.track or "nothing",
        "" if answer.start_s is None else f"{answer.start_s:.2f}",
        "" if answer.score is None else f"{answer.score:.3f}",
        "" if answer.false_positive_rate is None else f"{100 * answer.false_positive_rate:.2g} %",
        "yes" if answer.matched else "no",
    ]
