"""Jobs on several real Ray nodes: the same result as on one, whatever happens to a node."""

import json
from pathlib import Path

import nodes
import pyarrow.parquet as pq
import pytest
from kills import content

from grafp import synth
from grafp.audio import encode

TRACKS = 24


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes") / "music"
    folder.mkdir()
    for seed in range(TRACKS):
        sound = encode(synth.piece(seed, 12.0), "wav")
        (folder / f"{seed:02}.wav").write_bytes(sound)
    return folder


@pytest.fixture(scope="module")
def from_one(audio: Path) -> str:
    """A catalogue made by one node."""
    root = str(audio.parent / "one")
    with nodes.running([2]) as cluster:
        code, lines = cluster.run("index_catalog.py", "--audio", audio, "--catalog", root)
    assert code == 0, lines
    return root


def test_three_nodes_of_which_one_dies_make_the_same_catalogue(audio: Path, from_one: str) -> None:
    root = str(audio.parent / "three")
    with nodes.running([1, 1, 1]) as cluster:
        job = cluster.start("index_catalog.py", "--audio", audio, "--catalog", root)
        cluster.kill(cluster.node_at_work("MapWorker", job))
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert json.loads(output.splitlines()[-1])["embedded"] == TRACKS
    assert content(root) == content(from_one)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ray::_fill", "ray::_train", "ray::EmbeddingStore"])
def test_a_node_dies_while_the_index_is_made(
    audio: Path, from_one: str, tmp_path: Path, task: str
) -> None:
    root = str(tmp_path / "catalogue")
    with nodes.running([1, 1, 1]) as cluster:
        job = cluster.start("index_catalog.py", "--audio", audio, "--catalog", root)
        cluster.kill(cluster.node_at_work(task, job))
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert content(root) == content(from_one)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["_Holder", "MatchBatch", "MapWorker"])
def test_a_node_dies_during_a_query(audio: Path, from_one: str, tmp_path: Path, task: str) -> None:
    places = ["--catalog", from_one, "--queries", audio]
    with nodes.running([1, 1, 1]) as cluster:
        assert cluster.run("query_batch.py", *places, "--out", tmp_path / "calm")[0] == 0
        job = cluster.start("query_batch.py", *places, "--out", tmp_path / "killed")
        cluster.kill(cluster.node_at_work(task, job))
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    calm, killed = (
        pq.read_table(tmp_path / name / "matches.parquet") for name in ("calm", "killed")
    )
    assert calm.equals(killed)
    assert sum(calm["matched"].to_pylist()) == TRACKS
