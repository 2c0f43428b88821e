"""OUT/report.html of a timeline job: each recording as a strip with its detections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafp.reports.pages import render, short_names
from grafp.storage.tables import Row

MOST_RECORDINGS, MOST_DETECTIONS, MOST_FAILURES = 50, 5000, 100
"""Of a page, so that a browser opens it at once."""
_LINES_S = (60.0, 300.0, 600.0, 1800.0, 3600.0)
_LINES = 24  # of a strip; a day has one an hour
_MOST_DETECTED = 10
_GOLDEN_ANGLE = 137.5  # degrees between the hues of tracks that follow each other


@dataclass(frozen=True)
class Numbered:
    """A detection, as the strip and the table show it."""

    number: int
    """Of the page, from 1."""
    row: Row
    """Of matches.parquet."""
    name: str
    """Of the track."""
    hue: int
    """Of the track; degrees."""

    @property
    def begin(self) -> str:
        return clock(self.row["query_start_s"])

    @property
    def end(self) -> str:
        return clock(self.row["query_end_s"])

    @property
    def rate(self) -> str:
        """False detections in an hour; empty where they are not known."""
        rate = self.row["false_positive_rate"]
        return "" if rate is None else f"{rate:.2g}"

    @property
    def tip(self) -> str:
        rate = f", {self.rate} false detections an hour" if self.rate else ""
        return f"{self.name}, {self.begin} to {self.end}, score {self.row['score']:.3f}{rate}"


@dataclass(frozen=True)
class Bar:
    """What of a detection lies in one line of a strip."""

    shown: Numbered
    is_first: bool
    """A detection may reach over several lines."""
    left: float
    """Share of the line before it, %."""
    width: float
    """%."""


@dataclass(frozen=True)
class Strip:
    """One recording that could be used."""

    name: str
    duration_s: float
    detections: int
    """All of them; the page may show fewer."""
    covered: float
    """Share of its time that has a track."""
    lines: list[tuple[str, float, list[Bar]]]
    """Clock time, how much of the line's length it has (%), and its bars."""
    shown: list[Numbered]


def timeline_report(rows: Sequence[Row], durations_s: Mapping[str, float]) -> str:
    """An HTML report about the detections in long recordings.

    Args:
        rows: of matches.parquet.
        durations_s: of the recordings, by URI, in the order in which they are shown.
    """
    names = short_names(durations_s)
    errors = {row["query"]: row["error"] for row in rows if row["error"]}
    found = [row for row in rows if row["matched"]]
    tracks = short_names(row["track"] for row in found)
    usable = [uri for uri in durations_s if uri not in errors]
    total_s = sum(durations_s[uri] for uri in usable)
    by_recording: dict[str, list[Numbered]] = {uri: [] for uri in usable}
    hues = {track: round(_GOLDEN_ANGLE * n) % 360 for n, track in enumerate(tracks)}
    for number, row in enumerate(found, 1):
        track = row["track"]
        by_recording[row["query"]].append(Numbered(number, row, tracks[track], hues[track]))
    strips = [
        _strip(names[uri], durations_s[uri], by_recording[uri]) for uri in usable[:MOST_RECORDINGS]
    ]
    failed = [(names[uri], error) for uri, error in errors.items()]
    return render(
        "timeline.html",
        title="Timelines",
        clock=clock,
        hours=f"{total_s / 3600:,.1f}",
        detections=len(found),
        tracks=len(tracks),
        covered=_percent(sum(map(_length, found)), total_s),
        most=_most_detected(found, tracks),
        recordings=len(usable),
        left_out=(len(usable) - len(strips), len(found) - sum(len(one.shown) for one in strips)),
        strips=strips,
        failed=len(failed),
        failures=failed[:MOST_FAILURES],
    )


def clock(seconds: float) -> str:
    """A time in a recording, h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _length(row: Row) -> float:
    return float(row["query_end_s"] - row["query_start_s"])


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f}" if whole else "0"


def _most_detected(found: Sequence[Row], tracks: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Tracks, how often they were detected and for how long, the most frequent first."""
    times_s: dict[str, list[float]] = {}
    for row in found:
        times_s.setdefault(row["track"], []).append(_length(row))
    most = sorted(times_s.items(), key=lambda pair: (-len(pair[1]), -sum(pair[1]), pair[0]))
    return [
        (tracks[uri], f"{len(times):,}", clock(sum(times))) for uri, times in most[:_MOST_DETECTED]
    ]


def _strip(name: str, duration_s: float, detections: Sequence[Numbered]) -> Strip:
    line_s = next((one for one in _LINES_S if duration_s <= one * _LINES), _LINES_S[-1])
    line_s = min(line_s, max(1.0, duration_s))
    shown = [one for one in detections if one.number <= MOST_DETECTIONS]
    lines = [
        (clock(line * line_s), 100 * min(1.0, (duration_s - line * line_s) / line_s), bars)
        for line, bars in enumerate(_bars(shown, line_s, max(1, -int(-duration_s // line_s))))
    ]
    covered = sum(_length(one.row) for one in detections) / duration_s if duration_s else 0.0
    return Strip(name, duration_s, len(detections), covered, lines, shown)


def _bars(shown: Sequence[Numbered], line_s: float, count: int) -> list[list[Bar]]:
    """The bars of each line, of `line_s` seconds."""
    bars: list[list[Bar]] = [[] for _ in range(count)]
    for one in shown:
        begin_s, end_s = one.row["query_start_s"], one.row["query_end_s"]
        first = min(int(begin_s // line_s), count - 1)
        for line in range(first, max(first + 1, min(count, -int(-end_s // line_s)))):
            left = max(0.0, begin_s - line * line_s) / line_s
            right = min(1.0, (end_s - line * line_s) / line_s)
            bars[line].append(Bar(one, line == first, 100 * left, 100 * (right - left)))
    return bars
