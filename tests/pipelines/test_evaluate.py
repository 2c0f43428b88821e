"""The evaluation job: a grid of clips over real audio, known and unknown, with a report."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.evaluation.hashing import HashSearch
from grafp.evaluation.hit_rates import TOLERANCES_S, granularity, grid, markdown
from grafp.evaluation.metrics import Answer
from grafp.index.search import IndexSearch
from pipelines.common import cli
from pipelines.common.opening import AnySearch, search_for_queries
from pipelines.common.work import Encoders
from pipelines.evaluating.distractors import is_distractor
from pipelines.indexing.flow import index_catalog
from pipelines.indexing.maintain import verify
from pipelines.jobs import evaluate


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("evaluation")
    for kind, seeds in {"music": range(4), "unknown": range(50, 52)}.items():
        for seed in seeds:
            data = encode(synthesis.piece(seed, 10.0), "flac")
            storage.write(f"{folder}/{kind}/{seed}.flac", data)
    for seed in range(5):  # 3, 4 and broken are for evaluation
        storage.write(f"{folder}/noise/{seed}.wav", encode(synthesis.noise(seed, 5.0), "wav"))
        storage.write(f"{folder}/rirs/{seed}.wav", encode(synthesis.impulse_response(seed), "wav"))
    storage.write(f"{folder}/noise/broken.wav", b"no noise")
    storage.write(f"{folder}/unknown/broken.flac", b"no music")
    index_catalog(f"{folder}/music", f"{folder}/catalog", encoders=Encoders(0))
    kinds = ("music", "unknown", "noise", "rirs", "catalog", "out")
    return {kind: f"{folder}/{kind}" for kind in kinds}


def arguments(folders: dict[str, str], **others: str) -> list[str]:
    chosen = {
        "--catalog": folders["catalog"], "--audio": folders["music"], "--noise": folders["noise"],
        "--rir": folders["rirs"], "--out": folders["out"], "--seconds": "3,1", "--snr": "30",
        "--queries": "8", "--workers": "1",
    } | others  # fmt: skip
    return [part for option in chosen.items() for part in option]


def test_the_grid_and_its_report(folders: dict[str, str], capsys: pytest.CaptureFixture) -> None:
    chosen = evaluate.options(arguments(folders, **{"--unknown": folders["unknown"]}))
    assert cli.run(evaluate.main, chosen) == cli.DONE
    shown = capsys.readouterr().out
    summary = json.loads(shown.splitlines()[-1])
    assert "broken.wav" in shown
    assert set(summary["cells"]) == {
        f"{condition}, {length} s, 30 dB"
        for condition in ("noise", "noise + reverb")
        for length in (1, 3)
    }
    clear = summary["cells"]["noise, 3 s, 30 dB"]
    assert clear["hit_track"] == clear["hit_track"] | {"hits": 8, "total": 8}
    assert clear["hit_50ms"]["hits"] >= 7
    rows = pq.read_table(f"{folders['out']}/clips.parquet").to_pylist()
    assert len(rows) == summary["queries"]
    unknown = {Path(row["source"]).name for row in rows if row["true_track"] is None}
    assert unknown <= {"50.flac", "51.flac"}
    assert unknown
    html = Path(folders["out"], "report.html").read_text()
    assert "<svg" in html
    assert "paper" in html
    report = json.loads(Path(folders["out"], "report.json").read_text())
    assert report["unknown recordings"] == 3
    assert report["cells"] == summary["cells"]
    assert report["protocol"] == "field"
    assert report["search"] == "the catalog's index"
    within = report["within"]["noise, 3 s"]
    assert within["50 ms"] == clear["hit_50ms"]
    assert within["250 ms"]["total"] == 8
    starts = {row["true_start_s"] for row in rows}
    assert any(abs(start * 10 - round(start * 10)) > 1e-3 for start in starts)
    others = [row for row in rows if row["best_wrong"]]
    assert others
    for row in others:
        assert row["best_wrong"] != row["source"]
        if row["track"] != row["source"]:
            assert (row["track"], row["score"]) == (row["best_wrong"], row["best_wrong_score"])


@pytest.mark.slow
def test_hashes_find_the_tracks_too_and_the_report_says_so(
    folders: dict[str, str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def search(*catalog: Any, method: type[IndexSearch], **options: Any) -> AnySearch:
        used.append(method)
        return search_for_queries(*catalog, method=method, **options)

    monkeypatch.setattr("pipelines.querying.flow.search_for_queries", search)
    wanted = {"--search": "lsh", "--queries": "4", "--seconds": "3"}
    assert cli.run(evaluate.main, evaluate.options(arguments(folders, **wanted))) == cli.DONE
    assert used == [HashSearch]
    clear = json.loads(capsys.readouterr().out.splitlines()[-1])["cells"]["noise, 3 s, 30 dB"]
    assert clear["hit_track"]["hits"] == 4
    report = json.loads(Path(folders["out"], "report.json").read_text())
    assert report["search"] == "LSH, 256 bits"
    assert "LSH, 256 bits" in Path(folders["out"], "report.html").read_text()


@pytest.mark.slow
def test_clips_may_have_fingerprints_as_seldom_as_the_catalog(
    folders: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    """A clip of 1.9 s: 10 fingerprints every 0.1 s, 2 every 0.5 s, of which both are used."""
    coarse = f"{folders['catalog']}-coarse"
    index_catalog(folders["music"], coarse, hop_s=0.5, encoders=Encoders(1))
    numbers = {}
    for query_hop in ("fine", "catalog"):
        wanted = {"--query-hop": query_hop, "--catalog": coarse, "--seconds": "1.9"}
        wanted |= {
            "--protocol": "paper",
            "--queries": "4",
            "--out": f"{folders['out']}-{query_hop}",
        }
        assert cli.run(evaluate.main, evaluate.options(arguments(folders, **wanted))) == cli.DONE
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert summary["cells"]["noise, 1.9 s, 30 dB"]["hit_track"]["hits"] == 4
        rows = pq.read_table(f"{wanted['--out']}/clips.parquet").to_pylist()
        assert all(row["true_start_s"] % 0.5 == 0 for row in rows)
        right = [row for row in rows if row["track"] == row["true_track"] and not row["reverb"]]
        assert all(abs(row["start_s"] - row["true_start_s"]) < 0.25 for row in right)
        numbers[query_hop] = [row["score"] for row in rows]
        report = json.loads(Path(wanted["--out"], "report.json").read_text())
        assert (report["hop_s"], report["query_hop"]) == (0.5, query_hop)
    assert numbers["fine"] != numbers["catalog"]


@pytest.mark.slow
def test_the_papers_protocol_and_a_larger_catalog(
    folders: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    wanted = {"--protocol": "paper", "--distractors": "6", "--queries": "4"}
    chosen = evaluate.options(arguments(folders, **wanted))
    assert cli.run(evaluate.main, chosen) == cli.DONE
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = pq.read_table(f"{folders['out']}/clips.parquet").to_pylist()
    assert all(abs(r["true_start_s"] * 10 - round(r["true_start_s"] * 10)) < 1e-6 for r in rows)
    real, scaled = summary["scales"]
    assert (real["tracks"], scaled["tracks"], scaled["distractors"]) == (4, 10, 6)
    assert scaled["fingerprints"] == real["fingerprints"] * 10 // 4
    [(name, rates)] = real["cells"].items()
    assert name == "noise + reverb, 1 s, 30 dB"
    assert rates == summary["cells"][name]
    assert scaled["cells"][name]["hit_track"]["total"] == 4
    assert scaled["best_wrong_is_distractor"]["total"] <= 4
    source = Catalog.open_published(folders["catalog"])
    assert source.manifest
    larger = Catalog.open_published(f"{folders['out']}/scaled-6/{source.manifest.snapshot}")
    uris = set(larger.tracks()["uri"].to_pylist())
    assert sum(is_distractor(uri) for uri in uris) == 6
    assert verify(larger.root)["damaged"] == 0
    html = Path(folders["out"], "report.html").read_text()
    assert "Protocol <b>paper</b>" in html
    assert "In a larger catalog" in html


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"--audio": "noise"}, "none of it is in the catalog"),
        ({"--unknown": "music"}, "is in the catalog"),
        ({"--seconds": "20"}, "no recording is longer than 20 s"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    options: dict[str, str], reason: str, folders: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    given = {name: folders.get(value, value) for name, value in options.items()}
    assert (
        cli.run(evaluate.main, evaluate.options(arguments(folders, **given))) == cli.BAD_ARGUMENTS
    )
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0.5", "1,,2", "loud", "1,nan"])
def test_a_wrong_list_is_named(value: str, folders: dict[str, str], capsys) -> None:
    with pytest.raises(SystemExit):
        evaluate.options(arguments(folders, **{"--seconds": value}))
    assert "--seconds" in capsys.readouterr().err


def test_cells_count_what_belongs_to_them() -> None:
    from grafp.evaluation.protocol import draw_clips

    clips = draw_clips(["a", "b"], seconds=[1.0, 2.0], snr_db=[0.0, 5.0], queries=10, seed=3)
    answers = [
        Answer(
            query=str(clip.number), track="a", start_s=clip.position, score=0.9, matched=True,
            error=None, true_track=clip.track if clip.seconds == 1.0 else None,
            true_start_s=clip.position + (0.06 if clip.snr_db == 0.0 else 0.04),
            false_positive_rate=None,
        )
        for clip in clips
    ]  # fmt: skip
    cells = grid(clips, answers)
    assert len(cells) == 8
    share = sum(clip.track == "a" for clip in clips) / len(clips)
    for cell in cells:
        rates = {name: rate.value for name, rate in cell.rates.items() if rate.total}
        if cell.seconds == 2.0:
            assert rates == {"false_positive": 1.0}
        else:
            assert rates["hit_track"] == share
            assert rates["hit_50ms"] == (0.0 if cell.snr_db == 0.0 else share)
    assert markdown(cells).count("\n") == 2 * 5 - 1
    for within in granularity(clips, answers).values():  # half of the clips are 60 ms off
        assert [within[t].value for t in TOLERANCES_S] == [share / 2, share, share, share]
