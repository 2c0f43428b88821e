"""Rates with their intervals, and the report on answers with a truth."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from grafp.errors import OptionError
from grafp.evaluation.metrics import Answer, Rate, score_answers
from grafp.evaluation.truth import read_truth
from grafp.reports.answers import write_report


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
        "query_start_s": None, "query_end_s": None, "track": None, "track_start_s": None,
        "score": None, "matched": False, "threshold": 0.4, "error": None,
        "false_positive_rate": None,
    }  # fmt: skip
    return {"query": query, "rank": rank, **empty, **values}


def found(query: str, track: str, track_start_s: float, score: float, **more: Any) -> dict:
    position = {"query_start_s": 0.0, "query_end_s": 5.0, "track_start_s": track_start_s}
    return row(query, **{**position, "track": track, "score": score, "matched": True, **more})


NASTY = "<script>alert('x')</script> & \"ä\".wav"


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
    assert "<script" not in html
    assert "too_short: lasts 0.30 s" in html
    assert "0.032 %" in html
    assert report["answers"][2]["false_positive_rate"] == 0.000321
    assert "late.wav" not in html  # only wrong answers are listed
    assert "unknown.wav" not in html


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
    assert "None." in html
