"""Exported fingerprints in the evaluation job: the hit rates that the same audio gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from exports import write_memory_map, write_settings, write_tables
from job_runs import run_job

import grafp
from grafp import storage
from grafp.audio import SAMPLE_RATE, decode, encode, synthesis
from grafp.audio.degrade import cut_degraded
from grafp.datasets import waveforms
from grafp.evaluation.protocol import Clip, make_clip
from grafp.model.bundle import read_card
from grafp.storage.sources import list_items
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import evaluate, query_batch

TRACK_SECONDS = 12.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """Music with noise and impulse responses, indexed; 4 recordings are not in the catalog."""
    folder = tmp_path_factory.mktemp("exported")
    for kind, seeds in {"music": range(5), "unknown": range(50, 54)}.items():
        for seed in seeds:
            data = encode(synthesis.piece(seed, TRACK_SECONDS), "flac")
            storage.write(f"{folder}/{kind}/{seed}.flac", data)
    storage.write(f"{folder}/noise/0.wav", encode(synthesis.noise(0, 5.0), "wav"))
    storage.write(f"{folder}/rirs/0.wav", encode(synthesis.impulse_response(0), "wav"))
    for kind in ("noise", "rirs"):  # a folder with a single recording would be for training
        storage.write(f"{folder}/{kind}.csv", f"path,split\n{kind}/0.wav,test\n".encode())
    index_catalog(f"{folder}/music", f"{folder}/catalog", encoders=Encoders(0))
    return folder


@pytest.fixture(scope="module")
def model() -> grafp.Model:
    return grafp.load_model()


def music(folder: Path) -> dict[str, np.ndarray]:
    return {f"{path}": decode(path.read_bytes()) for path in sorted((folder / "music").iterdir())}


def settings(**more: Any) -> dict[str, Any]:
    return {"offset_correction_s": read_card().offset_correction_s} | more


def hits(cells: dict[str, Any]) -> dict[str, Any]:
    """Right tracks and offsets, which do not depend on thresholds."""
    kept = ("hit_track", "hit_50ms")
    return {name: {rate: cell[rate] for rate in kept} for name, cell in cells.items()}


@pytest.mark.slow
def test_tables_give_the_hit_rates_of_the_audio(
    folder: Path, model: grafp.Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, of_audio, err = run_job(
        evaluate, capsys, "--catalog", f"{folder}/catalog", "--audio", f"{folder}/music",
        "--unknown", f"{folder}/unknown", "--noise", f"{folder}/noise.csv",
        "--rir", f"{folder}/rirs.csv", "--out", f"{tmp_path}/audio", "--seconds", "1,3",
        "--snr", "-12", "--queries", "8", "--workers", "0",
    )  # fmt: skip
    assert (code, err) == (cli.DONE, "")
    rows = pq.read_table(f"{tmp_path}/audio/clips.parquet").to_pylist()
    noises, rirs = (waveforms(list_items(f"{folder}/{kind}.csv")) for kind in ("noise", "rirs"))
    queries = [_query(row, noises, rirs, model) for row in rows]
    tracks = {name: model.fingerprint(samples) for name, samples in music(folder).items()}
    write_tables(tmp_path / "exported", tracks, queries)
    write_settings(tmp_path / "exported", **settings(method="the same model"))
    code, exported, err = run_job(
        evaluate, capsys, "--embeddings", f"{tmp_path}/exported", "--out", f"{tmp_path}/out",
        "--distractors", "6",
    )  # fmt: skip
    assert (code, err) == (cli.DONE, "")
    assert hits(exported["cells"]) == hits(of_audio["cells"])
    assert (
        0 < sum(c["hit_50ms"]["hits"] for c in hits(exported["cells"]).values()) < 32
    )  # like here
    assert exported["queries"] == of_audio["queries"] == 40
    assert exported["within"] == of_audio["within"]
    mine = pq.read_table(f"{tmp_path}/out/clips.parquet").to_pylist()
    for own, theirs in zip(mine, rows, strict=True):
        assert (own["query"], own["true_track"]) == (theirs["query"], theirs["true_track"])
        assert own["score"] == pytest.approx(theirs["score"], abs=0.01)
    report = json.loads(Path(tmp_path, "out/report.json").read_text())
    assert (report["method"], report["tracks"]) == ("the same model", 5)
    assert [scale["tracks"] for scale in report["scales"]] == [5, 11]
    html = Path(tmp_path, "out/report.html").read_text()
    assert "Fingerprints of another program" in html
    assert "spectrogram" not in html


def _query(
    row: dict[str, Any], noises: list[np.ndarray], rirs: list[np.ndarray], model: grafp.Model
) -> dict[str, Any]:
    """The clip of a row of clips.parquet, made again and fingerprinted."""
    names = ("number", "seconds", "longest", "snr_db", "reverb", "seed", "grid_s")
    clip = Clip(track=row["source"], position=row["place"], **{name: row[name] for name in names})
    samples_S = make_clip(clip, decode(Path(clip.track).read_bytes()), noises, rirs)[1]
    return {
        "query": row["query"],
        "vectors": model.fingerprint(samples_S),
        "track": row["true_track"],
        "start_s": row["true_start_s"],
        "snr_db": clip.snr_db,
        "reverb": clip.reverb,
    }


@pytest.mark.slow
def test_arrays_give_the_hit_rates_of_the_audio(
    folder: Path, model: grafp.Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clean, noise_S = music(folder), synthesis.noise(7, TRACK_SECONDS)
    noisy = {
        # A WAV file would clip what is louder, and loudness does not matter.
        name: 0.05 * cut_degraded(samples_S, 0, TRACK_SECONDS, snr_db=-21.0, noise_S=noise_S)
        for name, samples_S in clean.items()
    }
    exported = tmp_path / "exported"
    database = {name: model.fingerprint(samples_S) for name, samples_S in clean.items()}
    write_memory_map(exported, "db", np.concatenate(list(database.values())))
    queries = [model.fingerprint(samples_S) for samples_S in noisy.values()]
    write_memory_map(exported, "query", np.concatenate(queries))
    lines = [f"{name},{len(vectors)}" for name, vectors in database.items()]
    (exported / "db_tracks.csv").write_text("\n".join(["track,fingerprints", *lines]))
    write_settings(exported, **settings(snr_db=-21.0, reverb=False))
    code, summary, err = run_job(
        evaluate, capsys, "--embeddings", str(exported), "--out", f"{tmp_path}/out",
        "--seconds", "2", "--queries", "12",
    )  # fmt: skip
    assert (code, err, summary["queries"]) == (cli.DONE, "", 12)
    (tmp_path / "clips").mkdir()
    truth = ["query,track,start_s"]
    for row in pq.read_table(f"{tmp_path}/out/clips.parquet").to_pylist():
        first = round(row["true_start_s"] * SAMPLE_RATE)
        path = tmp_path / "clips" / f"{row['number']}.wav"
        path.write_bytes(encode(noisy[row["true_track"]][first : first + 2 * SAMPLE_RATE], "wav"))
        truth.append(f"{path},{row['true_track']},{row['true_start_s']}")
    (tmp_path / "truth.csv").write_text("\n".join(truth))
    code, of_audio, err = run_job(
        query_batch, capsys, "--catalog", f"{folder}/catalog", "--queries", f"{tmp_path}/clips",
        "--out", f"{tmp_path}/answers", "--truth", f"{tmp_path}/truth.csv", "--workers", "0",
    )  # fmt: skip
    assert (code, err) == (cli.DONE, "")
    [cell] = summary["cells"].values()
    assert cell["hit_track"] == of_audio["hit_track"]
    assert cell["hit_50ms"] == of_audio["hit_50ms"]
    assert 0 < cell["hit_50ms"]["hits"] < 12  # so noisy that some answers are wrong


SILENT = {
    "query": "q", "vectors": np.zeros((1, 128)), "track": "a", "start_s": 0.1, "snr_db": 0.0,
    "reverb": False,
}  # fmt: skip


def test_what_is_wrong_is_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    write_memory_map(tmp_path / "e", "db", rng.standard_normal((8, 64)))
    write_memory_map(tmp_path / "e", "query", rng.standard_normal((8, 64)))
    write_settings(tmp_path / "e", snr_db=0, reverb=False)
    code, _, err = run_job(
        evaluate, capsys, "--embeddings", f"{tmp_path}/e", "--out", f"{tmp_path}/out"
    )
    assert code == cli.BAD_ARGUMENTS
    assert err == (
        f"error: --embeddings {tmp_path}/e: db has the shape (8, 64), not (fingerprints, 128)\n"
    )
    assert not (tmp_path / "out").exists()
    write_tables(tmp_path / "silent", {"a": np.zeros((9, 128))}, [SILENT])
    write_settings(tmp_path / "silent")
    code, _, err = run_job(
        evaluate, capsys, "--embeddings", f"{tmp_path}/silent", "--out", f"{tmp_path}/out"
    )
    assert code == cli.BAD_ARGUMENTS
    assert err.endswith("silent: no track has a fingerprint that is not silence\n")
