"""An evaluation as a page to read and to print."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grafp.evaluation.failures import Case, section
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
from grafp.evaluation.metrics import TOLERANCE_S, Rate
from grafp.evaluation.protocol import Clip
from grafp.reports.charts import Axis, Line, histogram, line_chart
from grafp.reports.pages import card, cards, numbers, page, table

_SHARE = Axis("within 50 ms, %", (0, 20, 40, 60, 80, 100))
_PROTOCOLS = {
    "field": "Protocol <b>field</b>: clips begin at any sample, off the grid of the catalog's "
    "fingerprints, and the ratio of music to noise is measured on the clip itself.",
    "paper": "Protocol <b>paper</b>, for comparison with the literature: clips begin on the grid "
    "of the catalog's fingerprints, so that a clip's fingerprints fall on reference ones, and "
    "the noise is scaled to the level of the whole track, so that loud passages are hardly "
    "disturbed and quiet ones drown. Nothing else differs from the protocol <b>field</b>, which "
    "is what a microphone hears.",
}
# The paper's Table III: 1 s, noise + reverb, on fma-large, within 50 ms, %.
_PAPER_SCALED = {
    "GraFPrint, 106,000 excerpts (paper)": (42.7, 61.8, 71.6, 81.3, 83.8),
    "AST baseline, the same (paper)": (22.2, 26.7, 29.3, 37.0, 40.8),
}
_PAPER_SCALED_SNR = (0.0, 5.0, 10.0, 15.0, 20.0)


def grid_page(
    clips: Sequence[Clip],
    answers: Sequence[ClipAnswer],
    facts: Mapping[str, Any],
    scales: Sequence[Scale],
    cases: Sequence[Case],
) -> str:
    """HTML of the whole evaluation; `facts` say what was evaluated and have its `protocol`."""
    cells = grid(clips, answers)
    told = [(str(name), f"{v:,}" if isinstance(v, int) else str(v)) for name, v in facts.items()]
    body = (
        f"<h1>Evaluation</h1>{_totals(cells)}<p>{_PROTOCOLS[facts['protocol']]}</p>"
        "<p>A hit is the best answer, whatever its score, that names the right track within "
        "50 ms. Small numbers are 95 % intervals (Wilson); report.json has those of all. The "
        "paper's numbers (GraFPrint, arXiv:2410.10994) are of its own data and model.</p>"
        f"<h2>By length and noise</h2>{_paper_table(cells)}"
        f'<div class="figures">{_over_ratio(cells)}{_over_length(cells)}</div>'
        "<h2>How exact must the second be?</h2><p>The same answers within the paper's four "
        "tolerances (Fig. 2), all ratios together. The paper uses coarser fingerprints and a "
        "model of its own for each; here it is one catalog.</p>"
        f'{_granularity(clips, answers)}<div class="figures">{_offsets(answers)}</div>'
        f"<h2>Scores, and what to accept</h2>{_scores(clips, answers)}"
        f"{_scaling(scales)}<h2>What went most wrong</h2>{section(cases)}"
        f"<h2>What was evaluated</h2>{table(('', ''), told)}"
    )
    return page("Evaluation", body)


def _totals(cells: Sequence[Cell]) -> str:
    labels = {
        "hit_track": ("right track", "best answer, whatever its score"),
        "hit_50ms": ("right track within 50 ms", "best answer, whatever its score"),
        "false_negative": ("refused or wrong", "known clips at the threshold"),
        "false_positive": ("accepted wrongly", "unknown clips at the threshold"),
    }
    shown = []
    for name, (label, meaning) in labels.items():
        rates = [cell.rates[name] for cell in cells]
        rate = Rate(sum(r.hits for r in rates), sum(r.total for r in rates))
        if rate.total:
            more = f"<p>{meaning}; {rate.hits:,} of {rate.total:,}, all cells together</p>"
            shown.append(card(f"{100 * rate.value:.1f} %", label, more))
    return cards(shown)


def _paper_table(cells: Sequence[Cell]) -> str:
    """Table II: a group of rows for each length, a group of columns for each condition."""
    conditions = sorted({cell.reverb for cell in cells})
    ratios = sorted({cell.snr_db for cell in cells})
    at = {(cell.reverb, cell.seconds, cell.snr_db): cell for cell in cells}
    top = "".join(
        f'<th scope="colgroup" colspan="{len(ratios)}">{CONDITIONS[c].capitalize()}</th>'
        for c in conditions
    )
    names = "".join(f'<th scope="col">{r:g} dB</th>' for _ in conditions for r in ratios)
    body = ""
    for length in sorted({cell.seconds for cell in cells}):
        row = [at[c, length, r] for c in conditions for r in ratios]
        lines = [
            ("within 50 ms", [f"<b>{_rate(cell.rates['hit_50ms'])}</b>" for cell in row], ""),
            ("right track", [_percent(cell.rates["hit_track"]) for cell in row], ""),
        ]
        if any(cell.rates["false_positive"].total for cell in row):
            wrong = [_percent(cell.rates["false_positive"]) for cell in row]
            lines.append(("unknown accepted", wrong, ""))
        if any(cell.paper is not None for cell in row):
            paper = ["" if cell.paper is None else f"{cell.paper:.1f}" for cell in row]
            lines.append(("paper, 50 ms", paper, ' class="soft"'))
        for number, (name, values, kind) in enumerate(lines):
            first = f'<th scope="rowgroup" rowspan="{len(lines)}">{length:g} s</th>'
            body += (
                f'<tr{kind}>{"" if number else first}<th scope="row">{name}</th>'
                + "".join(f"<td>{value}</td>" for value in values)
                + "</tr>\n"
            )
    head = (
        f'<tr><td colspan="2"></td>{top}</tr>'
        f'<tr><th scope="col">Length</th><th scope="col">%</th>{names}</tr>'
    )
    return numbers("Clips answered, % (layout of the paper's Table II)", head, body)


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.1f}" if rate.total else ""


def _rate(rate: Rate, more: str = "") -> str:
    """A share with its interval, %."""
    if not rate.total:
        return ""
    low, high = (100 * bound for bound in rate.interval())
    return f"{_percent(rate)}<small>{low:.1f} to {high:.1f}{more}</small>"


def _line(label: str, x: Sequence[float], rates: Sequence[Rate], color: int) -> Line:
    bounds = [(100 * low, 100 * high) for low, high in (rate.interval() for rate in rates)]
    return Line(label, x, [100 * rate.value for rate in rates], color, bounds)


def _over_ratio(cells: Sequence[Cell]) -> str:
    """A chart for each condition: hit rate over the ratio, a line for each length."""
    charts = ""
    for reverb in sorted({cell.reverb for cell in cells}):
        mine = [cell for cell in cells if cell.reverb == reverb]
        lines = []
        for color, length in enumerate(sorted({cell.seconds for cell in mine})):
            row = [cell for cell in mine if cell.seconds == length and cell.rates["hit_50ms"].total]
            ratios = [cell.snr_db for cell in row]
            lines.append(_line(f"{length:g} s", ratios, [c.rates["hit_50ms"] for c in row], color))
            paper = [cell for cell in row if cell.paper is not None]
            values = [cell.paper or 0.0 for cell in paper]
            if len(values) > 1:
                x = [cell.snr_db for cell in paper]
                lines.append(Line("", x, values, color, dashed=True, points=False))
        dashed = "; dashed: the paper" if any(line.dashed for line in lines) else ""
        axis = Axis("signal-to-noise ratio, dB", sorted({cell.snr_db for cell in mine}))
        charts += line_chart(
            f"{CONDITIONS[reverb].capitalize()}, by ratio{dashed}", lines, axis, _SHARE
        )
    return charts


def _over_length(cells: Sequence[Cell]) -> str:
    """A chart for each condition: hit rate over the length, a line for each ratio."""
    charts = ""
    lengths = sorted({cell.seconds for cell in cells})
    for reverb in sorted({cell.reverb for cell in cells} if len(lengths) > 1 else ()):
        mine = [c for c in cells if c.reverb == reverb and c.rates["hit_50ms"].total]
        lines = []
        for color, ratio in enumerate(sorted({cell.snr_db for cell in mine})):
            row = [cell for cell in mine if cell.snr_db == ratio]
            seconds = [cell.seconds for cell in row]
            lines.append(_line(f"{ratio:g} dB", seconds, [c.rates["hit_50ms"] for c in row], color))
        axis = Axis("length of the clip, s", lengths)
        charts += line_chart(f"{CONDITIONS[reverb].capitalize()}, by length", lines, axis, _SHARE)
    return charts


def _granularity(clips: Sequence[Clip], answers: Sequence[ClipAnswer]) -> str:
    head = "".join(f'<th scope="col">{1000 * tolerance:g} ms</th>' for tolerance in TOLERANCES_S)
    rows = ""
    for (reverb, seconds), rates in granularity(clips, answers).items():
        cells = "".join(f"<td>{_rate(rate)}</td>" for rate in rates.values())
        rows += f'<tr><th scope="row">{CONDITIONS[reverb]}, {seconds:g} s</th>{cells}</tr>\n'
    head = f'<tr><th scope="col">Clips</th>{head}</tr>'
    return numbers("Right track within a tolerance, %", head, rows)


def _offsets(answers: Sequence[ClipAnswer]) -> str:
    errors = offset_errors(answers)
    if not len(errors):
        return ""
    axis = Axis("offset error of right tracks, ms; 200 and more at the edge", range(0, 201, 50))
    median = f"median {np.median(errors):.0f} ms"
    limit = (1000 * TOLERANCE_S, "50 ms")
    return histogram(f"Offset error, {median}", {"right track": errors}, axis, mark=limit)


def _scores(clips: Sequence[Clip], answers: Sequence[ClipAnswer]) -> str:
    """Distributions of scores by length with the threshold, and what other thresholds would do."""
    axis = Axis("score of the best answer", (0, 0.2, 0.4, 0.6, 0.8, 1.0))
    charts, curves = "", []
    for color, length in enumerate(sorted({clip.seconds for clip in clips})):
        mine = [a for c, a in zip(clips, answers, strict=True) if c.seconds == length]
        groups: dict[str, list[float]] = {"right track": [], "wrong track": []}
        for answer in mine:
            kind = "right track" if answer.right_track else "wrong track"
            kind = "not in the catalog" if answer.true_track is None else kind
            if answer.score is not None:
                groups.setdefault(kind, []).append(answer.score)
        threshold = mine[0].threshold
        mark = (threshold, f"threshold {threshold:.2f}")
        charts += histogram(f"Clips of {length:g} s", groups, axis, mark=mark)
        curves += _trade_off(f"{length:g} s", mine, color)
    if not curves:
        note = "<p>No clips of unknown recordings (--unknown), so no trade-off of errors.</p>"
        return f'<div class="figures">{charts}</div>{note}'
    charts += line_chart(
        "Detection trade-off: dots are the thresholds that applied",
        curves,
        Axis("unknown clips accepted, %; none: left edge", (0.1, 1, 10, 100), log=True),
        Axis("known clips refused or wrong, %", (0, 20, 40, 60, 80, 100)),
    )
    return f'<div class="figures">{charts}</div>'


def _trade_off(label: str, answers: Sequence[ClipAnswer], color: int) -> list[Line]:
    """Both errors at thresholds just above the unknown clips' scores, and at the applied one."""
    unknown = np.sort([a.score or -1.0 for a in answers if a.true_track is None])
    known = [a for a in answers if a.true_track is not None]
    right = np.sort([a.score or -1.0 for a in known if a.right_track])
    if not len(unknown) or not known:
        return []

    def errors(thresholds: np.ndarray) -> tuple[list[float], list[float]]:
        accepted = 1.0 - np.searchsorted(unknown, thresholds) / len(unknown)
        kept = (len(right) - np.searchsorted(right, thresholds)) / len(known)
        return (100 * accepted).tolist(), (100 * (1.0 - kept)).tolist()

    steps = np.unique(np.quantile(unknown, np.linspace(0, 1, 200), method="nearest"))
    curve = errors(np.append(-1.0, np.nextafter(steps, 2.0)))
    point = errors(np.array([answers[0].threshold]))
    return [Line(label, *curve, color, points=False), Line("", *point, color)]


def _scaling(scales: Sequence[Scale]) -> str:
    """Table III: the same clips against ever more tracks."""
    if not scales:
        return ""
    first = scales[0].cells[0]
    ratios = [cell.snr_db for cell in scales[0].cells]
    sizes = [float(scale.tracks) for scale in scales]
    lines = [
        _line(f"{r:g} dB", sizes, [scale.cells[n].rates["hit_50ms"] for scale in scales], n)
        for n, r in enumerate(ratios)
    ]
    chart = line_chart("Within 50 ms, by catalog", lines, Axis("tracks", sizes, True), _SHARE)
    head = "".join(f'<th scope="col">{ratio:g} dB</th>' for ratio in ratios)
    body = ""
    for scale in scales:
        name = f"{scale.tracks:,} tracks<small>{scale.fingerprints:,} fingerprints</small>"
        told = "".join(f"<td>{_rate(cell.rates['hit_50ms'])}</td>" for cell in scale.cells)
        unknown = Rate(
            sum(cell.rates["false_positive"].hits for cell in scale.cells),
            sum(cell.rates["false_positive"].total for cell in scale.cells),
        )
        deceived = _rate(scale.deceived, f"; expected {100 * scale.expected:.1f}")
        body += (
            f'<tr><th scope="row">{name}</th>{told}<td>{_rate(unknown)}</td>'
            f"<td>{deceived if scale.distractors else ''}</td></tr>\n"
        )
    for name, values in _PAPER_SCALED.items() if first.seconds == 1.0 else ():
        known = dict(zip(_PAPER_SCALED_SNR, values, strict=True))
        told = "".join(f"<td>{known.get(ratio, '')}</td>" for ratio in ratios)
        body += f'<tr class="soft"><th scope="row">{name}</th>{told}<td></td><td></td></tr>\n'
    what = f"{first.seconds:g} s, {CONDITIONS[first.reverb]}"
    caption = f"{what}: within 50 ms, % (the paper's Table III)"
    top = (
        f'<tr><th scope="col">Catalog</th>{head}<th scope="col">unknown accepted</th>'
        '<th scope="col">best wrong answer is invented</th></tr>'
    )
    return (
        "<h2>In a larger catalog</h2><p>The same clips against copies of the catalog with "
        "invented tracks: real tracks' fingerprints with the signs of their principal components "
        "flipped at random, one draw a track. If they are as easily taken for the right track as "
        "music is, they are as often the best wrong answer as there are of them: the last column "
        "tells how often they are, and how often they should be. Below the share that they should "
        "have, a real catalog of this size is harder. There is no trained AST baseline to "
        "compare with; the paper's numbers are of its own data.</p>"
        f'{numbers(caption, top, body)}<div class="figures">{chart}</div>'
    )
