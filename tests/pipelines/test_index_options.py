"""The paper's index by options: recorded, kept by later runs, searched with, and not changed."""

import shutil
from pathlib import Path

import pytest
import ray
from job_runs import run_job

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.index.size import IndexOptions, IndexParameters
from pipelines.common import cli
from pipelines.common.opening import search_for_queries
from pipelines.evaluating.distractors import with_distractors
from pipelines.indexing import maintain
from pipelines.jobs import index_catalog as index_job
from pipelines.jobs import query_batch

pytestmark = pytest.mark.usefixtures("ray_here")
PAPER = IndexOptions(codec="PQ64", lists=256, neighbors=20)
TRACKS = 20
WORDS = ("--codec", "PQ64", "--lists", "256", "--neighbors", "20")


def write_music(folder: Path, seeds: range) -> str:
    for seed in seeds:
        data = encode(synthesis.piece(seed, 4.0), "wav")
        storage.write(f"{folder}/music/{seed}.wav", data)
    return f"{folder}/music"


def manifest_of(root: str) -> Manifest:
    manifest = Catalog.open_published(root).manifest
    assert manifest is not None
    return manifest


def index(folder: Path, capsys: pytest.CaptureFixture, *words: str) -> tuple[int, dict, str]:
    arguments = ["--audio", f"{folder}/music", "--catalog", f"{folder}/catalog", "--workers", "0"]
    return run_job(index_job, capsys, *arguments, *words)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, calibration: None) -> Path:
    """A catalog made with the paper's index."""
    folder = tmp_path_factory.mktemp("options")
    write_music(folder, range(TRACKS))
    arguments = ["--audio", f"{folder}/music", "--catalog", f"{folder}/catalog", "--workers", "0"]
    assert cli.run(index_job.main, index_job.options([*arguments, *WORDS])) == cli.DONE
    return folder


@pytest.fixture
def folder(indexed: Path, tmp_path: Path) -> Path:
    """A copy of the catalog alone: its music is where it was, so that nothing is new."""
    shutil.copytree(indexed / "catalog", tmp_path / "catalog")
    return tmp_path


def same_music(indexed: Path, folder: Path, *words: str) -> list[str]:
    return ["--audio", f"{indexed}/music", "--catalog", f"{folder}/catalog", *words]


@pytest.mark.slow
def test_the_papers_index_is_recorded_and_answers(
    indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    manifest = manifest_of(f"{indexed}/catalog")
    assert manifest.index_options == PAPER
    assert manifest.parameters
    assert (manifest.parameters.codec, manifest.parameters.nlist) == ("PQ64", 256)
    assert manifest.trained_index
    assert manifest.trained_index.key.startswith("index/pq64-")
    assert (manifest.neighbors, manifest.candidates, manifest.effort.lists) == (20, 64, 16)
    for seed in (0, 17):
        excerpt_S = synthesis.piece(seed, 4.0)[8_000:56_000]
        storage.write(f"{tmp_path}/queries/{seed}.flac", encode(excerpt_S, "flac"))
    for rerank in ("exact", "pq"):
        code, summary, _ = run_job(
            query_batch, capsys, "--catalog", f"{indexed}/catalog", "--rerank", rerank,
            "--queries", f"{tmp_path}/queries", "--out", f"{tmp_path}/out", "--workers", "0",
        )  # fmt: skip
        assert (code, summary["matched"]) == (cli.DONE, 2)


@pytest.mark.slow
def test_later_runs_and_copies_keep_it(indexed: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(indexed / "catalog", tmp_path / "catalog")
    shutil.copytree(indexed / "music", tmp_path / "music")
    before, root = manifest_of(f"{indexed}/catalog"), f"{tmp_path}/catalog"
    write_music(tmp_path, range(50, 52))
    assert index(tmp_path, capsys)[1]["added"] == TRACKS + 2  # other paths, the same music
    after = manifest_of(root)
    assert (after.index_options, after.parameters) == (PAPER, before.parameters)
    assert after.trained_index == before.trained_index
    maintain.maintain(root, retrain=True)
    retrained = manifest_of(root)
    assert retrained.index_options == PAPER
    wanted = IndexParameters.for_size(retrained.counts["fingerprints"], PAPER)
    assert retrained.parameters == wanted
    source = Catalog.open_published(root)
    scaled = with_distractors(source, f"{tmp_path}/scaled", 3, model=source.model())
    assert scaled.index_options == PAPER
    assert scaled.parameters
    assert (scaled.parameters.codec, scaled.parameters.nlist) == ("PQ64", 256)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--codec", "PQ64x4fs"), "--codec PQ64x4fs: the catalog's index has PQ64; leave the "),
        (("--lists", "128"), "--lists 128: the catalog's index has 256; leave the option out"),
        (("--probes", "300"), "--probes 300: more than the 256 lists"),
    ],
)
def test_another_index_is_refused_later(
    indexed: Path, folder: Path, capsys, words: tuple[str, str], line: str
) -> None:
    before = manifest_of(f"{folder}/catalog")
    for also in ((), ("--dry-run",)):
        code, _, error = run_job(index_job, capsys, *same_music(indexed, folder, *words, *also))
        assert code == cli.BAD_ARGUMENTS
        assert error.startswith(f"error: {line}")
        assert error.count("\n") == 1
    assert manifest_of(f"{folder}/catalog") == before


def test_settings_of_the_search_take_effect_without_another_index(
    indexed: Path, folder: Path, capsys
) -> None:
    root = f"{folder}/catalog"
    before = manifest_of(root)
    words = ("--codec", "PQ64", "--probes", "4", "--candidates", "1")
    code, summary, _ = run_job(index_job, capsys, *same_music(indexed, folder, *words))
    assert (code, summary["embedded"]) == (cli.DONE, 0)
    after = manifest_of(root)
    assert after.index_options == IndexOptions("PQ64", 256, probes=4, neighbors=20, candidates=1)
    assert (after.trained_index, after.layers) == (before.trained_index, before.layers)
    assert (after.effort.lists, after.neighbors, after.candidates) == (4, 20, 1)
    # Calibrated again: a search that does less finds worse wrong answers.
    assert before.calibration
    assert after.calibration
    assert after.calibration.by_length != before.calibration.by_length
    again = run_job(index_job, capsys, *same_music(indexed, folder, *words))[1]
    assert again["snapshot"] == after.snapshot  # nothing is new any more


def test_search_actors_have_the_catalogs_settings(indexed: Path) -> None:
    catalog = Catalog.open_published(f"{indexed}/catalog")
    search = search_for_queries(catalog)
    assert (search.neighbors, search.candidates) == (20, 64)
    sent = ray.get(ray.put(search))  # as Ray Data hands it to its stages
    assert (sent.neighbors, sent.candidates) == (20, 64)


@pytest.mark.slow
def test_too_little_music_for_the_lists_is_one_line(tmp_path: Path, capsys) -> None:
    write_music(tmp_path, range(2))
    code, _, error = index(tmp_path, capsys, "--lists", "256")
    assert code == cli.BAD_ARGUMENTS
    [line] = [line for line in error.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --lists 256: takes 256 fingerprints to train, and the catalog")
    assert not (tmp_path / "catalog" / "CURRENT").exists()
    assert index(tmp_path, capsys, "--lists", "16")[1]["resumed"] == 2
