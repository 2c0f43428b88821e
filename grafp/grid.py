"""The paper's grid of lengths, ratios and conditions (Table II), as text, JSON and a page."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grafp import storage
from grafp.clips import Clip
from grafp.metrics import Answer, Rate, score_answers

CONDITIONS = {False: "noise", True: "noise + reverb"}
_PAPER_SNR = (0.0, 5.0, 10.0, 15.0, 20.0)
_PAPER = {  # top-1 hit rate within 50 ms, %, of GraFPrint on fma-medium
    (False, 1.0): (63.9, 83.6, 93.5, 97.0, 98.8),
    (False, 2.0): (85.7, 95.1, 98.6, 99.4, 99.8),
    (False, 3.0): (93.3, 98.3, 99.3, 99.6, 99.9),
    (False, 5.0): (97.7, 99.7, 99.5, 99.8, 99.9),
    (True, 1.0): (52.3, 68.1, 79.2, 85.3, 89.4),
    (True, 2.0): (80.0, 88.6, 94.7, 94.6, 96.4),
    (True, 3.0): (88.7, 92.9, 96.4, 96.4, 96.6),
    (True, 5.0): (93.3, 95.9, 97.3, 97.6, 97.7),
}


@dataclass(frozen=True)
class Cell:
    """Known clips of one condition, length and ratio."""

    reverb: bool
    seconds: float
    snr_db: float
    rates: dict[str, Rate]
    """See `score_answers`."""

    @property
    def paper(self) -> float | None:
        """The paper's number for this cell, on its own data, %."""
        row = _PAPER.get((self.reverb, self.seconds))
        return row[_PAPER_SNR.index(self.snr_db)] if row and self.snr_db in _PAPER_SNR else None


def grid(clips: Sequence[Clip], answers: Sequence[Answer]) -> list[Cell]:
    """Cells by condition, length and ratio; an answer for each clip."""
    groups: dict[tuple[bool, float, float], list[Answer]] = {}
    for clip, answer in zip(clips, answers, strict=True):
        groups.setdefault((clip.reverb, clip.seconds, clip.snr_db), []).append(answer)
    return [Cell(*key, score_answers(groups[key])) for key in sorted(groups)]


def offset_errors(answers: Sequence[Answer]) -> np.ndarray:
    """Absolute errors of the right tracks' offsets, ms."""
    return np.array(
        [
            1000 * abs(answer.start_s - answer.true_start_s)
            for answer in answers
            if answer.right_track and answer.true_start_s is not None and answer.start_s is not None
        ]
    )


def markdown(cells: Sequence[Cell]) -> str:
    """Tables of `right track / within 50 ms`, %."""
    lines = []
    for reverb in sorted({cell.reverb for cell in cells}):
        mine = [cell for cell in cells if cell.reverb == reverb]
        ratios = sorted({cell.snr_db for cell in mine})
        lines += ["", f"| {CONDITIONS[reverb]} | " + " | ".join(f"{r:g} dB" for r in ratios) + " |"]
        lines.append("|---" * (len(ratios) + 1) + "|")
        for length in sorted({cell.seconds for cell in mine}):
            row = [_percent(cell) for cell in mine if cell.seconds == length]
            lines.append(f"| {length:g} s | " + " | ".join(row) + " |")
    return "\n".join(lines)


def summary(cells: Sequence[Cell], answers: Sequence[Answer]) -> dict[str, Any]:
    """Every cell with its intervals, and the offset errors, for JSON."""
    errors = offset_errors(answers)
    named = {
        f"{CONDITIONS[cell.reverb]}, {cell.seconds:g} s, {cell.snr_db:g} dB": {
            name: rate.to_dict() for name, rate in cell.rates.items() if rate.total
        }
        for cell in cells
    }
    if not len(errors):
        return {"cells": named, "offset_error_ms": None}
    median, p95 = np.percentile(errors, [50, 95])
    return {
        "cells": named,
        "offset_error_ms": {"median": round(float(median), 1), "p95": round(float(p95), 1)},
    }


def write_grid(
    out: str, clips: Sequence[Clip], answers: Sequence[Answer], facts: dict[str, Any]
) -> dict[str, Any]:
    """Write OUT/report.json, report.html and clips.parquet; returns the summary.

    `facts` say what was evaluated; they are shown and kept as they are.
    """
    cells = grid(clips, answers)
    result = summary(cells, answers)
    storage.write(
        storage.join(out, "report.json"), json.dumps({**facts, **result}, indent=1).encode()
    )
    rows = [
        {
            **asdict(clip),
            "source": clip.track,
            **asdict(answer),
            "right_place": answer.right_place,
        }
        for clip, answer in zip(clips, answers, strict=True)
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    storage.write(storage.join(out, "clips.parquet"), buffer.getvalue())
    page = _page(cells, answers, facts, result["offset_error_ms"])
    storage.write(storage.join(out, "report.html"), page.encode())
    return result


def _percent(cell: Cell) -> str:
    track, place = cell.rates["hit_track"], cell.rates["hit_50ms"]
    return f"{100 * track.value:.1f} / {100 * place.value:.1f}"


def _page(
    cells: Sequence[Cell], answers: Sequence[Answer], facts: dict[str, Any], offsets: dict | None
) -> str:
    errors = offset_errors(answers)
    known = [a for a in answers if a.true_track is not None and a.score is not None]
    scores = {
        "right track": [a.score for a in known if a.right_track],
        "wrong track": [a.score for a in known if not a.right_track],
        "not in the catalogue": [a.score for a in answers if a.true_track is None and a.score],
    }
    told = "".join(f"<li>{escape(str(k))}: {escape(str(v))}</li>" for k, v in facts.items())
    median = "" if offsets is None else f"median {offsets['median']:.0f} ms"
    return _TEMPLATE.format(
        facts=told,
        tables="".join(
            _table([c for c in cells if c.reverb == r]) for r in sorted({c.reverb for c in cells})
        ),
        scores="".join(
            _histogram(name, np.array(values, float), np.linspace(0, 1, 41))
            for name, values in scores.items()
        ),
        offsets=_histogram(f"offset error, ms; {median}", errors, np.linspace(0, 200, 41)),
    )


def _table(cells: list[Cell]) -> str:
    ratios = sorted({cell.snr_db for cell in cells})
    head = "".join(f"<th>{ratio:g} dB</th>" for ratio in ratios)
    rows = ""
    for length in sorted({cell.seconds for cell in cells}):
        tds = ""
        for cell in (cell for cell in cells if cell.seconds == length):
            low, high = (100 * bound for bound in cell.rates["hit_50ms"].interval())
            paper = "" if cell.paper is None else f"<i>paper {cell.paper:.1f}</i>"
            wrong = cell.rates["false_positive"]
            accepted = f"<i>unknown accepted {100 * wrong.value:.1f}</i>" if wrong.total else ""
            tds += (
                f"<td><b>{_percent(cell)}</b><i>{low:.1f} to {high:.1f}</i>{paper}{accepted}</td>"
            )
        rows += f"<tr><th>{length:g} s</th>{tds}</tr>"
    title = CONDITIONS[cells[0].reverb].capitalize()
    return f"<h2>{title}</h2><table><tr><th></th>{head}</tr>{rows}</table>"


def _histogram(title: str, values: np.ndarray, edges: np.ndarray) -> str:
    """Bars as SVG; what lies outside the edges counts in the outermost bars."""
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    width, tallest = 600 / len(counts), max(1, int(counts.max(initial=0)))
    bars = "".join(
        f'<rect x="{i * width:.1f}" y="{100 - 100 * n / tallest:.1f}" width="{width - 1:.1f}" '
        f'height="{100 * n / tallest:.1f}"><title>{edges[i]:g}: {n}</title></rect>'
        for i, n in enumerate(counts)
    )
    return (
        f"<figure><figcaption>{escape(title)} ({len(values)} clips)</figcaption>"
        f'<svg viewBox="0 0 600 116">{bars}<text x="0" y="114">{edges[0]:g}</text>'
        f'<text x="600" y="114" text-anchor="end">{edges[-1]:g}</text></svg></figure>'
    )


_TEMPLATE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Evaluation</title>
<style>
body{{font:16px/1.5 system-ui,sans-serif;color:#1c2430}}
body{{max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;width:100%}}
td,th{{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid #e4e8ee}}
td b{{display:block}} td i{{display:block;font-size:.75rem;color:#5a6675;font-style:normal}}
figure{{margin:1rem 0}} svg{{width:100%;border-bottom:1px solid #e4e8ee}}
rect{{fill:#0b5cad}} text{{font-size:11px;fill:#5a6675}} figcaption{{font-size:.85rem}}
@media print{{body{{margin:0}}}}
</style>
<h1>Evaluation</h1><ul>{facts}</ul>
<p>Right track / right track within 50 ms, % of the clips, best answer whatever its score; below,
the 95 % interval of the latter. The paper's numbers (GraFPrint, Table II) are of its own data.</p>
{tables}
<h2>Scores of the best answers</h2>{scores}
<h2>Where in the track</h2>{offsets}
</html>
"""
