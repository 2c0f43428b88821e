"""The paper's Tables II and III and Fig. 2 beside ours, as an HTML report."""

from collections.abc import Sequence
from typing import Any

from grafp.evaluation import paper
from grafp.evaluation.hit_rates import CONDITIONS
from grafp.evaluation.metrics import Rate
from grafp.evaluation.reproduced import Measured, Trained
from grafp.reports.charts import Axis, Chart, Line, line_chart
from grafp.reports.pages import render

_LENGTHS_S = (1.0, 2.0, 3.0, 5.0)
_SHARE = Axis("within 50 ms, %", (0, 20, 40, 60, 80, 100))
_RATIO = Axis("signal-to-noise ratio, dB", paper.SNR_DB)


def reproduction_report(scale: str, measured: Sequence[Measured], models: Sequence[Trained]) -> str:
    """An HTML report of the results that were measured."""
    by_result = {
        name: [one for one in measured if one.result == name]
        for name in ("table-2", "table-3", "figure-2")
    }
    return render(
        "reproduction.html",
        title="The paper's results",
        scale=scale,
        conditions=list(CONDITIONS.values()),
        ratios=paper.SNR_DB,
        table_2=_table_2(by_result["table-2"]),
        table_2_charts=_charts(by_result["table-2"]),
        table_3=[(name, _line_of(one, True, 1.0)) for name, one in _named(by_result["table-3"])],
        table_3_paper=[(row, rows[True, 1.0]) for row, rows in paper.TABLE_3.items()],
        table_3_charts=_table_3_charts(by_result["table-3"]),
        figure_2=_figure_2(by_result["figure-2"]),
        figure_2_charts=_figure_2_charts(by_result["figure-2"]),
        models=models,
        databases=measured,
    )


Line2 = list[Rate | None]


def _line_of(one: Measured, reverb: bool, seconds: float) -> Line2:
    return [one.cell(reverb, seconds, ratio) for ratio in paper.SNR_DB]


def _table_2(rows: Sequence[Measured]) -> list[tuple[float, list[dict[str, Any]]]]:
    """By length: each method of the paper, its numbers and ours in both conditions."""
    if not rows:
        return []
    ours = {one.row: one for one in rows}
    return [
        (
            seconds,
            [
                {
                    "method": method,
                    "paper": [*published[False, seconds], *published[True, seconds]],
                    "ours": [
                        rate
                        for reverb in CONDITIONS
                        for rate in _line_of(ours[method], reverb, seconds)
                    ]
                    if method in ours
                    else None,
                }
                for method, published in paper.TABLE_2.items()
            ],
        )
        for seconds in _LENGTHS_S
    ]


def _named(rows: Sequence[Measured]) -> list[tuple[str, Measured]]:
    """Rows of Table III with names that tell real databases from invented ones."""
    kinds = {True: "real tracks", False: "with invented tracks"}
    return [(f"{one.row}, {kinds[one.invented is None]}", one) for one in rows]


def _charts(rows: Sequence[Measured]) -> list[Chart]:
    """A chart for each condition and length: our lines, the paper's dashed."""
    charts = []
    for reverb, condition in CONDITIONS.items() if rows else ():
        for seconds in _LENGTHS_S:
            lines = []
            for color, one in enumerate(rows):
                lines += _pair(one.row, one, reverb, seconds, color)
            if lines:
                title = f"{condition.capitalize()}, {seconds:g} s; dashed: the paper"
                charts.append(line_chart(title, lines, _RATIO, _SHARE))
    return charts


def _table_3_charts(rows: Sequence[Measured]) -> list[Chart]:
    lines: list[Line] = []
    for color, (name, one) in enumerate(_named(rows)):
        pair = _pair(name, one, True, 1.0, color)
        lines += pair if one.invented is None else pair[:1]
    return [line_chart("1 s; dashed: the paper", lines, _RATIO, _SHARE)] if lines else []


def _pair(name: str, one: Measured, reverb: bool, seconds: float, color: int) -> list[Line]:
    """Our line, and the paper's; none without a cell of ours."""
    there = [(r, rate) for r in paper.SNR_DB if (rate := one.cell(reverb, seconds, r))]
    if not there:
        return []
    published = [one.paper_cell(reverb, seconds, ratio) or 0.0 for ratio in paper.SNR_DB]
    return [
        _line(name, [ratio for ratio, _ in there], [rate for _, rate in there], color),
        Line("", paper.SNR_DB, published, color, dashed=True, points=False),
    ]


def _line(name: str, x: Sequence[float], rates: Sequence[Rate], color: int) -> Line:
    bounds = [(100 * low, 100 * high) for low, high in (rate.interval() for rate in rates)]
    return Line(name, x, [100 * rate.value for rate in rates], color, bounds)


def _figure_2(rows: Sequence[Measured]) -> list[dict[str, Any]]:
    """By offset: both lengths, their gap, the paper's, and the storage."""
    found = []
    largest = max((one.index_bytes + one.vectors_bytes for one in rows), default=1)
    for one in rows:
        short, long = one.within_offset(True, 1.0), one.within_offset(True, 2.0)
        known = one.offset_ms == 50  # the cells of Table II
        found.append(
            {
                "measured": one,
                "overlap": round(100 * (1 - one.hop_s)),
                "rates": [short, long],
                "paper": [one.paper_cell(True, s, 0.0) if known else None for s in (1.0, 2.0)],
                "gap": 100 * (long.value - short.value) if short and long else None,
                "paper_gap": paper.FIGURE_2_GAPS.get(one.offset_ms),
                "share": (one.index_bytes + one.vectors_bytes) / max(1, largest),
            }
        )
    return found


def _figure_2_charts(rows: Sequence[Measured]) -> list[Chart]:
    if not rows:
        return []
    offsets = [float(one.offset_ms) for one in rows]
    lines = []
    for color, seconds in enumerate((1.0, 2.0)):
        rates = [one.within_offset(True, seconds) or Rate(0, 0) for one in rows]
        lines.append(_line(f"{seconds:g} s", offsets, rates, color))
    share = Axis("within the offset, %", _SHARE.ticks)
    x = Axis("offset in training, and tolerance, ms", paper.FIGURE_2_OFFSETS_MS)
    size = [100 * one["share"] for one in _figure_2(rows)]
    stored = Line("stored", offsets, size, 2)
    return [
        line_chart("Noise + reverb, 0 dB", lines, x, share),
        line_chart("Storage of the database", [stored], x, Axis("% of the largest", _SHARE.ticks)),
    ]
