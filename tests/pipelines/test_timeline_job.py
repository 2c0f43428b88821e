"""A made-up programme and bad recordings through `query_batch.py --timeline`."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_runs import run_job
from pages import Tables, loads_nothing

from grafp import storage
from grafp.audio import SAMPLE_RATE, encode, synthesis
from grafp.matches import MATCH_SCHEMA
from grafp.reports.timeline import clock
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import query_batch
from pipelines.querying.timeline import timeline_batch

pytestmark = pytest.mark.usefixtures("ray_here")


def between(samples_S: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    return samples_S[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]


@pytest.mark.slow
def test_a_programme_and_bad_recordings(tmp_path: Path, capsys, monkeypatch) -> None:
    """Five detections in 86 s, decoded in three chunks: one across a seam, one heard twice."""
    monkeypatch.setattr("pipelines.querying.timeline._CHUNK_SECONDS", 40.0)
    pieces = [synthesis.piece(seed, 25.0) for seed in range(3)]
    (tmp_path / "music").mkdir()
    for number, piece_S in enumerate(pieces):
        (tmp_path / "music" / f"piece {number}.flac").write_bytes(encode(piece_S, "flac"))
    root, radio, out = (str(tmp_path / name) for name in ("catalog", "radio", "out"))
    index_catalog(str(tmp_path / "music"), root, encoders=Encoders(0))

    silence_S = np.zeros(8 * SAMPLE_RATE, np.float32)
    programme_S = np.concatenate(
        [
            between(pieces[0], 5.0, 20.0),  # 0 to 15 s
            synthesis.piece(99, 10.0),
            between(pieces[1], 2.0, 23.0),  # 25 to 46 s
            silence_S,
            between(pieces[0], 5.0, 20.0),  # 54 to 69 s
            0.3 * synthesis.noise(1, 5.0),
            between(pieces[2], 10.0, 22.0),  # 74 to 86 s
        ]
    )
    programme_S = programme_S + 0.02 * synthesis.noise(2, len(programme_S) / SAMPLE_RATE)
    for name, data in {
        'one "hour" é.flac': encode(programme_S, "flac"),
        "nothing known.wav": encode(synthesis.piece(98, 15.0), "wav"),
        "silent.flac": encode(np.tile(silence_S, 12), "flac"),
        "truncated.flac": encode(programme_S, "flac")[:-20_000],
        "too long.flac": encode(np.tile(programme_S, 2), "flac"),
    }.items():
        storage.write(storage.join(radio, name), data)

    code, summary, _ = run_job(
        query_batch, capsys, "--timeline", "--catalog", root, "--queries", radio, "--out", out,
        "--max-seconds", "100", "--report",
    )  # fmt: skip
    assert code == cli.DONE
    counts = [summary[name] for name in ("queries", "matched", "unmatched", "errors", "plays")]
    assert counts == [5, 1, 1, 3, 4]
    table = pq.read_table(io.BytesIO(storage.read(storage.join(out, "matches.parquet"))))
    assert table.schema == MATCH_SCHEMA
    rows = table.to_pylist()
    detections = [row for row in rows if row["matched"]]
    assert [row["rank"] for row in detections] == [1, 2, 3, 4]
    assert [Path(row["track"]).stem[-1] for row in detections] == list("0102")
    for row, (start_s, end_s, place_s) in zip(
        detections, [(0, 15, 5), (25, 46, 2), (54, 69, 5), (74, 86, 10)], strict=True
    ):
        assert row["query_start_s"] == pytest.approx(start_s, abs=0.6)
        assert row["query_end_s"] == pytest.approx(end_s, abs=0.6)
        moved_s = row["query_start_s"] - start_s
        assert row["track_start_s"] - moved_s == pytest.approx(place_s, abs=0.05)
        assert row["score"] >= row["threshold"]

    others = {Path(row["query"]).name: row for row in rows if not row["matched"]}
    assert others["nothing known.wav"]["error"] is None
    assert others["nothing known.wav"]["query_end_s"] == pytest.approx(15.0)
    assert "silent" in others["silent.flac"]["error"]
    assert (
        "cut off" in others["truncated.flac"]["error"]
        or "holds" in others["truncated.flac"]["error"]
    )
    assert "longer than the limit of 100 s" in others["too long.flac"]["error"]

    sheets = {Path(file.uri).name for file in storage.list_files(out, (".cue",))}
    assert sheets == {"one _hour_ é.cue", "nothing known.cue"}
    sheet = storage.read(storage.join(out, "one _hour_ é.cue")).decode()
    assert sheet.startswith("FILE \"one 'hour' é.flac\" WAVE\n")
    titles = [line.split('"')[1] for line in sheet.splitlines() if "TITLE" in line]
    known = [f"piece {n}" for n in (0, 1, 0, 2)]
    assert titles == [known[0], "unknown", known[1], "unknown", known[2], "unknown", known[3]]

    page = storage.read(storage.join(out, "report.html")).decode()
    loads_nothing(page)
    shown = Tables(page).rows
    listed = [row for row in shown if row[0].isdigit()]
    assert [row[3].strip() for row in listed] == [f"piece {n}.flac" for n in (0, 1, 0, 2)]
    assert [row[1] for row in listed] == [clock(row["query_start_s"]) for row in detections]
    assert ["silent.flac", others["silent.flac"]["error"]] in shown
    assert "<b>4</b><h3>detections</h3>" in page
    assert "<b>3</b><h3>different tracks</h3>" in page
    assert page.count('<div class="strip">') == 2


def test_no_recordings_is_an_empty_table(tmp_path: Path, music: Path) -> None:
    root, empty = str(tmp_path / "catalog"), tmp_path / "empty"
    index_catalog(str(music), root, encoders=Encoders(0))
    empty.mkdir()
    summary, table = timeline_batch(root, str(empty), str(tmp_path / "out"))
    assert (summary["queries"], table.num_rows) == (0, 0)


@pytest.mark.parametrize("other", [["--truth", "truth.csv"], ["--top-k", "2"]])
def test_options_that_make_no_sense_with_a_timeline(other: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        query_batch.options(
            ["--timeline", "--catalog", "c", "--queries", "q", "--out", "o", *other]
        )
    assert stopped.value.code == cli.BAD_ARGUMENTS
    assert "--timeline" in capsys.readouterr().err


def test_the_limit_of_length_is_a_day_for_timelines() -> None:
    required = ["--catalog", "c", "--queries", "q", "--out", "o"]
    assert query_batch.options(required).max_seconds == 3 * 3600
    assert query_batch.options([*required, "--timeline"]).max_seconds == 24 * 3600
    assert query_batch.options([*required, "--timeline", "--max-seconds", "9"]).max_seconds == 9
