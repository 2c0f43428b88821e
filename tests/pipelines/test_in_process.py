"""Small work without Ray: `--workers 0`, or chosen by the jobs themselves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from answers import assert_same

from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.errors import OptionError
from grafp.storage.sources import list_items
from pipelines.common import decode
from pipelines.common.work import Encoders, at_work
from pipelines.evaluating.flow import evaluate_catalog
from pipelines.indexing import maintain
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import evaluate as evaluate_job
from pipelines.jobs import index_catalog as index_job
from pipelines.jobs import query_batch as query_job
from pipelines.querying.flow import query_batch

ROOT = Path(__file__).parents[2]
HERE = Encoders(0)


def run_command(job: str, *words: object) -> dict[str, Any]:
    """The summary of a job that is a command of its own, and that never imported Ray."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", f"jobs/{job}.py", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "numpy" in imported
    assert "ray" not in imported
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music with two hostile files, clips, a catalog that was made here, and one made over Ray."""
    folder = tmp_path_factory.mktemp("here")
    shutil.copytree(music, folder / "music")
    (folder / "music" / "text.mp3").write_bytes(b"this is not music")
    (folder / "music" / "short.wav").write_bytes(encode(synthesis.piece(90, 0.5), "wav"))
    (folder / "clips").mkdir()
    for number in range(3):
        clip_S = synthesis.piece(number, 12.0)[40_000:88_000]
        (folder / "clips" / f"{number}.flac").write_bytes(encode(clip_S, "flac"))
    shutil.copy(folder / "music" / "text.mp3", folder / "clips")
    return folder


@pytest.fixture(scope="module")
def catalogs(folder: Path, ray_here: None) -> dict[str, Path]:
    for name, encoders in {"here": HERE, "spread": Encoders(1)}.items():
        index_catalog(str(folder / "music"), str(folder / name), encoders=encoders)
    return {name: folder / name for name in ("here", "spread")}


def test_a_catalog_made_here_is_the_one_made_over_ray(catalogs: dict[str, Path]) -> None:
    here, spread = (Catalog.open_published(str(root)) for root in catalogs.values())
    assert here.manifest
    assert spread.manifest
    assert here.manifest.counts == spread.manifest.counts
    names = ["uri", "status", "error_kind", "error", "ordinal", "n_segments", "content_sha256"]
    tables = [one.tracks(names).sort_by("uri").to_pylist() for one in (here, spread)]
    assert tables[0] == tables[1]
    assert {row["error_kind"] for row in tables[0]} == {None, "unreadable", "too_short"}
    assert here.manifest.parameters == spread.manifest.parameters
    assert maintain.verify(here.root)["damaged"] == 0


def test_queries_are_answered_alike(
    catalogs: dict[str, Path], folder: Path, tmp_path: Path
) -> None:
    for name, encoders in {"here": HERE, "spread": Encoders(1)}.items():
        query_batch(
            str(catalogs["spread"]), str(folder / "clips"), f"{tmp_path}/{name}", encoders=encoders
        )
    answers = [pq.read_table(tmp_path / name / "matches.parquet") for name in ("here", "spread")]
    assert_same(*answers)
    assert answers[0]["matched"].to_pylist() == [True, True, True, False]


@pytest.mark.slow
def test_an_evaluation_has_the_same_numbers(
    catalogs: dict[str, Path], folder: Path, tmp_path: Path
) -> None:
    for name in ("noise", "rir"):
        (tmp_path / name).mkdir()
        make = synthesis.noise if name == "noise" else lambda n, _: synthesis.impulse_response(n)
        for number in range(8):
            sound_S = np.asarray(make(number, 3.0))
            (tmp_path / name / f"{number}.wav").write_bytes(encode(sound_S, "wav"))
    found = [
        evaluate_catalog(
            str(catalogs["spread"]),
            str(folder / "music"),
            f"{tmp_path}/noise",
            f"{tmp_path}/rir",
            f"{tmp_path}/{name}",
            seconds=[2.0],
            snr_db=[20.0],
            queries=6,
            seed=1,
            encoders=encoders,
        )
        for name, encoders in {"here": HERE, "spread": Encoders(1)}.items()
    ]
    assert found[0]["cells"] == found[1]["cells"]
    assert found[0]["queries"] == 12


def test_a_catalog_is_compacted_and_trained_again_here(
    catalogs: dict[str, Path], folder: Path, tmp_path: Path
) -> None:
    root, music = str(tmp_path / "catalog"), tmp_path / "music"
    shutil.copytree(catalogs["here"], root)
    shutil.copytree(folder / "music", music)
    (music / "more.flac").write_bytes(encode(synthesis.piece(91, 12.0), "flac"))
    index_catalog(str(music), root, encoders=HERE)
    before = Catalog.open_published(root).manifest
    assert before
    assert len(before.layers) > 1
    assert maintain.maintain(root, compact=True, workers=0)["shards"] == 1
    trained = maintain.maintain(root, retrain=True, workers=0)
    assert trained["fingerprints"] == before.counts["fingerprints"]
    assert maintain.verify(root)["damaged"] == 0
    query_batch(root, str(folder / "clips"), f"{tmp_path}/out", encoders=HERE)
    matches = pq.read_table(tmp_path / "out" / "matches.parquet").to_pylist()
    assert [row["matched"] for row in matches if row["rank"] == 1] == [True, True, True, False]


def test_jobs_choose_so_by_themselves(folder: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    found = run_command(
        "index_catalog", "--audio", folder / "music", "--catalog", catalog, "--max-failures", 2
    )
    assert (found["embedded"], found["failed"]) == (6, 2)
    found = run_command(
        "query_batch", "--catalog", catalog, "--queries", folder / "clips", "--out", tmp_path
    )
    assert (found["queries"], found["matched"], found["errors"]) == (4, 3, 1)
    found = run_command("merge_index", "--catalog", catalog, "--retrain")
    assert found["tracks"] == 6


def test_a_script_without_a_main_guard_may_add_recordings(folder: Path, tmp_path: Path) -> None:
    """Processes that are started must not run the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, grafp\nfrom pipelines.indexing import calibrate\ncalibrate.CLIPS = 0\n"
        "print(len(grafp.index_catalog(sys.argv[1], sys.argv[2])), 'tracks')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "music"), str(tmp_path / "catalog")],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 tracks"


def crashes_on_some(data: bytes, **_: float) -> np.ndarray:
    if data == b"deadly":
        os._exit(1)
    return np.zeros(48_000, np.float32)


def test_a_file_that_crashes_the_decoder_costs_its_own_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for a decoder with a defect: no file is known that crashes the real one."""
    for name, data in {"a.wav": b"fine", "b.wav": b"deadly", "c.wav": b"fine"}.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(decode, "decode", crashes_on_some)
    with at_work(HERE):
        [*rows] = decode.decoded(list_items(str(tmp_path)), 60.0).iter_batches()
    errors = [row["error"] for batch in rows for row in batch.to_pylist()]
    assert errors == [None, "the decoder crashes on it", None]


def test_a_cluster_or_much_work_is_for_ray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = list_items(str(folder / "music"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert Encoders().for_work(few, None) == HERE
    assert Encoders().for_work(few * 20, None) == Encoders()
    assert Encoders(2).for_work(few, None) == Encoders(2)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert Encoders().for_work(few, None) == Encoders()


@pytest.mark.parametrize("job", [index_job, query_job, evaluate_job])
def test_no_workers_and_a_gpu_do_not_go_together(job: Any) -> None:
    folders = {
        index_job: ["--audio", "a", "--catalog", "b"],
        query_job: ["--queries", "a", "--catalog", "b", "--out", "c"],
        evaluate_job: [
            "--catalog", "a", "--audio", "a", "--noise", "a", "--rir", "a", "--out", "a",
        ],
    }[job]  # fmt: skip
    with pytest.raises((OptionError, SystemExit)):
        job.options([*folders, "--workers", "0", "--gpu"])
