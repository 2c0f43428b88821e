"""The paper's results from tiny data sets in the layout of FMA, MUSAN and AIR."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from job_runs import run_job

from grafp import storage
from grafp.evaluation import paper
from pipelines.common import cli
from pipelines.jobs import reproduce
from pipelines.reproducing.plan import MODEL_NAMES, RESULTS, SCALES, plan, training_settings

Folders = dict[str, str]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("paper")
    music = datasets.fma(root, datasets.fma_rows(range(2, 62)), subset="small", seconds=4.0)
    noise, rir = datasets.musan(root, noises=20), datasets.air(root)
    return {"--fma": str(music), "--musan": str(noise), "--air": str(rir)}


def run(
    folders: Folders, out: Path, capsys: pytest.CaptureFixture, *more: str, **others: str
) -> tuple[int, dict[str, Any], str]:
    given = folders | {f"--{name}": value for name, value in others.items()}
    words = [word for pair in given.items() for word in pair]
    return run_job(reproduce, capsys, *words, "--out", str(out), "--scale", "tiny", *more)


@pytest.mark.slow
def test_all_results_are_made_and_a_run_continues(
    folders: Folders, tmp_path: Path, ray_here: None, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    code, summary, errors = run(folders, out, capsys)
    assert code == cli.DONE, errors
    lengths, ratios = len(SCALES["tiny"].seconds), len(SCALES["tiny"].snr_db)
    # Three methods in two conditions; two methods, each with real and invented tracks.
    table_3 = 2 * (2 * ratios + ratios)
    assert summary["cells"] == {
        "table-2": 3 * 2 * lengths * ratios, "table-3": table_3, "figure-2": 4 * 2 * 2,
    }  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    for one in report["measured"]:
        assert all(rate["total"] == SCALES["tiny"].queries for rate in one["cells"].values())
    invented = [one for one in report["measured"] if one["invented"]]
    assert {(one["tracks"], one["invented"]) for one in invented} == {(24, 12)}
    by_offset = {one["offset_ms"]: one for one in report["measured"] if one["result"] == "figure-2"}
    assert [by_offset[ms]["hop_s"] for ms in paper.FIGURE_2_OFFSETS_MS] == [0.1, 0.2, 0.25, 0.5]
    sizes = [by_offset[ms]["fingerprints"] for ms in paper.FIGURE_2_OFFSETS_MS]
    assert sizes == sorted(sizes, reverse=True)
    offsets = {one["name"]: one["offset_ms"] for one in report["models"]}
    assert offsets["grafprint-250"] == 250.0
    assert {one["pairs"] for one in report["models"]} == {3 * 4}
    html = (out / "report.html").read_text()
    for text in ("Table II", "Table III", "Fig. 2", "TE + HT", "63.9", "42.7", "27.7", "<svg"):
        assert text in html

    # As after a kill: what has a record is not done again, and what has none is.
    (out / "steps" / "evaluations-figure-2-250.json").unlink()
    (out / "steps" / "catalogs-database-nafp.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in (out / "steps").iterdir()}
    code, again, errors = run(folders, out, capsys)
    assert code == cli.DONE, errors
    left = {one["step"] for one in again["estimate"]}
    assert left == {"catalogs-database-nafp", "evaluations-figure-2-250"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((out / "report.json").read_text()) == report

    model = f"grafprint={out}/models/grafprint-100/model"
    code, _, errors = run(folders, out, capsys, "--table", "2", "--model", model)
    assert code == cli.BAD_ARGUMENTS
    assert "catalogs-database-grafprint was made with model" in errors


def test_a_dry_run_estimates_and_writes_nothing(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    code, summary, errors = run(folders, out, capsys, "--dry-run", "--figure", "2")
    assert code == cli.DONE, errors
    assert not out.exists()
    names = [one["step"] for one in summary["estimate"]]
    offsets = ("", "-100", "-125", "-250")
    assert names == [
        "data",
        *(f"models-grafprint{offset}" for offset in offsets),
        *(f"catalogs-database-grafprint{offset}" for offset in offsets),
        *(f"evaluations-figure-2-{offset}" for offset in paper.FIGURE_2_OFFSETS_MS),
    ]
    assert sum(one["gb"] for one in summary["estimate"]) > 0
    model = ["--model", "grafprint-250=small", "--model", "grafprint=small"]
    _, given, _ = run(folders, out, capsys, "--dry-run", "--figure", "2", *model)
    left = {one["step"] for one in given["estimate"]}
    assert left == set(names) - {"models-grafprint", "models-grafprint-250"}


@pytest.mark.parametrize(
    ("others", "more", "reason"),
    [
        ({"fma": "musan"}, "", "not FMA, which has audio such as 000/000002.mp3"),
        ({"fma": "fma_metadata"}, "", "has FMA's metadata, but no audio"),
        ({"fma": "alone/bare"}, "", "no fma_metadata/tracks.csv"),
        ({}, "--scale large", "tracks of FMA's subset medium are missing"),
        ({}, "--scale medium", "albums to train on; a batch of nafp takes 128"),
        ({"air": "matlab"}, "", "other.mat: not a response of AIR"),
        ({"air": "one"}, "", "none of its 1 recordings is of the split test"),
        ({"musan": "one"}, "", "none of its 1 recordings is of the split test"),
        ({"musan": "nowhere"}, "", "not found"),
        ({}, "--model nafp=nowhere", "nowhere: not a model bundle"),
        ({}, "--model best=small", "--model best=small: best is no model"),
        ({}, "--model ast=small --figure 2", "ast is not needed for these results"),
        ({}, "--num-workers 3", "--num-workers 3: does not divide a batch of 4 pairs evenly"),
    ],
)
def test_what_cannot_work_is_one_line_before_any_work(
    others: dict[str, str], more: str, reason: str,
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    wrong = tmp_path / "wrong"
    storage.write(f"{wrong}/alone/bare/000/000002.mp3", b"x")
    storage.write(f"{wrong}/matlab/other.mat", b"x")
    storage.write(f"{wrong}/one/only.wav", b"x")
    storage.write(f"{wrong}/fma_metadata/tracks.csv", datasets.fma_metadata([]))
    places = {"musan": folders["--musan"]}
    given = {name: places.get(value, f"{wrong}/{value}") for name, value in others.items()}
    out = tmp_path / "out"
    code, _, errors = run(folders, out, capsys, *more.split(), **given)
    assert code != cli.DONE
    [line] = errors.splitlines()
    assert line.startswith("error: ")
    assert reason in line
    for name in others:
        assert f"--{name} " in line
    assert not out.exists()


def test_the_paper_s_scale_is_the_paper_s() -> None:
    large = SCALES["large"]
    assert {name: part.subset for name, part in large.splits.items()} == {
        "train": "small", "database": "medium", "larger": "large",
    }  # fmt: skip
    assert large.queries == 2000
    design = plan(RESULTS, "large")
    assert set(design.models) == set(MODEL_NAMES)
    settings = training_settings("grafprint", large)
    assert (settings["epochs"], settings["pairs"], settings["offset_ms"]) == (400, 256, 50.0)
    assert training_settings("ast", large)["pairs"] == 512
    gap = paper.TABLE_2[paper.GRAFPRINT]
    assert gap[True, 2.0][0] - gap[True, 1.0][0] == pytest.approx(paper.FIGURE_2_GAPS[50])


def test_each_result_can_be_made_alone() -> None:
    for result in RESULTS:
        design = plan([result], "medium")
        assert {one.result for one in design.evaluations} == {result}
        assert {one.catalog for one in design.evaluations} == set(design.catalogs)
        assert ("larger" in design.splits) == (result == "table-3")
