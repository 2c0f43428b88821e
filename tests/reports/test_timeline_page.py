"""The report of a timeline job, without a browser."""

import re
from itertools import pairwise

import pytest
from pages import Tables, loads_nothing
from timelines import BAD, DAY, DURATIONS_S, QUIET, day

from grafp.matches import unmatched
from grafp.reports.timeline import (
    MOST_DETECTIONS,
    MOST_FAILURES,
    MOST_RECORDINGS,
    clock,
    timeline_report,
)


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
    assert ["broken.mp3", "no audio in it"] in Tables(page).rows
    loads_nothing(page)
    assert len(page) < 275_000  # a day with 300 detections, of which outputs.md tells the size
    assert "0:15:00 long, 0 detections, 0 % of the time" in page
    assert "<b>.mp3" not in page


def test_a_page_has_limits_and_says_so() -> None:
    found = day()[0]
    rows = [
        {**found, "query_start_s": 12.0 * n, "query_end_s": 12.0 * n + 9.0, "rank": n + 1}
        for n in range(MOST_DETECTIONS + 1000)
    ]
    page = timeline_report(rows, DURATIONS_S)
    assert page.count('<tr id="d') == len(re.findall(r' id="b\d+"', page)) == MOST_DETECTIONS
    assert "Left out here: 0 recordings, 1,000 detections" in page
    # What is told of the recording is of all its detections.
    assert "6,000 detections, 62 % of the time; 5,000 of them are shown" in page


def test_all_failures_are_told_whatever_recordings_are_shown() -> None:
    good = [unmatched(f"radio/{n:03}.mp3", 60.0, 0.5, None) for n in range(MOST_RECORDINGS + 1)]
    bad = [
        unmatched(f"radio/x{n:03}.mp3", 0.0, 0.5, "<i>cut</i>") for n in range(MOST_FAILURES + 1)
    ]
    rows = [*good, *bad]
    page = timeline_report(rows, {row["query"]: row["query_end_s"] for row in rows})
    assert page.count('<div class="strip">') == MOST_RECORDINGS
    assert "Left out here: 1 recordings, 0 detections" in page
    assert f'<a href="#failed">{len(bad)} recordings could not be used' in page
    told = [row for row in Tables(page).rows if row[-1] == "<i>cut</i>"]
    assert len(told) == MOST_FAILURES
    assert told[0] == ["x000.mp3", "<i>cut</i>"]
    assert f"The first {MOST_FAILURES}" in page


def test_a_track_has_one_color_and_the_next_new_one_is_far_from_it() -> None:
    page = timeline_report(day(), DURATIONS_S)
    by_track: dict[str, set[int]] = {}
    for hue, name in re.findall(r'<i style="--hue:(\d+)"></i> <bdi>(.*?)</bdi>', page):
        by_track.setdefault(name, set()).add(int(hue))
    assert all(len(some) == 1 for some in by_track.values())
    order = [some.pop() for some in by_track.values()]  # of first detections
    steps = [(b - a) % 360 for a, b in pairwise(order)]
    assert set(steps) <= {137, 138}


def test_a_bar_tells_what_it_is() -> None:
    row = {**day()[0], "score": 0.8125, "false_positive_rate": 2e-5, "query_start_s": 30.0}
    row["query_end_s"] = 225.0
    page = timeline_report([row], DURATIONS_S)
    name = row["track"].split("/")[-1].replace("&", "&amp;")
    told = f"{name}, 0:00:30 to 0:03:45, score 0.812"
    assert page.count(f'title="{told}, 2e-05 false detections an hour"') == 1
    page = timeline_report([{**row, "false_positive_rate": None}], DURATIONS_S)
    assert page.count(f'title="{told}"') == 1


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
