"""The report of the paper's results: our cells beside the paper's, from numbers made up here."""

from dataclasses import replace

import pytest
from pages import Tables, loads_nothing

from grafp.evaluation import paper
from grafp.evaluation.hit_rates import cell_name
from grafp.evaluation.metrics import Rate
from grafp.evaluation.reproduced import Measured, Trained
from grafp.reports.reproduction import reproduction_report

NASTY = '<b>a</b> & "b"'
GRAPH = Trained("grafprint", "uri", NASTY, "grafprint", 18_300_000, 3, 12, 24, 50.0, False)
MODELS = [GRAPH, replace(GRAPH, name="nafp", steps=None, pairs=None, tracks=None, is_given=True)]


def measured(result: str, row: str, offset_ms: int = 50, **values: object) -> Measured:
    cells = {
        cell_name(reverb, seconds, ratio): Rate(1, 4)
        for reverb in (False, True) for seconds in (1.0, 2.0) for ratio in (0.0, 20.0)
    }  # fmt: skip
    within = {"noise + reverb, 1 s": Rate(1, 4), "noise + reverb, 2 s": Rate(2, 4)}
    one = Measured(
        result=result, row=row, offset_ms=offset_ms, model="grafprint", invented=None, tracks=1200,
        fingerprints=1000, hop_s=offset_ms / 500, index_bytes=1_000_000, vectors_bytes=500_000,
        cells=cells, within=within,
    )  # fmt: skip
    return replace(one, **values)


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    sizes = dict(zip(paper.FIGURE_2_OFFSETS_MS, (1_500_000, 750_000, 600_000, 300_000)))
    everything = [
        measured("table-2", "NAFP"),
        measured("table-2", paper.GRAFPRINT),
        measured("table-3", paper.GRAFPRINT),
        measured("table-3", paper.GRAFPRINT, invented=600),
        *(
            measured("figure-2", paper.GRAFPRINT, ms, index_bytes=size, vectors_bytes=0)
            for ms, size in sizes.items()
        ),
    ]
    report = reproduction_report("tiny", everything, MODELS)
    loads_nothing(report)
    assert "and nothing else" in report
    assert report.count("<svg") == 2 * 2 + 1 + 2  # two conditions and lengths; Table III; Fig. 2
    assert report == reproduction_report("tiny", everything, MODELS)
    return Tables(report).rows


OURS = "25.04.6 to 69.9"  # 1 of 4, with its interval below


def test_table_2_has_the_paper_s_numbers_below_ours(rows: list[list[str]]) -> None:
    first = next(n for n, row in enumerate(rows) if row[:2] == ["1 s", "NAFP"])
    assert rows[first] == ["1 s", "NAFP", "ours", *[OURS, "", "", "", OURS] * 2]
    assert rows[first + 1] == [
        "paper", "50.7", "69.7", "73.7", "76.0", "76.9", "20.8", "43.9", "55.5", "58.5", "58.9",
    ]  # fmt: skip
    assert ["TE + HT", "ours", "not here: see below"] in rows
    assert sum(row[0] == "paper" for row in rows) == 4 * 4


def test_table_3_tells_real_tracks_from_invented_ones(rows: list[list[str]]) -> None:
    ours = [OURS, "", "", "", OURS]
    assert ["GraFPrint, real tracks", *ours] in rows
    assert ["GraFPrint, with invented tracks", *ours] in rows
    assert ["AST + IVFPQ, paper", "22.2", "26.7", "29.3", "37.0", "40.8"] in rows


def test_figure_2_has_gaps_and_storage(rows: list[list[str]]) -> None:
    found = {row[0]: row for row in rows if row and row[0].endswith(" ms")}
    two = "50.015.0 to 85.0"
    assert found["50 ms"] == [
        "50 ms", "0.1 s", "90 %", OURS, "52.3", two, "80.0", "25.0", "27.7", "1,000", "1.50", "100",
    ]  # fmt: skip
    assert found["250 ms"] == [
        "250 ms", "0.5 s", "50 %", OURS, "", two, "", "25.0", "13.2", "1,000", "0.30", "20",
    ]  # fmt: skip


def test_it_says_what_the_numbers_are_based_on(rows: list[list[str]]) -> None:
    assert ["grafprint", "grafprint", "18,300,000", "3", "12", "24", "50", NASTY] in rows
    assert ["nafpgiven", "grafprint", "18,300,000", "?", "?", "?", "50", NASTY] in rows
    assert ["table-3", "GraFPrint", "grafprint", "1,200", "600", "1,000", "4"] in rows


def test_a_part_of_the_results_has_no_empty_sections() -> None:
    report = reproduction_report("large", [measured("table-3", paper.GRAFPRINT)], [GRAPH])
    assert "<h2>Table III</h2>" in report
    assert "<h2>Table II</h2>" not in report
    assert "<h2>Fig. 2</h2>" not in report
