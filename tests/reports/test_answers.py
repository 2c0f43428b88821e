"""Rates with their intervals, and the report on answers with a truth."""

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pages import loads_nothing

from grafp.audio import decode, synthesis
from grafp.errors import OptionError
from grafp.evaluation.metrics import Answer, Rate, score_answers
from grafp.evaluation.truth import read_truth
from grafp.reports.answers import answers_report, odds, write_report
from grafp.reports.excerpts import Alignment, Excerpt, Likeness, Shown, Sound


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [  # Newcombe (1998), "Two-sided confidence intervals for the single proportion", method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_intervals_are_wilsons(hits: int, total: int, low: float, high: float) -> None:
    rate = Rate(hits, total)
    assert rate.interval() == pytest.approx((low, high), abs=5e-5)
    assert rate.to_dict() == {
        "rate": round(hits / total, 4),
        "low": pytest.approx(low, abs=1e-4),
        "high": pytest.approx(high, abs=1e-4),
        "hits": hits,
        "total": total,
    }


def test_a_rate_of_nothing_is_unknown_and_valid_json() -> None:
    assert math.isnan(Rate(0, 0).value)
    assert json.dumps(Rate(0, 0).to_dict(), allow_nan=False) == (
        '{"rate": null, "low": null, "high": null, "hits": 0, "total": 0}'
    )


def answer(
    track: str | None,
    start_s: float | None,
    true_track: str | None,
    true_start_s: float | None = None,
    matched: bool = True,
) -> Answer:
    return Answer("q", track, start_s, 0.5, matched, None, true_track, true_start_s, None)


def test_each_rate_counts_what_it_says() -> None:
    answers = [
        answer("a", 10.00, "a", 10.0),
        answer("a", 10.05, "a", 10.0),  # exactly 50 ms
        answer("a", 9.949, "a", 10.0),  # beyond
        answer("a", 10.00, "a", None),  # only the track is asked for
        answer("b", 10.00, "a", 10.0),  # another track
        answer("a", 10.00, "a", 10.0, matched=False),  # right, but rejected
        answer(None, None, "a", 10.0, matched=False),
        answer("a", 3.00, None),  # not in the catalog
        answer("b", 3.00, None, matched=False),
        answer(None, None, None, matched=False),
    ]
    counts = {name: (rate.hits, rate.total) for name, rate in score_answers(answers).items()}
    assert counts == {
        "hit_track": (5, 7),
        "hit_50ms": (4, 7),
        "false_positive": (1, 3),
        "false_negative": (3, 7),
    }


def write_csv(folder: Path, *lines: str) -> str:
    path = folder / "truth.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_truth_has_a_track_an_offset_or_neither(tmp_path: Path) -> None:
    uri = write_csv(
        tmp_path, "query,track,start_s", "q1.wav,ä.mp3,12.5", "q2.wav,b.mp3,", 'q3.wav,"",""'
    )
    assert read_truth(uri) == {
        "q1.wav": ("ä.mp3", 12.5), "q2.wav": ("b.mp3", None), "q3.wav": (None, None)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["query,track", "q1,a"], "line 2: needs query, track and start_s"),
        (["name,track,start_s", "q1,a,1"], "line 2: needs query"),
        (["query,track,start_s", "q1,a,1", "q2,a,soon"], "line 3: .*soon"),
        (["query,track,start_s", "q1,a,1:30"], "line 2: .*1:30"),
        (["query,track,start_s", "q1,a,1", "q2,a,2", "q1,b,3"], "line 4: q1 is there twice"),
    ],
)
def test_a_truth_that_cannot_be_used_names_its_line(
    lines: list[str], message: str, tmp_path: Path
) -> None:
    uri = write_csv(tmp_path, *lines)
    with pytest.raises(OptionError, match=f"--truth .*{message}") as error:
        read_truth(uri)
    assert uri in str(error.value)
    assert "\n" not in str(error.value)


def row(query: str, rank: int = 1, **values: Any) -> dict[str, Any]:
    """A row of matches.parquet; without values, of a query that nothing matched."""
    empty = {
        "query_start_s": 0.0, "query_end_s": 5.0, "track": None, "track_start_s": None,
        "speed": None, "score": None, "matched": False, "threshold": 0.4, "error": None,
        "false_positive_rate": None,
    }  # fmt: skip
    return {"query": query, "rank": rank, **empty, **values}


def found(query: str, track: str, track_start_s: float, score: float, **more: Any) -> dict:
    place = {"track": track, "track_start_s": track_start_s, "speed": 1.0}
    return row(query, **{**place, "score": score, "matched": True, **more})


NASTY = "<script>alert('x')</script> & \"ä\".wav"


def counted(html: str) -> dict[str, int]:
    """How many queries have each verdict, as the buttons say."""
    found = re.findall(r'data-show="(\w+)"[^>]*><b>(\d+)</b>', html)
    return {verdict: int(count) for verdict, count in found}


def verdicts(html: str) -> list[str]:
    """Of the queries that are shown, in their order."""
    return re.findall(r'<details class="(\w+)"', html)


def test_a_report_is_written_for_machines_and_for_readers(tmp_path: Path) -> None:
    matches = [
        found("right.wav", "a", 20.0, 0.9),
        found("right.wav", "b", 3.0, 0.5, rank=2, matched=False),
        found("late.wav", "a", 22.0, 0.8, query_start_s=2.0),  # its first 2 s lie before the track
        found(NASTY, "<b>{wrong}</b>", 1.0, 0.7, false_positive_rate=0.000321),
        row("bad.wav", error="too_short: lasts 0.30 s"),
        row("unknown.wav"),
    ]
    truth = {
        "right.wav": ("a", 20.0), "late.wav": ("a", 20.0), NASTY: ("<i>right</i>", 1.0),
        "bad.wav": ("a", None), "unknown.wav": (None, None), "not asked.wav": ("a", 1.0),
    }  # fmt: skip
    summary = write_report(str(tmp_path), pa.Table.from_pylist(matches), truth)
    assert summary["hit_50ms"]["hits"] == 2
    assert summary["hit_50ms"]["total"] == 4
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["queries"] == 5
    assert {name: report[name] for name in summary} == summary
    assert [a["query"] for a in report["answers"]] == [
        "right.wav", "late.wav", NASTY, "bad.wav", "unknown.wav"
    ]  # fmt: skip
    assert [a["right"] for a in report["answers"]] == [True, True, False, False, False]
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "50.0 %" in html
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;ä&#34;.wav" in html
    assert "&lt;b&gt;{wrong}&lt;/b&gt;" in html
    assert "&lt;i&gt;right&lt;/i&gt;" in html
    loads_nothing(html)
    assert html.count("<script") == 1
    assert "too_short: lasts 0.30 s" in html
    assert "catalog, 1 in 3,100 scores this high" in html
    assert report["answers"][2]["false_positive_rate"] == 0.000321
    assert counted(html) == {"matched": 2, "refused": 1, "wrong": 1, "missed": 0, "failed": 1}
    assert verdicts(html) == ["matched", "matched", "wrong", "failed", "refused"]
    assert "Also: <bdi>b</bdi> at 3.00 s, score 0.500." in html


def test_a_query_without_a_truth_is_an_error(tmp_path: Path) -> None:
    matches = pa.Table.from_pylist([found("q.wav", "a", 1.0, 0.9)])
    with pytest.raises(OptionError, match=r"--truth has no line for the query q\.wav"):
        write_report(str(tmp_path), matches, {"other.wav": ("a", 1.0)})
    assert not list(tmp_path.iterdir())


def test_a_report_without_unknown_queries_has_no_false_positive_rate(tmp_path: Path) -> None:
    matches = pa.Table.from_pylist([found("q.wav", "a", 1.0, 0.9)])
    summary = write_report(str(tmp_path), matches, {"q.wav": ("a", 1.0)})
    assert summary["false_positive"]["rate"] is None
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "False positives" not in html
    assert counted(html)["matched"] == 1


def test_without_a_truth_nothing_is_wrong(tmp_path: Path) -> None:
    refused = found("b.wav", "t", 2.0, 0.3, matched=False)
    matches = [found("a.wav", "t", 1.0, 0.9), refused, row("c.wav", error="no audio")]
    assert write_report(str(tmp_path), pa.Table.from_pylist(matches), None) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert counted(html) == {"matched": 1, "refused": 1, "failed": 1}
    assert "Refused; the nearest is: <b><bdi>t</bdi> at 2.00 s</b>" in html
    assert "truth" not in html


def test_of_many_queries_those_are_shown_that_may_be_wrong() -> None:
    rows = [found(f"{n}.wav", "t", 1.0, 0.9 - 0.001 * n) for n in range(150)]
    rows[140]["error"], rows[145]["matched"] = "no audio", False
    looked: list[str] = []

    def look(shown: dict, _: Answer | None) -> Shown:
        looked.append(shown["query"])
        return Shown(why="cannot be read here")

    html = answers_report(rows, None, look)
    assert verdicts(html) == ["matched"] * 98 + ["failed", "refused"]
    assert looked == [*(f"{n}.wav" for n in range(98)), "145.wav"]
    assert "100 queries are shown, those first that may be wrong. Left out: 50 matched." in html
    assert html.count("<p>cannot be read here</p>") == 99
    assert "<audio" not in html


def test_the_line_lies_where_the_fingerprints_are_alike() -> None:
    """A query of 4 s that begins half a second before its music, which plays 25 % faster."""
    products_MN = np.zeros((31, 60), np.float32)
    likeness = Likeness(products_MN, 0.0, 0.1, 8.0, 0.1)
    alignment = Alignment.of(likeness, (0.5, 4.0), 10.0, 1.25)
    x0, y0, x1, y1 = alignment.line
    assert (x0, y0) == pytest.approx((100 * 20.5 / 60, 100 * 5.5 / 31), abs=0.01)
    assert (x1, y1) == pytest.approx((100 * 51.75 / 60, 100 * 30.5 / 31), abs=0.01)
    assert (alignment.begin_s, alignment.end_s) == pytest.approx((8.0, 14.9))


def test_a_sound_is_heard_and_seen_whole() -> None:
    sound = Sound.of("the query", Excerpt(2.0, synthesis.piece(0, 2.6)))
    assert (sound.begin_s, sound.end_s) == pytest.approx((2.0, 4.6))
    data = base64.b64decode(sound.uri.removeprefix("data:audio/mpeg;base64,"))
    assert len(data) < 15_000
    assert len(decode(data)) == pytest.approx(2.6 * 16_000, abs=1200)  # MP3: whole frames
    assert sound.picture.width == round(128 * 83 / 64)


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (None, ""), (1.0, "1 in 1"), (0.4, "1 in 2.5"), (0.00321, "1 in 310"),
        (5e-5, "1 in 20,000"), (3.1e-7, "1 in 3.2 million"), (1e-12, "below 1 in 1 billion"),
        (0.0, "below 1 in 1 billion"),
    ],
)  # fmt: skip
def test_a_rate_is_told_as_odds(rate: float | None, told: str) -> None:
    assert odds(rate) == told
