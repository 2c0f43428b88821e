"""The encoder of another installed package in the flows: trained by name, indexed and queried."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from job_runs import run_job

from grafp.audio import SAMPLE_RATE, encode, synthesis
from grafp.model.bundle import load_bundle, save_bundle
from grafp.model.presets import build_encoder, preset_config
from pipelines.common import cli
from pipelines.jobs import index_catalog, query_batch, train

NAME = "tiny-pooling"


@pytest.fixture
def music(tmp_path: Path) -> Path:
    (tmp_path / "music").mkdir()
    for seed in range(12):
        data = encode(synthesis.piece(seed, 6.0), "wav")
        (tmp_path / "music" / f"{seed}.wav").write_bytes(data)
    return tmp_path / "music"


@pytest.mark.slow
def test_index_and_query_with_it(ray_here, music: Path, tmp_path: Path, capsys) -> None:
    model, catalog = f"{tmp_path}/model", f"{tmp_path}/catalog"
    model_id = save_bundle(model, build_encoder(preset_config(NAME)), {"preset": NAME})
    code, summary, err = run_job(
        index_catalog, capsys, "--audio", str(music), "--catalog", catalog, "--model", model,
        "--workers", "0",
    )  # fmt: skip
    assert (code, err) == (cli.DONE, "")
    assert summary["tracks"] == 12
    (tmp_path / "clips").mkdir()
    for seed in range(3):
        clip_S = synthesis.piece(seed, 6.0)[SAMPLE_RATE : 4 * SAMPLE_RATE]
        (tmp_path / "clips" / f"{seed}.wav").write_bytes(encode(clip_S, "wav"))
    code, summary, err = run_job(
        query_batch, capsys, "--catalog", catalog, "--queries", f"{tmp_path}/clips",
        "--out", f"{tmp_path}/out", "--workers", "0", "--min-score", "0.9",
    )  # fmt: skip
    assert (code, err, summary["matched"]) == (cli.DONE, "", 3)
    for row in pq.read_table(f"{tmp_path}/out/matches.parquet").to_pylist():
        assert Path(row["track"]).name == Path(row["query"]).name
        assert row["track_start_s"] == pytest.approx(1.0, abs=0.05)
    card = Path(catalog, "models", model_id, "card.json")
    card.write_text(card.read_text().replace(f'"{NAME}"', '"uninstalled"'))
    code, _, err = run_job(
        query_batch, capsys, "--catalog", catalog, "--queries", f"{tmp_path}/clips",
        "--out", f"{tmp_path}/out",
    )  # fmt: skip
    assert code == cli.FAILED
    assert "unknown kind 'uninstalled'; install the package" in err
    assert err.count("\n") == 1


def test_train_it_by_name(music: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code, summary, err = run_job(
        train, capsys, "--music", str(music), "--out", f"{tmp_path}/run", "--preset", NAME,
        "--steps", "2", "--pairs", "8", "--num-workers", "0",
    )  # fmt: skip
    assert (code, err) == (cli.DONE, "")
    bundle = load_bundle(summary["model"])
    assert bundle.model_id == summary["model_id"]
    assert bundle.encoder.config == preset_config(NAME)
    code, _, err = run_job(
        train, capsys, "--music", "nowhere", "--out", f"{tmp_path}/new", "--preset", NAME,
        "--steps", "2", "--num-workers", "0", "--start-from", "small",
    )  # fmt: skip
    assert (code, err) == (
        cli.FAILED, f"error: --start-from small: not of preset '{NAME}'\n",
    )  # fmt: skip
