"""Scoring a batch of answers against the truth, as JSON and as a page to read."""

import json
from html import escape
from typing import Any

import pyarrow as pa

from grafp import storage
from grafp.collection import read_table
from grafp.errors import OptionError
from grafp.metrics import Answer, Rate, score_answers

Truth = dict[str, tuple[str | None, float | None]]
"""query: (track or None, second in the track or None)"""

_LABELS = {
    "hit_track": ("Right track", "best answer, whatever its score"),
    "hit_50ms": ("Right track within 50 ms", "best answer, whatever its score"),
    "false_positive": ("False positives", "not in the catalogue, yet matched"),
    "false_negative": ("False negatives", "in the catalogue, yet not matched to their track"),
}
_WORST_SHOWN = 50


def read_truth(uri: str) -> Truth:
    """A table with columns query, track, start_s. Raises OptionError when it is not that."""
    truth: Truth = {}
    for number, row in enumerate(read_table(uri), 2):
        try:
            query, track, start = row["query"], row["track"], row["start_s"]
            place = float(start) if start not in ("", None) else None
        except (KeyError, TypeError, ValueError) as error:
            raise OptionError(
                f"--truth {uri}, line {number}: needs query, track and start_s (s): {error!r}"
            ) from error
        if query in truth:
            raise OptionError(f"--truth {uri}, line {number}: {query} is there twice")
        truth[query] = (track or None, place)
    return truth


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


def compare(matches: pa.Table, truth: Truth) -> list[Answer]:
    """The best answer to each query beside its truth; a start is compared at the clip's begin."""
    answers = []
    for row in matches.to_pylist():
        if row["rank"] != 1:
            continue
        if row["query"] not in truth:
            raise OptionError(f"--truth has no line for the query {row['query']}")
        true_track, true_start = truth[row["query"]]
        start = row["track_start_s"]
        answers.append(
            Answer(
                query=row["query"],
                track=row["track"],
                start_s=None if start is None else start - row["query_start_s"],
                score=row["score"],
                matched=row["matched"],
                error=row["error"],
                true_track=true_track,
                true_start_s=true_start,
            )
        )
    return answers


def _page(answers: list[Answer], rates: dict[str, Rate]) -> str:
    cards = "".join(_card(name, rate) for name, rate in rates.items() if rate.total)
    wrong = [a for a in answers if not (a.right_place or (a.true_track is None and not a.matched))]
    wrong.sort(key=lambda answer: -(answer.score or 0.0))
    rows = "".join(_row(answer) for answer in wrong[:_WORST_SHOWN])
    table = f"<table>{_HEAD}{rows}</table>" if wrong else "<p>None.</p>"
    return _TEMPLATE.format(
        queries=len(answers),
        cards=cards,
        wrong=len(wrong),
        shown=min(len(wrong), _WORST_SHOWN),
        table=table,
    )


def _card(name: str, rate: Rate) -> str:
    label, meaning = _LABELS[name]
    low, high = (100 * bound for bound in rate.interval())
    return (
        f'<div class="card"><b>{100 * rate.value:.1f} %</b><h2>{label}</h2><p>{meaning}</p>'
        f'<div class="bar"><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i></div>'
        f"<p>{rate.hits} of {rate.total}; 95 %: {low:.1f} to {high:.1f} %</p></div>"
    )


def _row(answer: Answer) -> str:
    cells = [
        answer.query,
        answer.true_track or "not in the catalogue",
        "" if answer.true_start_s is None else f"{answer.true_start_s:.2f}",
        answer.error or answer.track or "nothing",
        "" if answer.start_s is None else f"{answer.start_s:.2f}",
        "" if answer.score is None else f"{answer.score:.3f}",
        "yes" if answer.matched else "no",
    ]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


_HEAD = (
    "<tr><th>Query</th><th>Truth</th><th>at (s)</th><th>Answer</th><th>at (s)</th>"
    "<th>Score</th><th>Accepted</th></tr>"
)
_TEMPLATE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Answers against the truth</title>
<style>
body{{font:16px/1.5 system-ui,sans-serif;color:#1c2430}}
body{{max-width:70rem;margin:2rem auto;padding:0 1rem}}
.cards{{display:grid;grid-template-columns:repeat(auto-fit,minmax(14rem,1fr));gap:1rem}}
.card{{border:1px solid #d5dbe3;border-radius:.6rem;padding:1rem}}
.card b{{font-size:2rem;color:#0b5cad}} .card h2{{font-size:1rem;margin:0}}
.card p{{margin:.2rem 0;color:#5a6675;font-size:.85rem}}
.bar{{position:relative;height:.5rem;background:#eef1f5;border-radius:.25rem;margin:.5rem 0}}
.bar i{{position:absolute;height:100%;background:#0b5cad;border-radius:.25rem}}
table{{border-collapse:collapse;width:100%;font-size:.85rem}}
td,th{{text-align:left;padding:.3rem .5rem;border-bottom:1px solid #e4e8ee;overflow-wrap:anywhere}}
@media print{{body{{margin:0}}}}
</style>
<h1>Answers against the truth</h1><p>{queries} queries. Bars show 95 % confidence intervals.</p>
<div class="cards">{cards}</div>
<h1>Wrong answers</h1><p>{wrong} in all, the {shown} with the highest scores shown.</p>{table}
</html>
"""
