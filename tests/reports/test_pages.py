"""Reports escape hostile names, load nothing, and show values where they belong."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_runs import name_of, report_after, summary_of
from jinja2 import UndefinedError
from pages import Tables, loads_nothing

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, StoredFile
from grafp.evaluation.failures import Case
from grafp.evaluation.hit_rates import ClipAnswer, Scale
from grafp.evaluation.protocol import Clip, draw_clips
from grafp.reports.catalog_run import run_report
from grafp.reports.evaluation import evaluation_report
from grafp.reports.pages import render

NASTY = "<script>alert('x')</script> & \"ä\".wav"
FACTS = {"catalog": NASTY, "protocol": "field", "clips": 1234, "withdrawn": 2}


def answer(clip: Clip, track: str, **values: Any) -> ClipAnswer:
    known = ClipAnswer(
        query=f"clip {clip.number}", track=track, start_s=1.0, score=0.9, matched=True,
        error=None, true_track=clip.track, true_start_s=1.0, threshold=0.5,
        false_positive_rate=1e-4, best_wrong=NASTY, best_wrong_score=0.2,
    )  # fmt: skip
    return replace(known, **values)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return draw_clips([NASTY], seconds=[1.0, 2.0], snr_db=[0.0, 5.0], queries=4, seed=0)


@pytest.fixture(scope="module")
def answers(clips: list[Clip]) -> list[ClipAnswer]:
    """Right unless the ratio is 0 dB, where half of the clips are named wrongly."""
    return [
        answer(clip, "b" if clip.snr_db == 0.0 and clip.number % 16 < 8 else NASTY)
        for clip in clips
    ]


def test_an_evaluation_shows_its_numbers(clips: list[Clip], answers: list[ClipAnswer]) -> None:
    picture_FT = np.ones((64, 32), np.float32)
    cases = [Case(clips[0], answers[0], [("the clip", picture_FT)])]
    report = evaluation_report(clips, answers, FACTS, [], cases)
    loads_nothing(report)
    rows = Tables(report).rows
    assert ["1 s", "within 50 ms", *(["50.0 15.0 to 85.0", "100.0 51.0 to 100.0"] * 2)] in [
        [re.sub(r"(\d\.\d)(\d+\.\d to)", r"\1 \2", cell) for cell in row] for row in rows
    ]
    assert ["right track", "50.0", "100.0", "50.0", "100.0"] in rows
    assert ["paper, 50 ms", "63.9", "83.6", "52.3", "68.1"] in rows
    assert ["catalog", NASTY] in rows
    assert ["clips", "1,234"] in rows
    assert ["removed", "2"] in rows
    assert "75.0 %" in report
    assert "&lt;script&gt;" in report
    assert "Truth: &lt;script&gt;alert" in report
    assert "Answer: b at 1.00 s, score 0.900, accepted (threshold 0.50)" in report
    assert report.count('src="data:image/webp;base64,') == 1
    assert "No clips of unknown recordings" in report
    assert "In a larger catalog" not in report
    assert report == evaluation_report(clips, answers, FACTS, [], cases)


def test_an_evaluation_with_unknown_clips_and_larger_catalogs(
    clips: list[Clip], answers: list[ClipAnswer]
) -> None:
    unknown = [answer(clip, "b", true_track=None, score=0.6) for clip in clips]
    unknown[0] = replace(unknown[0], track=None, start_s=None, score=None, matched=False)
    many, found = [*clips, *clips], [*answers, *unknown]
    few = [n for n, clip in enumerate(many) if clip.reverb and clip.seconds == 1.0]
    scales = [
        Scale.of(n, 2, 1000, [many[i] for i in few], [found[i] for i in few], lambda _: True)
        for n in (0, 10)
    ]
    facts = {**FACTS, "protocol": "paper"}
    report = evaluation_report(many, found, facts, scales, [])
    loads_nothing(report)
    rows = Tables(report).rows
    assert ["unknown accepted", "75.0", "100.0", "100.0", "100.0"] in rows
    larger = next(row for row in rows if row[0].startswith("12 tracks"))
    assert larger[-1].endswith("; expected 90.9")
    assert "Protocol <b>paper</b>" in report
    assert "Detection trade-off" in report
    assert "There are none: every known clip has the right answer" in report


FILE = StoredFile("tracks", 0, "")


def test_a_run_s_report_shows_failures_and_lineage() -> None:
    counts = {"tracks": 1200, "copies": 3, "fingerprints": 5, "failed": 1, "withdrawn": 7}
    manifest = Manifest(
        snapshot="s1", parent=None, created="today", model_id=NASTY, model_sha256="", hop_s=0.1,
        calibration=None, trained_index=None, parameters=None, when_trained={"recall": 0.95},
        layers=[], tracks=FILE, positions=FILE, gone=FILE, next_ordinal=0, counts=counts,
    )  # fmt: skip
    summary = dict.fromkeys(("added", "changed", "retried", "failed", "resumed"), 1)
    summary |= {"withdrawn": 4321, "seconds": 3600.0, "audio_hours": 2.0, "embedded": 1}
    summary |= {"near_duplicates_looked_for": 1, "planned_core_hours": 0.0123, "core_hours": 0.2}
    summary |= {"planned_stored_mb": 1234.5, "stored_mb": 1300.0}
    summary["failures"] = [{"uri": NASTY, "kind": None, "reason": "<b>bad</b>"}]
    pair = {"track": NASTY, "track_start_s": 1.0, "same_as": "b", "same_as_start_s": 2.0}
    catalog = Catalog("nowhere", manifest)
    report = run_report(catalog, summary, [{**pair, "score": 0.9}])
    loads_nothing(report)
    rows = Tables(report).rows
    assert ["Tracks that can be found", "1,200"] in rows
    assert ["Removed by name", "7"] in rows
    assert ["CPU hours, planned / taken", "0.0123 / 0.2"] in rows
    assert ["Stored, planned / taken", "1,234.5 / 1,300.0 MB"] in rows
    assert ["Speed", "2 x real time"] in rows
    assert ["Recall of probes, now / when trained", "- / 0.950"] in rows
    assert ["Model", NASTY] in rows
    assert [NASTY, "<b>bad</b>"] in rows
    assert ["?", "1"] in rows
    assert [NASTY, "1.0", "b", "2.0", "0.900"] in rows
    assert ["s1", "today", "1,200", "5"] in rows
    assert "has no calibration" in report
    assert "<b>4,321</b><h3>removed</h3>" in report


def test_a_run_s_report_shows_past_runs(tmp_path: Path) -> None:
    """As far as their summaries can be read, and none that came later."""
    whole = summary_of(1)
    wrong: list[Any] = [{"seconds": None}, {"tracks": "many"}, {"failed": math.nan}, {"added": -1}]
    texts = ["{", "[]", '{"tracks": 1}', *(json.dumps(whole | one) for one in wrong)]
    for number, damaged in enumerate(texts):
        storage.write(f"{tmp_path}/runs/2025-{number}/summary.json", damaged.encode())
    storage.write(f"{tmp_path}/runs/2027/summary.json", json.dumps(whole).encode())
    report = report_after(3, str(tmp_path))
    loads_nothing(report)
    assert "The last 3 runs" in report
    assert "2025-" not in report
    assert "2027" not in report
    for tip in ("120", "252,000", "2.5", "7.5", "2 removed", "0 changed"):  # 7.5 x real time
        assert f"<title>{name_of(3)}: {tip}</title>" in report
    assert f"<title>{name_of(1)}: 40</title>" in report
    rows = Tables(report).rows
    numbers = ["120", "252,000", "40", "0", "2", "3", "2.5", "1,200", "7.5"]
    assert ["0", name_of(3), *numbers] in rows
    assert ["-2", name_of(1), "40", "84,000", "40", "1", "2", "1", "2.5", "3,600", "2.5"] in rows


def test_a_first_run_has_no_charts(tmp_path: Path) -> None:
    assert "<svg" not in report_after(1, str(tmp_path))
    report = report_after(2, str(tmp_path))
    assert report.count("<svg") == 8
    ticks = [place for place in ("-1", "-0.75", "-0.5", "0") if f">{place}</text>" in report]
    assert ticks == ["-1", "0"]


def test_a_name_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="counts"):
        render("answers.html", title="t", queries=1)
