"""An evaluation as an HTML report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grafp.evaluation import paper
from grafp.evaluation.failures import Case
from grafp.evaluation.hit_rates import (
    CONDITIONS,
    TOLERANCES_S,
    Cell,
    ClipAnswer,
    Scale,
    granularity,
    grid,
    offset_errors,
)
from grafp.evaluation.metrics import TOLERANCE_S, Rate, total
from grafp.evaluation.protocol import Clip
from grafp.index.acceptance import DEFAULT_FPR
from grafp.reports.charts import Axis, Chart, Line, histogram, line_chart, picture
from grafp.reports.pages import render

_SUREST = 12  # of the exponents that are shown
_SHARE = Axis("within 50 ms, %", (0, 20, 40, 60, 80, 100))
_TOTALS = {
    "hit_track": ("right track", "best answer, whatever its score"),
    "hit_50ms": ("right track within 50 ms", "best answer, whatever its score"),
    "false_negative": ("refused or wrong", "known clips at the threshold"),
    "false_positive": ("accepted wrongly", "unknown clips at the threshold"),
}


def evaluation_report(
    clips: Sequence[Clip],
    answers: Sequence[ClipAnswer],
    facts: Mapping[str, Any],
    scales: Sequence[Scale],
    cases: Sequence[Case],
) -> str:
    """An HTML report; `facts` describe the evaluation, its `protocol` among them."""
    cells = grid(clips, answers)
    totals = {name: total(cell.rates[name] for cell in cells) for name in _TOTALS}
    return render(
        "evaluation.html",
        title="Evaluation",
        protocol=facts["protocol"],
        condition_names=CONDITIONS,
        totals=[(rate, *_TOTALS[name]) for name, rate in totals.items() if rate.total],
        grid=_table(cells),
        hit_charts=[*_by_ratio(cells), *_by_length(cells)],
        tolerances_ms=[1000 * tolerance for tolerance in TOLERANCES_S],
        granularity=[
            (f"{CONDITIONS[reverb]}, {seconds:g} s", list(rates.values()))
            for (reverb, seconds), rates in granularity(clips, answers).items()
        ],
        offset_charts=_offsets(answers),
        score_charts=_scores(clips, answers),
        has_unknown=any(answer.true_track is None for answer in answers),
        scaling=_scaling(scales) if scales else None,
        cases=[(case, [picture(*shown) for shown in case.spectrograms]) for case in cases],
        facts=[
            # The counts keep the keys of the summary; readers see one word for one thing.
            ("removed" if name == "withdrawn" else name, _text(value))
            for name, value in facts.items()
        ],
    )


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(cells: Sequence[Cell]) -> dict[str, Any]:
    """Table II: rows are lengths, columns are conditions and ratios."""
    conditions = sorted({cell.reverb for cell in cells})
    ratios = sorted({cell.snr_db for cell in cells})
    at = {(cell.seconds, cell.reverb, cell.snr_db): cell for cell in cells}
    return {
        "conditions": [CONDITIONS[reverb] for reverb in conditions],
        "ratios": ratios,
        "rows": [
            (length, [at[length, reverb, ratio] for reverb in conditions for ratio in ratios])
            for length in sorted({cell.seconds for cell in cells})
        ],
    }


def _line(label: str, x: Sequence[float], rates: Sequence[Rate], color: int) -> Line:
    bounds = [(100 * low, 100 * high) for low, high in (rate.interval() for rate in rates)]
    return Line(label, x, [100 * rate.value for rate in rates], color, bounds)


def _by_ratio(cells: Sequence[Cell]) -> list[Chart]:
    """A chart for each condition: hit rate over the ratio, a line for each length."""
    charts = []
    for reverb in sorted({cell.reverb for cell in cells}):
        mine = [cell for cell in cells if cell.reverb == reverb]
        lines = []
        for color, length in enumerate(sorted({cell.seconds for cell in mine})):
            row = [cell for cell in mine if cell.seconds == length and cell.rates["hit_50ms"].total]
            ratios = [cell.snr_db for cell in row]
            lines.append(_line(f"{length:g} s", ratios, [c.rates["hit_50ms"] for c in row], color))
            published = {cell.snr_db: cell.paper for cell in row if cell.paper is not None}
            if len(published) > 1:
                x, y = list(published), list(published.values())
                lines.append(Line("", x, y, color, dashed=True, points=False))
        note = "; dashed: the paper" if any(line.dashed for line in lines) else ""
        axis = Axis("signal-to-noise ratio, dB", sorted({cell.snr_db for cell in mine}))
        title = f"{CONDITIONS[reverb].capitalize()}, by ratio{note}"
        charts.append(line_chart(title, lines, axis, _SHARE))
    return charts


def _by_length(cells: Sequence[Cell]) -> list[Chart]:
    """A chart for each condition: hit rate over the length, a line for each ratio."""
    charts = []
    lengths = sorted({cell.seconds for cell in cells})
    for reverb in sorted({cell.reverb for cell in cells} if len(lengths) > 1 else ()):
        mine = [c for c in cells if c.reverb == reverb and c.rates["hit_50ms"].total]
        lines = []
        for color, ratio in enumerate(sorted({cell.snr_db for cell in mine})):
            row = [cell for cell in mine if cell.snr_db == ratio]
            seconds = [cell.seconds for cell in row]
            lines.append(_line(f"{ratio:g} dB", seconds, [c.rates["hit_50ms"] for c in row], color))
        axis = Axis("length of the clip, s", lengths)
        title = f"{CONDITIONS[reverb].capitalize()}, by length"
        charts.append(line_chart(title, lines, axis, _SHARE))
    return charts


def _offsets(answers: Sequence[ClipAnswer]) -> list[Chart]:
    errors = offset_errors(answers)
    if not len(errors):
        return []
    axis = Axis("offset error of right tracks, ms; 200 and more at the edge", range(0, 201, 50))
    title = f"Offset error, median {np.median(errors):.0f} ms"
    mark = (1000 * TOLERANCE_S, "50 ms")
    return [histogram(title, {"right track": errors}, axis, mark=mark)]


def _scores(clips: Sequence[Clip], answers: Sequence[ClipAnswer]) -> list[Chart]:
    """How sure the answers of each length are, and the errors at other thresholds."""
    rated = any(answer.false_positive_rate is not None for answer in answers)
    axis = Axis("score of the best answer", (0, 0.2, 0.4, 0.6, 0.8, 1.0))
    if rated:
        axis = Axis("a false positive once in 10 to the power of", range(0, _SUREST + 1, 2))
    charts, curves = [], []
    for color, length in enumerate(sorted({clip.seconds for clip in clips})):
        mine = [a for c, a in zip(clips, answers, strict=True) if c.seconds == length]
        groups: dict[str, list[float]] = {"right track": [], "wrong track": []}
        for answer in mine:
            kind = "right track" if answer.right_track else "wrong track"
            kind = "unknown" if answer.true_track is None else kind
            if answer.score is not None:
                groups.setdefault(kind, []).append(_sureness(answer))
        least = -math.log10(DEFAULT_FPR) if rated else mine[0].threshold
        mark = (least, f"threshold {least:.2g}")
        charts.append(histogram(f"Clips of {length:g} s", groups, axis, mark=mark))
        curves += _trade_off(f"{length:g} s", mine, least, color)
    if curves:
        title = "Detection trade-off; the points are the thresholds that were used"
        x = Axis("unknown clips accepted, %; none: left edge", (0.1, 1, 10, 100), log=True)
        y = Axis("known clips refused or wrong, %", (0, 20, 40, 60, 80, 100))
        charts.append(line_chart(title, curves, x, y))
    return charts


def _sureness(answer: ClipAnswer) -> float:
    """The exponent of the false-positive rate, or the score where there are no rates."""
    if answer.false_positive_rate is None:
        return answer.score if answer.score is not None else -1.0
    return min(float(_SUREST), -math.log10(answer.false_positive_rate))


def _trade_off(label: str, answers: Sequence[ClipAnswer], least: float, color: int) -> list[Line]:
    """Both errors at thresholds just above what unknown clips reach, and at the one in use."""
    unknown = np.sort([_sureness(a) for a in answers if a.true_track is None])
    known = [a for a in answers if a.true_track is not None]
    right = np.sort([_sureness(a) for a in known if a.right_track])
    if not len(unknown) or not known:
        return []

    def errors(thresholds: np.ndarray) -> tuple[list[float], list[float]]:
        accepted = 1.0 - np.searchsorted(unknown, thresholds) / len(unknown)
        kept = (len(right) - np.searchsorted(right, thresholds)) / len(known)
        return (100 * accepted).tolist(), (100 * (1.0 - kept)).tolist()

    steps = np.unique(np.quantile(unknown, np.linspace(0, 1, 200), method="nearest"))
    curve = errors(np.append(-1.0, np.nextafter(steps, np.inf)))
    point = errors(np.array([least]))
    return [Line(label, *curve, color, points=False), Line("", *point, color)]


def _scaling(scales: Sequence[Scale]) -> dict[str, Any]:
    """Table III: the same clips against larger and larger catalogs."""
    first = scales[0].cells[0]
    ratios = [cell.snr_db for cell in scales[0].cells]
    sizes = [float(scale.tracks) for scale in scales]
    lines = [
        _line(f"{ratio:g} dB", sizes, [scale.cells[n].rates["hit_50ms"] for scale in scales], n)
        for n, ratio in enumerate(ratios)
    ]
    published = {
        f"{method}, 106,000 excerpts (paper)": rows[first.reverb, first.seconds]
        for method, rows in paper.TABLE_3.items()
        if (first.reverb, first.seconds) in rows
    }
    return {
        "what": f"{first.seconds:g} s, {CONDITIONS[first.reverb]}",
        "ratios": ratios,
        "rows": [
            (scale, total(cell.rates["false_positive"] for cell in scale.cells)) for scale in scales
        ],
        "paper": [
            (name, [dict(zip(paper.SNR_DB, values)).get(ratio, "") for ratio in ratios])
            for name, values in published.items()
        ],
        "charts": [
            line_chart("Within 50 ms, by catalog", lines, Axis("tracks", sizes, True), _SHARE)
        ],
    }
