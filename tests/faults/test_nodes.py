"""Jobs on several real Ray nodes: the same result as on one, whatever happens to a node."""

from collections.abc import Iterator
from pathlib import Path

import nodes
import pyarrow.parquet as pq
import pytest
from kills import content

from grafp.audio import encode, synthesis
from grafp.index.size import IndexOptions
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog

TRACKS = 24
pytestmark = pytest.mark.slow

INDEX = IndexOptions(codec="PQ64")  # its training takes seconds, so that a node can die meanwhile
CODEC = ("--codec", "PQ64")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes") / "music"
    folder.mkdir()
    for seed in range(TRACKS):
        sound = encode(synthesis.piece(seed, 12.0), "wav")
        (folder / f"{seed:02}.wav").write_bytes(sound)
    return folder


@pytest.fixture(scope="module")
def from_one(ray_here: None, audio: Path) -> str:
    """A catalog made by one node."""
    root = str(audio.parent / "one")
    index_catalog(str(audio), root, index=INDEX, encoders=Encoders(0))
    return root


def test_three_nodes_of_which_one_dies_make_the_same_catalog(audio: Path, from_one: str) -> None:
    root = str(audio.parent / "three")
    with nodes.running([1, 1, 1]) as cluster:
        job = cluster.start("index_catalog.py", "--audio", audio, "--catalog", root, *CODEC)
        cluster.kill(cluster.node_at_work("MapWorker", job))
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert nodes.summary(output.splitlines())["embedded"] == TRACKS
    assert content(root) == content(from_one)


@pytest.mark.parametrize("task", ["ray::_encode", "ray::_train", "(EmbeddingStore)"])
def test_a_node_dies_while_the_index_is_made(
    audio: Path, from_one: str, tmp_path: Path, task: str
) -> None:
    root = str(tmp_path / "catalog")
    with nodes.running([1, 1, 1]) as cluster:
        job = cluster.start("index_catalog.py", "--audio", audio, "--catalog", root, *CODEC)
        cluster.kill(cluster.node_at_work(task, job))
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert content(root) == content(from_one)


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


@pytest.fixture(scope="module")
def training(audio: Path) -> list[object]:
    noise = audio.parent / "noise"
    noise.mkdir()
    (noise / "noise.wav").write_bytes(encode(synthesis.noise(1, 3.0), "wav"))
    return ["--music", audio, "--noise", noise, "--steps", 160, "--pairs", 8, "--out"]


def test_training_goes_on_when_its_node_dies(training: list[object], tmp_path: Path) -> None:
    with nodes.running([1, 1]) as cluster:
        job = cluster.start("train.py", *training, tmp_path / "run")
        before = nodes.lines_until("step 120 ", job)
        cluster.kill(cluster.node_at_work("RayTrainWorker", job))
        after = nodes.lines_until(None, job)
    assert job.returncode == 0, before + after
    assert any("resumed after step 100" in line for line in after)
    assert nodes.summary(after)["steps"] == 160


def test_training_saves_a_checkpoint_before_its_machine_goes(
    training: list[object], tmp_path: Path
) -> None:
    with nodes.running([1, 1]) as cluster:
        job = cluster.start("train.py", *training, tmp_path / "run")
        nodes.lines_until("step 20 ", job)
        node = cluster.node_at_work("RayTrainWorker", job)
        cluster.give_notice(node)
        nodes.lines_until("saving a checkpoint", job)
        nodes.lines_until("step ", job)  # the next report: the checkpoint is written
        cluster.kill(node)
        after = nodes.lines_until(None, job)
    assert job.returncode == 0, after
    [resumed] = [line for line in after if "resumed after step" in line]
    assert int(resumed.split()[-1]) < 100  # the first that is due without a notice


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[nodes.Nodes]:
    with nodes.running([1]) as cluster:
        yield cluster


def test_more_gpus_than_there_are_is_one_line_for_training(
    small_cluster: nodes.Nodes, audio: Path, tmp_path: Path
) -> None:
    code, lines = small_cluster.run(
        "train.py", "--music", audio, "--out", tmp_path, "--pairs", 8, "--gpu", "--num-workers", 4,
        GRAFP_WAIT_SECONDS="1",
    )  # fmt: skip
    assert code == cli.FAILED
    assert "waiting for 4 training workers" in "\n".join(lines)
    [error] = [line for line in lines if line.startswith("error: ")]  # Ray's own may come later
    assert error.startswith("error: --num-workers 4: each needs ")
    assert "1 CPUs, 0 GPUs" in error


def test_encoding_falls_back_on_cpus(
    small_cluster: nodes.Nodes, from_one: str, audio: Path, tmp_path: Path
) -> None:
    code, lines = small_cluster.run(
        "query_batch.py", "--catalog", from_one, "--queries", audio, "--out", tmp_path, "--gpu",
        GRAFP_WAIT_SECONDS="1",
    )  # fmt: skip
    assert code == cli.DONE, lines
    assert "no GPU came within 1 s: encoding on CPUs" in lines
    assert nodes.summary(lines)["matched"] == TRACKS


def test_a_cluster_without_cpus_is_one_line(audio: Path, tmp_path: Path) -> None:
    with nodes.running([]) as cluster:
        code, lines = cluster.run(
            "index_catalog.py", "--audio", audio, "--catalog", tmp_path, GRAFP_WAIT_SECONDS="1"
        )
    assert code == cli.FAILED
    [error] = [line for line in lines if line.startswith("error: ")]  # Ray's own may come later
    assert error.startswith("error: no CPU for work within 1 s")
