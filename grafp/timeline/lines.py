"""Windows of a recording that point to one track, and the lines on which they lie."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from grafp.index.evidence import Answer

SAME_OFFSET_SECONDS = 0.3
_SPEED_ERROR = 0.005  # of one window


@dataclass(frozen=True)
class Window:
    """What one window points to: its middle, and where that lies in the track; in hops."""

    ordinal: int
    middle: float
    position: float
    speed: float
    first: int
    last: int
    """Fingerprints of the chunk, both included."""
    score: float
    beside: float


@dataclass(frozen=True)
class Line:
    """Windows that agree: fingerprint n of the chunk is number offset + speed * n of the track."""

    ordinal: int
    offset: float
    speed: float
    first: int
    last: int
    """Fingerprints of the chunk, both included."""
    score: float = field(compare=False)
    beside: float = field(compare=False)


def window_of(answer: Answer, first: int, length: int) -> Window:
    """What the answer to a window says; `first`, `length`: its fingerprints in the chunk."""
    match, half = answer.match, (length - 1) / 2
    return Window(
        ordinal=match.ordinal,
        middle=first + half,
        position=match.start + match.speed * half,
        speed=match.speed,
        first=first + match.first,
        last=first + match.last,
        score=match.score,
        beside=answer.beside,
    )


def lines_of(seen: list[Window], hop_s: float) -> list[Line]:
    """Windows that agree, together."""
    groups: list[list[Window]] = []
    for one in sorted(seen, key=lambda window: (window.ordinal, window.middle)):
        near = SAME_OFFSET_SECONDS / hop_s
        fitting = [group for group in groups if _distance(group, one, near) <= 1]
        if fitting:
            min(fitting, key=lambda group: _distance(group, one, near)).append(one)
        else:
            groups.append([one])
    return [_line(group) for group in groups]


def _distance(group: Sequence[Window], one: Window, near: float) -> float:
    """How far a window lies beside a group's line; above 1 too far."""
    if group[0].ordinal != one.ordinal:
        return np.inf
    line = _line(group)
    away = one.position - (line.offset + line.speed * one.middle)
    return abs(away) / (near + _SPEED_ERROR * (one.middle - group[-1].middle))


def _line(group: Sequence[Window]) -> Line:
    """The line through the windows of a group; speed 1 where that fits as well."""
    middle_N = np.array([window.middle for window in group])
    position_N = np.array([window.position for window in group])
    speed = float(np.median([window.speed for window in group]))
    away_N = middle_N - middle_N.mean()
    if len(group) > 2:
        speed = float((away_N * position_N).sum() / (away_N**2).sum())
    plain_N = position_N - middle_N
    if np.ptp(plain_N) <= 1.0 and np.median([window.speed for window in group]) == 1.0:
        speed = 1.0
    return Line(
        ordinal=group[0].ordinal,
        offset=float(np.median(position_N - speed * middle_N)),
        speed=speed,
        first=min(window.first for window in group),
        last=max(window.last for window in group),
        score=float(np.median([window.score for window in group])),
        beside=float(np.mean([window.beside for window in group])),
    )
