"""OUT/report.html of a timeline job: each recording as a strip with its detections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafp.reports.pages import render, short_names
from grafp.storage.tables import Row

MOST_RECORDINGS, MOST_DETECTIONS = 50, 5000
"""Of a page, so that a browser opens it at once."""
_LINES_S = (60.0, 300.0, 600.0, 1800.0, 3600.0)
_LINES = 24  # of a strip; a day has one an hour
_MOST_PLAYED = 10
_GOLDEN_ANGLE = 137.5  # degrees between the hues of two tracks, so that neighbors differ


@dataclass(frozen=True)
class Bar:
    """What of a detection lies in one line of a strip."""

    number: int
    is_first: bool
    """A detection may reach over several lines."""
    left: float
    """Share of the line before it, %."""
    width: float
    """%."""
    hue: int
    tip: str


@dataclass(frozen=True)
class Strip:
    """One recording."""

    name: str
    uri: str
    duration_s: float
    error: str | None
    covered: float
    """Share of its time that has a track."""
    lines: list[tuple[str, float, list[Bar]]]
    """Clock time, how much of the line's length it has (%), and its bars."""
    detections: list[dict[str, Any]]


def timeline_report(rows: Sequence[Row], durations_s: Mapping[str, float]) -> str:
    """An HTML report about the detections in long recordings.

    Args:
        rows: of matches.parquet.
        durations_s: of the recordings, by URI, in the order in which they are shown.
    """
    found = [row for row in rows if row["matched"]]
    names = short_names(durations_s)
    tracks = short_names({row["track"] for row in found})
    played_s: dict[str, list[float]] = {}
    for row in found:
        played_s.setdefault(row["track"], []).append(_length(row))
    most = sorted(played_s.items(), key=lambda pair: (-len(pair[1]), -sum(pair[1]), pair[0]))
    total_s, covered_s = sum(durations_s.values()), sum(map(_length, found))
    errors = {row["query"]: row["error"] for row in rows if row["error"]}
    by_recording: dict[str, list[tuple[int, Row]]] = {uri: [] for uri in durations_s}
    for number, row in enumerate(found[:MOST_DETECTIONS], 1):
        by_recording[row["query"]].append((number, row))
    shown = list(by_recording.items())[:MOST_RECORDINGS]
    return render(
        "timeline.html",
        title="Timelines",
        clock=clock,
        hours=f"{total_s / 3600:,.1f}",
        recordings=len(durations_s),
        detections=len(found),
        tracks=len(played_s),
        covered=f"{100 * covered_s / total_s:.0f}" if total_s else "0",
        most=[
            (tracks[uri], f"{len(times):,}", clock(sum(times)))
            for uri, times in most[:_MOST_PLAYED]
        ],
        left_out=(len(durations_s) - len(shown), max(0, len(found) - MOST_DETECTIONS)),
        strips=[
            _strip(uri, names[uri], durations_s[uri], errors.get(uri), numbered, tracks)
            for uri, numbered in shown
        ],
    )


def clock(seconds: float) -> str:
    """A time in a recording, h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _length(row: Row) -> float:
    return float(row["query_end_s"] - row["query_start_s"])


def _strip(
    uri: str,
    name: str,
    duration_s: float,
    error: str | None,
    numbered: Sequence[tuple[int, Row]],
    tracks: Mapping[str, str],
) -> Strip:
    line_s = next((one for one in _LINES_S if duration_s <= one * _LINES), _LINES_S[-1])
    line_s = min(line_s, max(1.0, duration_s))
    count = max(1, -int(-duration_s // line_s))
    bars: list[list[Bar]] = [[] for _ in range(count)]
    hues = {track: round(_GOLDEN_ANGLE * n) % 360 for n, track in enumerate(tracks)}
    for number, row in numbered:
        begin_s, end_s = row["query_start_s"], row["query_end_s"]
        tip = f"{tracks[row['track']]}, {clock(begin_s)} to {clock(end_s)}"
        first = int(begin_s // line_s)
        for line in range(first, min(count, -int(-end_s // line_s))):
            left = max(0.0, begin_s - line * line_s) / line_s
            right = min(1.0, (end_s - line * line_s) / line_s)
            hue, share = hues[row["track"]], 100 * (right - left)
            bars[line].append(Bar(number, line == first, 100 * left, share, hue, tip))
    return Strip(
        name,
        uri,
        duration_s,
        error,
        sum(_length(row) for _, row in numbered) / duration_s if duration_s else 0.0,
        [
            (clock(line * line_s), 100 * min(1.0, (duration_s - line * line_s) / line_s), some)
            for line, some in enumerate(bars)
        ]
        if error is None
        else [],
        [
            {
                **row,
                "number": number,
                "hue": hues[row["track"]],
                "name": tracks[row["track"]],
                "begin": clock(row["query_start_s"]),
                "end": clock(row["query_end_s"]),
            }
            for number, row in numbered
        ],
    )
