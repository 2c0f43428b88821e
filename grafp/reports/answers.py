"""OUT/report.html, the answers to a batch of queries, and OUT/report.json, how good they are."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from grafp import storage
from grafp.evaluation.metrics import Answer, score_answers
from grafp.evaluation.truth import Truth, compare
from grafp.reports.excerpts import Alignment, Shown, Sound
from grafp.reports.pages import render, short_names
from grafp.storage.tables import Row

Look = Callable[[Row, Answer | None], Shown]
"""What there is to see and to hear of a query, by its row of rank 1 and the truth, if known."""
_Judged = tuple[Row, str, Answer | None]  # a row of rank 1, its verdict, the truth
MOST_SHOWN = 100
_OTHERS = 5  # lower ranks that a query names
_LABELS = {
    "hit_track": ("Right track", "best answer, whatever its score"),
    "hit_50ms": ("Right track within 50 ms", "best answer, whatever its score"),
    "false_positive": ("False positives", "not in the catalog, yet matched"),
    "false_negative": ("False negatives", "in the catalog, yet not matched to their track"),
}
_MEANINGS = {
    "matched": "found in the catalog",
    "refused": "nothing in the catalog is near enough",
    "failed": "could not be used",
}
_MEANINGS_BY_TRUTH = {
    "matched": "accepted, and right",
    "refused": "rightly: not in the catalog",
    "wrong": "accepted, but not the right position",
    "missed": "refused, but in the catalog",
    "failed": "could not be used",
}
_FIRST = ("wrong", "missed", "refused", "failed", "matched")  # where not all are shown


@dataclass(frozen=True)
class Card:
    """One query in the report."""

    row: Row
    """Of matches.parquet, with rank 1."""
    verdict: str
    truth: Answer | None
    name: str
    """Of the query, and below of the tracks: without the folder that all have in common."""
    track: str
    true_track: str
    others: list[Row]
    """Lower ranks."""
    why: str | None
    query_sound: Sound | None
    track_sound: Sound | None
    true_sound: Sound | None
    alignment: Alignment | None


def write_report(
    out: str, matches: pa.Table, truth: Truth | None, look: Look = lambda *_: Shown()
) -> dict[str, Any]:
    """Write OUT/report.html, and OUT/report.json if there is a truth.

    Returns the rates for the job's summary, none without a truth. Raises StorageError, and
    OptionError with nothing written when a query has no line in the truth.
    """
    answers = None if truth is None else compare(matches, truth)
    rates: dict[str, Any] = {}
    if answers is not None:
        rates = {name: rate.to_dict() for name, rate in score_answers(answers).items()}
        details = [vars(answer) | {"right": answer.right_offset} for answer in answers]
        document = {"queries": len(answers), **rates, "answers": details}
        storage.write(storage.join(out, "report.json"), json.dumps(document, indent=1).encode())
    page = answers_report(matches.to_pylist(), answers, look)
    storage.write(storage.join(out, "report.html"), page.encode())
    return rates


def answers_report(
    rows: Sequence[Row], answers: Sequence[Answer] | None, look: Look = lambda *_: Shown()
) -> str:
    """An HTML report: how many queries were matched, the rates if there is a truth, the queries.

    Args:
        rows: of matches.parquet.
        answers: the best answers beside the truth, in the order of `rows`.
    """
    best = [row for row in rows if row["rank"] == 1]
    truths: Sequence[Answer | None] = [None] * len(best) if answers is None else answers
    judged = [(row, _verdict(row, truth), truth) for row, truth in zip(best, truths, strict=True)]
    meanings = _MEANINGS if answers is None else _MEANINGS_BY_TRUTH
    counts = Counter(verdict for _, verdict, _ in judged)
    shown = _chosen(judged)
    left_out = counts - Counter(verdict for _, verdict, _ in shown)
    return render(
        "answers.html",
        title="Answers to queries",
        queries=len(best),
        counts=[(verdict, counts[verdict], meaning) for verdict, meaning in meanings.items()],
        rates=[
            (rate, *_LABELS[name])
            for name, rate in score_answers(answers or ()).items()
            if rate.total
        ],
        left_out=[(verdict, left_out[verdict]) for verdict in meanings if left_out[verdict]],
        cards=_cards(rows, shown, look),
        odds=odds,
    )


def _verdict(row: Row, truth: Answer | None) -> str:
    if row["error"]:
        return "failed"
    if not row["matched"]:
        return "missed" if truth and truth.true_track is not None else "refused"
    return "wrong" if truth and truth.wrong else "matched"


def _chosen(judged: list[_Judged]) -> list[_Judged]:
    """Those that are shown, in their order; of too many, what may be wrong, and surest first."""

    def rank(number: int) -> tuple[int, float]:
        row, verdict, _ = judged[number]
        return _FIRST.index(verdict), -(row["score"] or 0.0)

    return [judged[n] for n in sorted(sorted(range(len(judged)), key=rank)[:MOST_SHOWN])]


def _cards(rows: Sequence[Row], shown: list[_Judged], look: Look) -> list[Card]:
    others: dict[str, list[Row]] = {}
    for row in rows:
        if 1 < row["rank"] <= 1 + _OTHERS:
            others.setdefault(row["query"], []).append(row)
    queries = short_names([row["query"] for row, _, _ in shown])
    named = [name for row, _, truth in shown for name in (row["track"], _true_track(truth)) if name]
    tracks = short_names(named)
    cards = []
    for row, verdict, truth in shown:
        seen = Shown() if row["error"] else look(row, truth)  # one at a time: sounds are large
        likeness, at_s = seen.likeness, (row["query_start_s"], row["query_end_s"])
        cards.append(
            Card(
                row,
                verdict,
                truth,
                queries[row["query"]],
                tracks.get(row["track"], ""),
                tracks.get(_true_track(truth) or "", ""),
                others.get(row["query"], []),
                seen.why,
                Sound.of("the query", seen.query) if seen.query else None,
                Sound.of("the track", seen.track) if seen.track else None,
                Sound.of("the truth", seen.truth) if seen.truth else None,
                Alignment.of(likeness, at_s, row["track_start_s"], row["speed"])
                if likeness
                else None,
            )
        )
    return cards


def _true_track(truth: Answer | None) -> str | None:
    return truth.true_track if truth else None


def odds(rate: float | None) -> str:
    """A false-positive rate as one says it: 1 in 20,000."""
    if rate is None:
        return ""
    many = 1 / max(rate, 1e-300)
    if many > 1e9:
        return "below 1 in 1 billion"
    if many >= 1e6:
        return f"1 in {float(f'{many / 1e6:.2g}'):g} million"
    return f"1 in {many:.2g}" if many < 10 else f"1 in {float(f'{many:.2g}'):,.0f}"
