"""A cluster that has no machine yet, and Ray's own autoscaler: machines come, are lost, and go."""

import time
from collections.abc import Iterator
from pathlib import Path

import elastic
import nodes
import pytest

from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from pipelines.common import cli

pytestmark = pytest.mark.slow
TRACKS, NODES = 120, 3


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for number in range(TRACKS):
        sound = encode(synthesis.piece(number, 30.0), "flac")
        (folder / f"{number}.flac").write_bytes(sound)
    return folder


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[elastic.Elastic]:
    with elastic.running(tmp_path, {"cpu": {"resources": {"CPU": 2}}}, NODES) as started:
        yield started


def wait_for(what: str, holds: object, seconds: float = 240.0) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_grows_from_no_machine_and_none_is_left(
    lost: bool, cluster: elastic.Elastic, music: Path, tmp_path: Path
) -> None:
    assert not cluster.nodes()
    root = tmp_path / "catalog"
    job = cluster.start("index_catalog.py", "--audio", music, "--catalog", root)
    wait_for("several machines encode", lambda: working(cluster) >= 2 or job.poll() is not None)
    if lost:  # as a spot machine that is taken away
        cluster.nodes()[-1].kill()
    lines = job.communicate()[0].splitlines()
    assert job.returncode == cli.DONE, "\n".join(lines)
    summary = nodes.summary(lines)
    assert (summary["embedded"], summary["failed"]) == (TRACKS, 0)
    assert Catalog.open_published(str(root)).manifest.counts["tracks"] == TRACKS
    [(kind, seconds)] = summary["machine_seconds"].items()
    assert kind == "2 CPUs"
    assert seconds > summary["seconds"] * 0.5
    assert any(line.startswith("  machines: 2 of 2 CPUs") for line in lines)
    assert not [line for line in lines if "autoscaler" in line]
    wait_for("machines that stand idle are ended", lambda: not cluster.nodes())


def working(cluster: elastic.Elastic) -> int:
    """Machines with an encoder."""
    return sum(
        any("MapWorker" in title for title in elastic.titles(node)) for node in cluster.nodes()
    )


def test_so_many_machines_are_started_at_once_as_asked(
    cluster: elastic.Elastic, music: Path, tmp_path: Path
) -> None:
    """A range: the smallest number is asked for before there is work for it, the largest kept."""
    words = ["--audio", music, "--catalog", tmp_path / "catalog", "--workers", "2:3"]
    job = cluster.start("index_catalog.py", *words)
    seen = [0]
    with job:
        while job.poll() is None:
            seen.append(cluster.encoders())
            time.sleep(0.5)
    assert job.returncode == cli.DONE
    assert 2 <= max(seen) <= 3
