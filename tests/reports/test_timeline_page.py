"""The report of a timeline job, without a browser."""

import re

import pytest
from timelines import BAD, DAY, DURATIONS_S, QUIET, day

from grafp.reports.timeline import MOST_DETECTIONS, clock, timeline_report


def test_bars_cover_what_the_detections_do() -> None:
    rows = day()
    found = [row for row in rows if row["matched"]]
    page = timeline_report(rows, DURATIONS_S)
    first = page[: page.index("night.mp3")]
    shares = [float(share) for share in re.findall(r"width:([\d.]+)%;--hue", first)]
    played_s = sum(row["query_end_s"] - row["query_start_s"] for row in found)
    assert sum(shares) / 100 * 3600 == pytest.approx(played_s, rel=1e-3)  # a line is an hour
    assert first.count('<div class="line">') == 24
    assert len(re.findall(r' id="b\d+"', page)) == page.count('<tr id="d') == len(found)
    assert f"<b>{len(found):,}</b>" in page
    assert f"<b>{len({row['track'] for row in found})}</b>" in page


def test_every_recording_is_there_and_escaped() -> None:
    page = timeline_report(day(), DURATIONS_S)
    assert "monday &lt;b&gt;.mp3" in page
    assert "This recording could not be used: no audio in it" in page
    assert "0:15:00 long, 0 detections, 0 % of the time" in page
    assert "<b>.mp3" not in page


def test_a_page_has_limits_and_says_so() -> None:
    rows = day() * 20
    found = sum(row["matched"] for row in rows)
    page = timeline_report(rows, DURATIONS_S)
    assert page.count('<tr id="d') == MOST_DETECTIONS
    assert f"Left out here: 0 recordings, {found - MOST_DETECTIONS:,} detections" in page


def test_nothing_at_all_is_a_page_too() -> None:
    assert "<b>0.0</b>" in timeline_report([], {})
    assert "0 % of the time" in timeline_report([day()[-1]], {QUIET: 900.0})
    assert "could not be used" in timeline_report([day()[-2]], {BAD: 0.0})
    assert DAY not in timeline_report([], {})


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (90_061, "25:01:01")]
)
def test_times_are_read_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
