"""FMA, MUSAN and AIR as they are unpacked, in the jobs that read them."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from job_runs import run_job

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.datasets import Kind, list_recordings
from grafp.errors import OptionError
from grafp.storage.records import read_record
from grafp.training.data import pcm
from grafp.training.data.prepare import Collected
from pipelines.common import cli
from pipelines.evaluating.material import Material
from pipelines.jobs import evaluate, index_catalog, train

Folders = dict[Kind, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("public")
    rows = datasets.fma_rows([*range(2, 22), 98565])
    return {
        "music": datasets.fma(root, rows, seconds=4.0),
        "noise": datasets.musan(root, noises=20) / "noise",
        "rir": datasets.air(root),
    }


def trained_on(out: str) -> dict[str, list[np.ndarray]]:
    """The sounds that a run has decoded, its validation part included."""
    kinds = read_record(storage.join(out, "data.json"), dict[str, Collected], ValueError)
    return {
        kind: [
            pcm.read_pcm(storage.join(one.store, row["shard"]), np.array([row["row"]]))[0]
            for side in one.usable()
            for row in side.to_pylist()
        ]
        for kind, one in kinds.items()
    }


@pytest.mark.slow
def test_evaluation_uses_nothing_that_training_used(
    folders: Folders, tmp_path: Path, ray_here: None, capsys: pytest.CaptureFixture
) -> None:
    music, noise, rir = (str(folders[kind]) for kind in ("music", "noise", "rir"))
    run, catalog = f"{tmp_path}/run", f"{tmp_path}/catalog"
    sounds = ["--noise", noise, "--rir", rir]
    few = ["--steps", "1", "--num-workers", "0", "--pairs", "8"]
    code, summary, errors = run_job(train, capsys, "--music", music, *sounds, "--out", run, *few)
    assert (code, summary.get("steps")) == (cli.DONE, 1), errors
    used = trained_on(run)
    assert {kind: len(sounds) for kind, sounds in used.items()} == {
        kind: sum(i.row["split"] != "test" for i in list_recordings(kind, str(folder)))
        for kind, folder in folders.items()
    }
    code, summary, errors = run_job(
        index_catalog, capsys, "--audio", music, "--catalog", catalog, "--workers", "0"
    )
    assert (code, summary.get("tracks")) == (cli.DONE, 21), errors
    recordings = list_recordings("music", music)
    opened = Catalog.open_published(catalog)
    material = Material.collect(opened, recordings, noise, rir, None, 2.0)
    assert [item.row["split"] for item in material.known] == ["test"] * 4
    for kind, heard in (("noise", material.noises), ("rir", material.rirs)):
        assert heard
        assert {one.tobytes() for one in heard}.isdisjoint(one.tobytes() for one in used[kind])
    code, summary, errors = run_job(
        evaluate, capsys, "--catalog", catalog, "--audio", music, *sounds, "--seconds", "2",
        "--snr", "20", "--queries", "4", "--out", f"{tmp_path}/evaluation", "--workers", "0",
    )  # fmt: skip
    assert (code, summary.get("queries")) == (cli.DONE, 8), errors


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("--music", "fma/fma_metadata", "has FMA's metadata, but no audio"),
        ("--music", "bare", "has FMA's numbered folders, but no fma_metadata/tracks.csv"),
        ("--rir", "matlab", "other.mat: not a response of AIR"),
        ("--noise", "table.csv", "none of its 1 recordings is of the split train"),
    ],
)
def test_training_refuses_before_it_decodes(
    kind: str, name: str, reason: str, folders: Folders, tmp_path: Path, capsys
) -> None:
    given = _wrong(tmp_path) / name
    options = {"--music": str(folders["music"]), "--out": f"{tmp_path}/run"} | {kind: str(given)}
    words = [word for pair in options.items() for word in pair]
    code, _, errors = run_job(train, capsys, *words, "--num-workers", "0")
    assert code == cli.BAD_ARGUMENTS
    [line] = errors.splitlines()
    assert line.startswith(f"error: {kind} ")
    assert reason in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["noise", "rir"])
def test_evaluation_refuses_what_is_for_training_only(
    kind: str, folders: Folders, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    storage.write(f"{alone}/only.wav", b"x")
    chosen = {"noise": str(folders["noise"]), "rir": str(folders["rir"])} | {kind: str(alone)}
    with pytest.raises(OptionError, match=rf"^--{kind} {alone}: none of its 1 recordings is of"):
        Material.collect(
            Catalog(f"{tmp_path}/catalog", None), [], **chosen, unknown=None, longest=1
        )


def _wrong(root: Path) -> Path:
    """A folder with data sets that are not whole."""
    wrong = root / "wrong"
    storage.write(f"{wrong}/bare/000/000002.mp3", b"x")
    storage.write(f"{wrong}/matlab/other.mat", b"x")
    storage.write(f"{wrong}/table.csv", b"path,split\na.wav,test\n")
    storage.write(f"{wrong}/fma/fma_metadata/tracks.csv", datasets.fma_metadata([]))
    return wrong
