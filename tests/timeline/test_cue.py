"""Cue sheets: every second of a recording belongs to one track of the sheet."""

import re

from grafp.timeline.cue import cue_sheet, file_names


def entries(sheet: str) -> list[tuple[str, float]]:
    """Title and beginning in seconds of each track."""
    found = re.findall(
        r'  TRACK (\d+) AUDIO\n    TITLE "([^"\n]*)"\n    INDEX 01 (\d\d+):(\d\d):(\d\d)\n', sheet
    )
    assert [int(number) for number, *_ in found] == list(range(1, len(found) + 1))
    assert sheet.count("\n") == 1 + 3 * len(found)
    return [(title, int(m) * 60 + int(s) + int(f) / 75) for _, title, m, s, f in found]


def test_what_is_between_plays_is_unknown() -> None:
    detections = [
        (10.0, 70.5, "s3://b/one.flac"),
        (72.0, 100.0, "b/two.x.mp3"),
        (160.0, 200.0, "three"),
    ]
    sheet = cue_sheet("s3://bucket/radio/hour 1.mp3", detections, 300.0)
    assert sheet.splitlines()[0] == 'FILE "hour 1.mp3" MP3'
    assert entries(sheet) == [
        ("unknown", 0.0),
        ("one", 10.0),
        ("two.x", 72.0),
        ("unknown", 100.0),
        ("three", 160.0),
        ("unknown", 200.0),
    ]


def test_a_sheet_begins_at_its_beginning_and_counts_frames() -> None:
    sheet = cue_sheet("x.wav", [(1.5, 20.02, "a"), (20.02, 59.0, "b")], 60.0)
    assert entries(sheet) == [("a", 0.0), ("b", 20 + 1 / 75)]
    assert "INDEX 01 00:20:01" in sheet
    assert entries(cue_sheet("x.wav", [], 60.0)) == [("unknown", 0.0)]


def test_long_recordings_go_on_past_two_digits() -> None:
    detections = [(60.0 * n, 60.0 * n + 60, f"track {n}") for n in range(120)]
    sheet = cue_sheet("day.ogg", detections, 7_200.0)
    assert entries(sheet)[-1] == ("track 119", 7_140.0)
    assert "  TRACK 120 AUDIO\n" in sheet
    assert "    INDEX 01 119:00:00\n" in sheet


def test_quotation_marks_and_line_breaks_do_not_break_the_sheet() -> None:
    sheet = cue_sheet('a "b"\nc.flac', [(0.0, 30.0, 'x/say "hi"\n  TRACK 07 AUDIO.mp3')], 30.0)
    assert sheet.splitlines()[0] == "FILE \"a 'b' c.flac\" WAVE"
    assert entries(sheet) == [("say 'hi' TRACK 07 AUDIO", 0.0)]


def test_file_names_are_safe_and_different() -> None:
    uris = [
        "radio/a.mp3", "s3://b/x/A.wav", "radio/b.mp3", "radio/../..mp3", "radio/.mp3",
        'radio/c:\\d"*?\n.mp3', "radio/" + "é" * 300 + ".mp3", "radio/" + "é" * 301 + ".mp3",
    ]  # fmt: skip
    names = file_names(uris)
    assert names[2] == "b.cue"
    assert names[0].startswith("a-")
    assert len({name.casefold() for name in names}) == len(uris)
    for name in names:
        assert re.fullmatch(r"[\w .,()+&-]+\.cue", name)
        assert not name.startswith(".")
        assert len(name.encode()) <= 255
    assert file_names(uris) == names
