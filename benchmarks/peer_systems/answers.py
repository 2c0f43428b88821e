"""Identification systems on the same queries: read the answers, score them alike, tabulate."""

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from grafp.errors import OptionError
from grafp.evaluation.hit_rates import CONDITIONS
from grafp.evaluation.metrics import Answer, Rate, score_answers
from grafp.evaluation.protocol import Clip

INDEXED = "#indexed"
"""The line that a program may print, and flush, when its references are ready for queries."""
COARSE_TOLERANCE_S = 0.5  # of systems whose frames are longer than 50 ms
Cell = tuple[bool, float, float]
"""Reverberant or not, seconds, dB."""
_COLUMNS = ("right track", "within 0.5 s", "within 50 ms")


@dataclass(frozen=True)
class Query:
    """A clip as a file, and the truth about it."""

    path: str
    clip: Clip
    track: str | None
    """None: its track is not among the references."""
    start_s: float


@dataclass(frozen=True)
class Found:
    """A system's best answer to one query."""

    track: str
    start_s: float
    """Offset in the track at which the query begins; may be below 0."""
    score: float
    """On the system's own scale; more is better."""


@dataclass(frozen=True)
class Threshold:
    """What a system's score must exceed for clips of one length."""

    score: float | None
    """None: the system answers so few unknown queries that every answer may be accepted."""
    accepted: int
    """Unknown queries that are accepted all the same."""
    unknown: int


def read_answers(
    lines: Iterable[str], queries: AbstractSet[str], references: AbstractSet[str]
) -> dict[str, Found]:
    """The best answer to each query, of lines `query<TAB>track<TAB>offset<TAB>score`.

    A query may have several lines, of which the highest score counts, or none: no answer.
    INDEXED and empty lines are skipped.

    Raises OptionError that names the line.
    """
    best: dict[str, Found] = {}
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line or line == INDEXED:
            continue
        try:
            query, found = _read_line(line, queries, references)
        except ValueError as error:
            raise OptionError(f"line {number}: {error}") from error
        if query not in best or found.score > best[query].score:
            best[query] = found
    return best


def _read_line(
    line: str, queries: AbstractSet[str], references: AbstractSet[str]
) -> tuple[str, Found]:
    columns = line.split("\t")
    if len(columns) != 4:
        raise ValueError(f"{line[:80]!r} is not query, track, offset and score between tabs")
    query, track = columns[:2]
    if query not in queries:
        raise ValueError(f"{query!r} is not one of the queries")
    if track not in references:
        raise ValueError(f"{track!r} is not one of the references")
    offset, score = (_finite(text) for text in columns[2:])
    return query, Found(track, offset, score)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def match_at_fpr(
    queries: Sequence[Query], found: Mapping[str, Found], fpr: float
) -> tuple[list[Answer], dict[float, Threshold]]:
    """A system's answers beside the truth, matched at one false-positive rate.

    Returns the answers in the order of the queries, and the threshold for each length of clips,
    see `threshold_at`.
    """
    answers = [_answer(query, found.get(query.path)) for query in queries]
    lengths = [query.clip.seconds for query in queries]
    thresholds = {
        length: threshold_at([a for a, s in zip(answers, lengths) if s == length], fpr)
        for length in sorted(set(lengths))
    }
    matched = []
    for answer, length in zip(answers, lengths, strict=True):
        least = thresholds[length].score
        passes = answer.score is not None and (least is None or answer.score > least)
        matched.append(replace(answer, matched=passes))
    return matched, thresholds


def _answer(query: Query, found: Found | None) -> Answer:
    return Answer(
        query=query.path,
        track=found.track if found else None,
        start_s=found.start_s if found else None,
        score=found.score if found else None,
        matched=False,
        error=None,
        true_track=query.track,
        true_start_s=query.start_s if query.track else None,
        false_positive_rate=None,
    )


def threshold_at(answers: Sequence[Answer], fpr: float) -> Threshold:
    """The lowest score such that at most `fpr` (0..1, not 1) of the unknown queries exceed it.

    Equal scores are refused together, so fewer may be accepted than `fpr` allows.
    """
    unknown = [a.score if a.score is not None else -math.inf for a in answers if not a.true_track]
    if not unknown:
        raise OptionError("no unknown query: a false-positive rate needs some")
    unknown.sort(reverse=True)
    score = unknown[int(fpr * len(unknown) + 1e-9)]
    accepted = sum(value > score for value in unknown)
    return Threshold(score if score > -math.inf else None, accepted, len(unknown))


def cells(queries: Sequence[Query], answers: Sequence[Answer]) -> dict[Cell, dict[str, Rate]]:
    """Rates of one system by condition, length and ratio.

    `hit_track`, `hit_500ms` and `hit_50ms` ask whether the best answer is right, whatever its
    score; `hit_at_fpr` whether its track is right and it is matched.
    """
    groups: dict[Cell, list[Answer]] = {}
    for query, answer in zip(queries, answers, strict=True):
        clip = query.clip
        groups.setdefault((clip.reverb, clip.seconds, clip.snr_db), []).append(answer)
    return {key: _rates(groups[key]) for key in sorted(groups)}


def _rates(answers: Sequence[Answer]) -> dict[str, Rate]:
    rates = score_answers(list(answers))
    known, missed = rates["hit_track"].total, rates["false_negative"].hits
    near = sum(answer.within(COARSE_TOLERANCE_S) for answer in answers)
    return {
        "hit_track": rates["hit_track"],
        "hit_500ms": Rate(near, known),
        "hit_50ms": rates["hit_50ms"],
        "hit_at_fpr": Rate(known - missed, known),
    }


def markdown(systems: Mapping[str, dict[Cell, dict[str, Rate]]], fpr: float) -> str:
    """A table for each condition and length; rows are ratios and systems. % (95 % interval)."""
    keys = sorted({key for table in systems.values() for key in table})
    head = ["dB", "system", *_COLUMNS, f"right track at {100 * fpr:g} % false positives"]
    lines = []
    for reverb, length in sorted({key[:2] for key in keys}):
        lines += ["", f"**{CONDITIONS[reverb]}, {length:g} s**", ""]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for key in (key for key in keys if key[:2] == (reverb, length)):
            for name, table in systems.items():
                row = [f"{key[2]:g}", name, *(_percent(rate) for rate in table[key].values())]
                lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _percent(rate: Rate) -> str:
    if not rate.total:
        return "-"
    low, high = rate.interval()
    return f"{100 * rate.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def as_json(table: dict[Cell, dict[str, Rate]]) -> dict[str, Any]:
    """The cells of one system, named as in the paper's grid."""
    return {
        f"{CONDITIONS[reverb]}, {length:g} s, {ratio:g} dB": {
            name: rate.to_dict() for name, rate in rates.items()
        }
        for (reverb, length, ratio), rates in table.items()
    }
