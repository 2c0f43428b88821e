"""The paper's grid of lengths, ratios and conditions (Table II), as text, JSON and Parquet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grafp.evaluation import paper
from grafp.evaluation.metrics import Answer, Rate, score_answers
from grafp.evaluation.protocol import Clip

CONDITIONS = {False: "noise", True: "noise + reverb"}
TOLERANCES_S = (0.05, 0.1, 0.125, 0.25)
"""The paper's granularities, Fig. 2."""


@dataclass(frozen=True)
class ClipAnswer(Answer):
    """The answer to a clip, with its threshold and the best wrong match."""

    threshold: float
    best_wrong: str | None
    """The best match that is not the true track; None if there is no other match."""
    best_wrong_score: float | None


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
        rows = paper.TABLE_2[paper.GRAFPRINT]
        return paper.cell(rows, self.reverb, self.seconds, self.snr_db)


def grid(clips: Sequence[Clip], answers: Sequence[Answer]) -> list[Cell]:
    """Cells by condition, length and ratio; an answer for each clip."""
    groups: dict[tuple[bool, float, float], list[Answer]] = {}
    for clip, answer in zip(clips, answers, strict=True):
        groups.setdefault((clip.reverb, clip.seconds, clip.snr_db), []).append(answer)
    return [Cell(*key, score_answers(groups[key])) for key in sorted(groups)]


@dataclass(frozen=True)
class Scale:
    """Hit rates in a catalog with added distractors (paper, Table III)."""

    distractors: int
    tracks: int
    """Distractors included."""
    fingerprints: int
    cells: list[Cell]
    distractor_wins: Rate
    """Known clips whose best wrong answer is a distractor, of those that have a wrong answer."""
    expected: float
    """What `distractor_wins` would be if distractors were confused as easily as real tracks."""
    best_wrong_score: float | None
    """Median over the known clips."""

    @classmethod
    def of(
        cls,
        distractors: int,
        real: int,
        fingerprints: int,
        clips: Sequence[Clip],
        answers: Sequence[ClipAnswer],
        is_distractor: Callable[[str], bool],
    ) -> "Scale":
        """For clips of one length and condition; `real` counts tracks that are not distractors."""
        wrong = [a for a in answers if a.true_track is not None and a.best_wrong is not None]
        scores = [a.best_wrong_score for a in wrong if a.best_wrong_score is not None]
        return cls(
            distractors=distractors,
            tracks=real + distractors,
            fingerprints=fingerprints,
            cells=grid(clips, answers),
            distractor_wins=Rate(sum(is_distractor(a.best_wrong or "") for a in wrong), len(wrong)),
            expected=distractors / max(1, real - 1 + distractors),
            best_wrong_score=round(float(np.median(scores)), 4) if scores else None,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "distractors": self.distractors,
            "tracks": self.tracks,
            "fingerprints": self.fingerprints,
            "best_wrong_is_distractor": self.distractor_wins.to_dict(),
            "expected": round(self.expected, 4),
            "best_wrong_score": self.best_wrong_score,
            "cells": cells_dict(self.cells),
        }


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


def granularity(
    clips: Sequence[Clip], answers: Sequence[Answer]
) -> dict[tuple[bool, float], dict[float, Rate]]:
    """Hit rates within each tolerance of Fig. 2, by condition and length, over all ratios."""
    groups: dict[tuple[bool, float], list[Answer]] = {}
    for clip, answer in zip(clips, answers, strict=True):
        if answer.true_track is not None:
            groups.setdefault((clip.reverb, clip.seconds), []).append(answer)
    return {
        key: {t: Rate(sum(a.within(t) for a in group), len(group)) for t in TOLERANCES_S}
        for key, group in sorted(groups.items())
    }


def cell_name(reverb: bool, seconds: float, snr_db: float) -> str:
    """The key of a cell in report.json."""
    return f"{CONDITIONS[reverb]}, {seconds:g} s, {snr_db:g} dB"


def cells_dict(cells: Sequence[Cell]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Rates with intervals by the cell's name, for JSON."""
    return {
        cell_name(cell.reverb, cell.seconds, cell.snr_db): {
            name: rate.to_dict() for name, rate in cell.rates.items() if rate.total
        }
        for cell in cells
    }


def summary(clips: Sequence[Clip], answers: Sequence[Answer]) -> dict[str, Any]:
    """Every cell with its intervals, hit rates by tolerance, and offset errors, for JSON."""
    within = {
        f"{CONDITIONS[reverb]}, {seconds:g} s": {
            f"{1000 * tolerance:g} ms": rate.to_dict() for tolerance, rate in rates.items()
        }
        for (reverb, seconds), rates in granularity(clips, answers).items()
    }
    errors, offsets = offset_errors(answers), None
    if len(errors):
        median, p95 = np.percentile(errors, [50, 95])
        offsets = {"median": round(float(median), 1), "p95": round(float(p95), 1)}
    return {"cells": cells_dict(grid(clips, answers)), "within": within, "offset_error_ms": offsets}


def _percent(cell: Cell) -> str:
    track, offset = cell.rates["hit_track"], cell.rates["hit_50ms"]
    return f"{100 * track.value:.1f} / {100 * offset.value:.1f}"
