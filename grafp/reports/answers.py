"""OUT/report.json and OUT/report.html: how good the answers to a batch of queries are."""

import json
from typing import Any

import pyarrow as pa

from grafp import storage
from grafp.evaluation.metrics import Answer, Rate, score_answers
from grafp.evaluation.truth import Truth, compare
from grafp.reports.pages import card, cards, page, table

_LABELS = {
    "hit_track": ("Right track", "best answer, whatever its score"),
    "hit_50ms": ("Right track within 50 ms", "best answer, whatever its score"),
    "false_positive": ("False positives", "not in the catalog, yet matched"),
    "false_negative": ("False negatives", "in the catalog, yet not matched to their track"),
}
_WORST_SHOWN = 50


def write_report(out: str, matches: pa.Table, truth: Truth) -> dict[str, Any]:
    """Write OUT/report.json and OUT/report.html; returns the rates for the job's summary.

    Raises OptionError when a query has no line in the truth.
    """
    answers = compare(matches, truth)
    rates = score_answers(answers)
    report = {name: rate.to_dict() for name, rate in rates.items()}
    details = [vars(answer) | {"right": answer.right_place} for answer in answers]
    document = {"queries": len(answers), **report, "answers": details}
    storage.write(storage.join(out, "report.json"), json.dumps(document, indent=1).encode())
    storage.write(storage.join(out, "report.html"), _page(answers, rates).encode())
    return report


def _page(answers: list[Answer], rates: dict[str, Rate]) -> str:
    wrong = [a for a in answers if not (a.right_place or (a.true_track is None and not a.matched))]
    wrong.sort(key=lambda answer: -(answer.score or 0.0))
    body = (
        f"<h1>Answers against the truth</h1><p>{len(answers):,} queries. "
        "Bars show 95 % confidence intervals.</p>"
        + cards([_card(name, rate) for name, rate in rates.items() if rate.total])
        + f"<h2>Wrong answers: {len(wrong):,}</h2><p>The highest scores first, at most "
        f"{_WORST_SHOWN} shown.</p>"
        + table(
            ("Query", "Truth", "at (s)", "Answer", "at (s)", "Score", "Accepted"),
            [_row(answer) for answer in wrong[:_WORST_SHOWN]],
        )
    )
    return page("Answers against the truth", body)


def _card(name: str, rate: Rate) -> str:
    label, meaning = _LABELS[name]
    low, high = (100 * bound for bound in rate.interval())
    more = (
        f'<p>{meaning}</p><div class="bar"><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f"</div><p>{rate.hits:,} of {rate.total:,}; 95 %: {low:.1f} to {high:.1f} %</p>"
    )
    return card(f"{100 * rate.value:.1f} %", label, more)


def _row(answer: Answer) -> list[str]:
    return [
        answer.query,
        answer.true_track or "not in the catalog",
        "" if answer.true_start_s is None else f"{answer.true_start_s:.2f}",
        answer.error or answer.track or "nothing",
        "" if answer.start_s is None else f"{answer.start_s:.2f}",
        "" if answer.score is None else f"{answer.score:.3f}",
        "yes" if answer.matched else "no",
    ]
