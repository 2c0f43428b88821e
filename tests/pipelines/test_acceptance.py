"""Which answers are accepted, and at which speed music plays: one catalog of four tracks."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from job_runs import run_job
from logged import logged

from grafp import storage
from grafp.audio import SAMPLE_RATE, encode, synthesis
from grafp.audio.speed import change_speed
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import FORMAT_VERSION, Manifest
from grafp.errors import CatalogError, ModelError
from grafp.model.background import FILE, LENGTHS_S, background_to_bytes
from grafp.model.bundle import SHIPPED
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing import maintain
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import query_batch
from pipelines.querying.flow import query_batch as ask
from pipelines.querying.timeline import timeline_batch

pytestmark = pytest.mark.usefixtures("ray_here", "calibration")
SECONDS, FASTER = 24.0, 1.04


def at_speed(samples_S: np.ndarray, speed: float) -> np.ndarray:
    """The same music, tempo and pitch together, until it ends."""
    rate_11 = torch.tensor([[speed]])
    played_S = change_speed(torch.from_numpy(samples_S)[None], rate_11, 0.0)[0].numpy()
    return played_S[: int(len(samples_S) / speed)]


def between(samples_S: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    return samples_S[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]


@pytest.fixture(scope="module")
def pieces() -> list[np.ndarray]:
    return [synthesis.piece(seed, SECONDS) for seed in range(4)]


@pytest.fixture(scope="module")
def root(
    pieces: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory, calibration: None
) -> str:
    folder = tmp_path_factory.mktemp("acceptance")
    for number, piece_S in enumerate(pieces):
        storage.write(f"{folder}/music/{number}.wav", encode(piece_S, "wav"))
    index_catalog(f"{folder}/music", f"{folder}/catalog", encoders=Encoders(0))
    return f"{folder}/catalog"


@pytest.fixture(scope="module")
def clips(pieces: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clip as cataloged, one that is faster, and one of an unknown piece."""
    folder = str(tmp_path_factory.mktemp("clips"))
    for name, clip_S in {
        "plain": between(pieces[1], 5.0, 10.0),
        "faster": between(at_speed(pieces[2], FASTER), 4.0, 14.0),
        "unknown": synthesis.piece(77, 5.0),
    }.items():
        noise_S = synthesis.noise(1, len(clip_S) / SAMPLE_RATE)[: len(clip_S)]
        level = 0.1 * np.std(clip_S) / np.std(noise_S)
        storage.write(f"{folder}/{name}.wav", encode(clip_S + level * noise_S, "wav"))
    return folder


def asked(root: str, clips: str, out: Path, **how: Any) -> dict[str, dict]:
    _, table = ask(root, clips, str(out), encoders=Encoders(0), **how)
    return {Path(row["query"]).stem: row for row in table.to_pylist()}


def manifest_of(root: str) -> Manifest:
    manifest = Catalog.open_published(root).manifest
    assert manifest
    return manifest


@pytest.fixture(scope="module")
def answers(root: str, clips: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    return asked(root, clips, tmp_path_factory.mktemp("answers"))


def changed(root: str, folder: Path, **values: Any) -> str:
    """A copy of the catalog whose manifest says something else."""
    copy = str(folder / "catalog")
    shutil.copytree(root, copy)
    path = Path(copy, "snapshots", f"{manifest_of(root).snapshot}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return copy


def background_of(root: str) -> Path:
    return Path(root, "models", manifest_of(root).model_id, FILE)


def test_a_catalog_of_few_tracks_is_calibrated(root: str) -> None:
    calibration = manifest_of(root).calibration
    assert calibration
    assert set(calibration.by_length) == {f"{seconds:g}" for seconds in LENGTHS_S}
    assert calibration.fingerprints == manifest_of(root).counts["fingerprints"]
    assert calibration.in_catalog == 0
    page = storage.read(f"{root}/runs/{manifest_of(root).snapshot}/report.html").decode()
    assert page.count(" to ") == 5 * 3  # intervals of five lengths at three rates
    needed = [calibration.law(seconds).evidence(0.001) for seconds in (1.0, 5.0, 10.0)]
    assert needed == sorted(needed, reverse=True)
    assert background_of(root).read_bytes() == (SHIPPED / "small" / FILE).read_bytes()


def test_an_answer_has_its_rate_and_its_speed(answers: dict[str, dict]) -> None:
    plain, unknown = answers["plain"], answers["unknown"]
    assert (Path(plain["track"]).stem, plain["matched"], plain["speed"]) == ("1", True, 1.0)
    assert plain["track_start_s"] == pytest.approx(5.0, abs=0.05)
    assert 0 < plain["false_positive_rate"] < 1e-6
    assert not unknown["matched"]
    assert unknown["false_positive_rate"] > 0.001
    for row in answers.values():
        assert row["matched"] == (row["score"] >= row["threshold"])
        assert row["matched"] == (row["false_positive_rate"] <= 0.001)


def test_a_faster_clip_is_matched_with_its_speed(
    root: str, clips: str, answers: dict[str, dict], tmp_path: Path
) -> None:
    row = answers["faster"]
    assert (Path(row["track"]).stem, row["matched"]) == ("2", True)
    assert row["speed"] == pytest.approx(FASTER, abs=0.005)
    assert row["track_start_s"] == pytest.approx(4.0 * FASTER, abs=0.1)
    fixed = asked(root, f"{clips}/faster.wav", tmp_path / "fixed", max_speed_change=0.0)["faster"]
    assert fixed["speed"] in (None, 1.0)
    assert fixed["score"] < row["score"] - 0.05
    assert fixed["false_positive_rate"] > row["false_positive_rate"]


def test_a_snapshot_without_calibration_answers_by_score(
    root: str, clips: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bare = changed(root, tmp_path, calibration=None)
    background_of(bare).unlink()
    with logged() as lines:
        answers = asked(bare, clips, tmp_path / "out")
    assert sum("no calibration" in line for line in lines) == 1
    assert {row["false_positive_rate"] for row in answers.values()} == {None}
    assert [name for name in sorted(answers) if answers[name]["matched"]] == ["faster", "plain"]
    card = Catalog.open_published(bare).model()
    assert answers["plain"]["threshold"] == pytest.approx(card.min_score(5.0), abs=1e-6)
    code, _, stderr = run_job(
        query_batch, capsys, "--catalog", bare, "--queries", clips, "--out", str(tmp_path / "no"),
        "--fpr", "0.01",
    )  # fmt: skip
    assert code == cli.FAILED
    assert stderr.startswith("error: ")
    assert "--min-score" in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "no").exists()


def test_a_catalog_of_format_4_is_refused_with_a_way_on(
    root: str, clips: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    old = changed(root, tmp_path, format_version=4)
    code, _, stderr = run_job(
        query_batch, capsys, "--catalog", old, "--queries", clips, "--out", str(tmp_path / "out")
    )
    assert code == cli.FAILED
    assert stderr.startswith("error: ")
    assert f"catalog format 4; this version reads format {FORMAT_VERSION}; run " in stderr
    assert "grafp merge --catalog URI --upgrade" in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_background_of_another_model_is_one_line(
    root: str, clips: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = changed(root, tmp_path)
    background = Catalog.open_published(root).background()
    assert background
    background_of(copy).write_bytes(background_to_bytes(background, "ab" * 32))
    code, _, stderr = run_job(
        query_batch, capsys, "--catalog", copy, "--queries", clips, "--out", str(tmp_path / "out")
    )
    assert code == cli.FAILED
    assert stderr.startswith("error: ")
    assert "made by another model" in stderr
    assert stderr.count("\n") == 1
    assert maintain.verify(copy)["damaged"] == 1


def test_a_background_of_another_model_is_refused_before_any_work(
    root: str, pieces: list[np.ndarray], tmp_path: Path
) -> None:
    shutil.copytree(SHIPPED / "small", tmp_path / "model")
    background = Catalog.open_published(root).background()
    assert background
    (tmp_path / "model" / FILE).write_bytes(background_to_bytes(background, "ab" * 32))
    storage.write(f"{tmp_path}/music/0.wav", encode(pieces[0], "wav"))
    with pytest.raises(ModelError, match="made by another model"):
        index_catalog(f"{tmp_path}/music", f"{tmp_path}/new", model=str(tmp_path / "model"))
    assert not (tmp_path / "new").exists()
    with pytest.raises(CatalogError, match="no catalog here"):
        Catalog.open_published(f"{tmp_path}/new")


def test_a_timeline_has_detections_at_other_speeds(
    root: str, pieces: list[np.ndarray], tmp_path: Path
) -> None:
    programme_S = np.concatenate(
        [
            synthesis.piece(91, 8.0),
            between(at_speed(pieces[3], FASTER), 1.0, 21.0),  # 8 to 28 s
            synthesis.piece(92, 8.0),
        ]
    )
    storage.write(f"{tmp_path}/radio/show.flac", encode(programme_S, "flac"))
    summary, table = timeline_batch(
        root, f"{tmp_path}/radio", f"{tmp_path}/out", encoders=Encoders(1)
    )
    assert summary["plays"] == 1
    [row] = table.to_pylist()
    assert Path(row["track"]).stem == "3"
    assert row["speed"] == pytest.approx(FASTER, abs=0.005)
    assert row["query_start_s"] == pytest.approx(8.0, abs=0.6)
    assert row["query_end_s"] == pytest.approx(28.0, abs=0.6)
    moved_s = row["query_start_s"] - 8.0
    assert row["track_start_s"] == pytest.approx((1.0 + moved_s) * FASTER, abs=0.15)
    assert row["score"] >= row["threshold"]
    assert row["false_positive_rate"] < 0.001
    sheet = storage.read(f"{tmp_path}/out/show.cue").decode()
    times = [line.split()[-1] for line in sheet.splitlines() if "INDEX" in line]
    titles = [line.split('"')[1] for line in sheet.splitlines() if "TITLE" in line]
    assert titles == ["unknown", "3", "unknown"]
    for time, key in zip(times[1:], ("query_start_s", "query_end_s"), strict=True):
        minutes, seconds, frames = map(int, time.split(":"))
        assert 60 * minutes + seconds + frames / 75 == pytest.approx(row[key], abs=0.02)
