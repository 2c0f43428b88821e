"""Runs that are killed: nothing published is lost, nothing is doubled, and the next run goes on.

GRAFP_KILLS sets how often; `make check-all` kills 50 runs of indexing and 25 of merging. What
was lost and doubled is said at the end of the tests.
"""

import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kills
import psutil
import pytest
import ray
import s3_server
from kills import Moment, content, proxy, start, wait_for

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from jobs import index_catalog as index_job
from jobs import merge_index
from pipelines.common.work import Encoders
from pipelines.indexing import maintain
from pipelines.indexing.flow import index_catalog

KILLS = int(os.environ.get("GRAFP_KILLS", "1"))
EMBEDDING = Moment("embedding", written="embeddings/*.parquet")
# The numbers of moments are odd, so that each comes on local disk and on S3.
INDEXING = (
    kills.POPULATING,  # the first two are those of `make test`
    EMBEDDING,
    kills.PUBLISHING,
    Moment("listed", said="recordings listed"),
    Moment("training", said="training the index"),
    Moment("trained written", written="index/*/trained.faiss"),
    Moment("layer written", written="index/*/*.tracks.parquet"),
    kills.WRITTEN,
    kills.TABLE,
    kills.PUBLISHED,
    kills.ANY_TIME,
)
MERGING = (
    kills.POPULATING,
    kills.TABLE,
    kills.PUBLISHING,
    Moment("begun", said="ing "),  # compacting, or training the index
    kills.WRITTEN,
    kills.PUBLISHED,
    kills.ANY_TIME,
)


@dataclass(frozen=True)
class Night:
    """Music, a catalog of its first half, and what a night that nobody disturbs makes of it."""

    audio: Path
    first: Path
    undisturbed: Path
    result: tuple


def write_pieces(audio: Path, seeds: range) -> None:
    for seed in seeds:
        storage.write(f"{audio}/{seed}.wav", encode(synthesis.piece(seed, 4.0), "wav"))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Night:
    folder = tmp_path_factory.mktemp("night")
    audio, undisturbed = folder / "music", folder / "undisturbed"
    write_pieces(audio, range(3))
    index_catalog(str(audio), str(folder / "first"), encoders=Encoders(0))
    write_pieces(audio, range(3, 12))  # enough to retrain the index
    storage.write(f"{audio}/1.wav", encode(synthesis.piece(90, 4.0), "wav"))
    storage.delete(f"{audio}/2.wav")
    shutil.copytree(folder / "first", undisturbed)
    index_catalog(str(audio), str(undisturbed), encoders=Encoders(0))
    return Night(audio, folder / "first", undisturbed, content(str(undisturbed)))


@pytest.fixture(scope="module")
def two_shards(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog with two shards, one of them with a removed track."""
    folder = tmp_path_factory.mktemp("merge")
    audio, root = folder / "music", folder / "catalog"
    shutil.copytree(night.undisturbed, root)
    write_pieces(audio, range(20, 22))
    index_catalog(str(audio), str(root), encoders=Encoders(0))
    storage.write(f"{folder}/remove.txt", f"{night.audio}/5.wav\n".encode())
    maintain.maintain(str(root), remove=f"{folder}/remove.txt")
    assert len(content(str(root))[2]) == 2
    return root


def ray_address() -> dict[str, str]:
    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


def index_arguments(night: Night, root: str) -> list[str]:
    return ["--audio", str(night.audio), "--catalog", root, "--workers", "1"]


@dataclass(frozen=True)
class Place:
    """Where a run is killed: its catalog, a file for its output, and how to tell the result."""

    root: str
    output: Path
    tell: Callable[[str, object], None]

    def kill_and_repeat(
        self, moment: Moment, job: str, arguments: list[str], repeat: Callable, result: tuple
    ) -> None:
        before = content(self.root)
        run = start(job, *arguments, output=self.output, **ray_address())
        in_time = wait_for(moment, run, self.root, self.output)
        run.kill()
        run.communicate()
        half = kills.half_shards(self.root)
        assert maintain.verify(self.root)["damaged"] == 0
        assert content(self.root) in (before, result)
        repeat()
        lost, doubled = kills.lost_and_doubled(self.root, result)
        self.tell("kill", (moment.name if in_time else "too late", half, lost, doubled))
        assert (lost, doubled) == (0, 0)
        assert content(self.root) == result
        assert maintain.verify(self.root)["damaged"] == 0


@pytest.fixture
def place(s3: str, tmp_path: Path, request: pytest.FixtureRequest, record_property) -> Place:
    """Local disk for even numbers, S3 for odd ones."""
    on_s3 = request.node.callspec.params["number"] % 2
    root = f"{s3}/{tmp_path.name}" if on_s3 else str(tmp_path / "catalog")
    return Place(root, tmp_path / "output.txt", record_property)


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_loses_and_doubles_nothing(number: int, night: Night, place: Place) -> None:
    root = kills.copy(night.first, place.root)
    place.kill_and_repeat(
        INDEXING[number % len(INDEXING)],
        index_job.__file__,
        index_arguments(night, root),
        lambda: index_catalog(str(night.audio), root, encoders=Encoders(1)),
        night.result,
    )


@pytest.mark.parametrize("number", range((KILLS + 1) // 2))
def test_a_killed_merge_loses_and_doubles_nothing(
    number: int, two_shards: Path, place: Place, tmp_path: Path
) -> None:
    options = {"retrain": True} if number // 2 % 2 else {"compact": True}
    undisturbed = kills.copy(two_shards, str(tmp_path / "undisturbed"))
    assert maintain.maintain(undisturbed, **options)["shards"] == 1
    root = kills.copy(two_shards, place.root)
    place.kill_and_repeat(
        MERGING[number % len(MERGING)],
        merge_index.__file__,
        ["--catalog", root, *(f"--{name}" for name in options)],
        lambda: maintain.maintain(root, **options),
        content(undisturbed),
    )


def test_a_run_killed_while_it_lists_writes_nothing(s3: str, night: Night, tmp_path: Path) -> None:
    root = kills.copy(night.first, f"{s3}/listing/catalog")
    storage.write(f"{s3}/listing/music/new.wav", b"is listed, and no more")
    before = storage.list_files(f"{s3}/listing")
    listing, killed = threading.Event(), threading.Event()

    def hold(request: bytes) -> bytes:
        if re.match(rb"GET \S*list-type=2\S*music", request):
            listing.set()
            killed.wait(60)
            return b""
        return request

    with proxy(os.environ["AWS_ENDPOINT_URL"], hold) as endpoint:
        run = start(
            index_job.__file__, "--audio", f"{s3}/listing/music", "--catalog", root,
            output=tmp_path / "output.txt", AWS_ENDPOINT_URL=endpoint, **ray_address(),
        )  # fmt: skip
        assert listing.wait(60)
        run.kill()
        run.communicate()
        killed.set()
    assert storage.list_files(f"{s3}/listing") == before


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(night: Night, tmp_path: Path) -> None:
    root = kills.copy(night.first, str(tmp_path / "catalog"))
    run = start(
        index_job.__file__, *index_arguments(night, root),
        output=tmp_path / "output.txt", **ray_address(),
    )  # fmt: skip
    killed = 0
    while run.poll() is None and killed < 2:
        time.sleep(0.05)
        workers = [p for p in psutil.Process().children(recursive=True) if "MapWorker" in _title(p)]
        if workers:
            os.kill(workers[0].pid, signal.SIGKILL)
            killed += 1
            time.sleep(2.0)
    errors = run.communicate()[1]
    assert killed
    assert run.returncode == 0, errors
    assert content(root) == night.result


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_a_bad_store_is_survived_or_leaves_the_old_snapshot(
    s3: str, night: Night, tmp_path: Path
) -> None:
    """2 % of the requests are cut off and all are slow."""
    root = kills.copy(night.first, f"{s3}/bad-store")
    before = content(root)
    for attempt in range(3):
        random_ = random.Random(attempt)

        def disturb(request: bytes, random_: random.Random = random_) -> bytes:
            time.sleep(random_.uniform(0.0, 0.02))
            return request[: len(request) // 2] if random_.random() < 0.02 else request

        with proxy(os.environ["AWS_ENDPOINT_URL"], disturb) as endpoint:
            run = start(
                index_job.__file__, *index_arguments(night, root),
                output=tmp_path / "output.txt", AWS_ENDPOINT_URL=endpoint,
            )  # fmt: skip
            errors = run.communicate()[1]
        assert content(root) == (night.result if run.returncode == 0 else before), errors
        if run.returncode == 0:
            break
        assert "error: " in errors
    else:
        pytest.fail("three runs failed")
    assert maintain.verify(root)["damaged"] == 0


@pytest.mark.slow
def test_a_store_that_stops_ends_the_run_in_one_line(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "server", tmp_path / "output.txt"
    folder.mkdir()
    root = "s3://outage/catalog"
    arguments = index_arguments(night, root)
    with s3_server.running("outage", str(folder)) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        before = content(kills.copy(night.first, root))
        run = start(index_job.__file__, *arguments, output=output)
        assert wait_for(EMBEDDING, run, root, output)
    errors = run.communicate()[1]
    assert run.returncode == 1
    assert "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert last.startswith("error: s3://outage/catalog/")
    assert last.endswith("check AWS_ENDPOINT_URL and the network")
    with s3_server.running("outage", str(folder)) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        assert content(root) == before
        run = start(index_job.__file__, *arguments, output=output)
        errors = run.communicate()[1]
        assert run.returncode == 0, errors
        assert content(root) == night.result
        assert maintain.verify(root)["damaged"] == 0


@pytest.mark.slow
def test_leftovers_that_are_too_old_are_not_used(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = kills.copy(night.first, str(tmp_path / "catalog"))
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "publish", lambda *_: None)
        index_catalog(str(night.audio), root, encoders=Encoders(1))
    monkeypatch.setattr("grafp.catalog.catalog.REUSE_SECONDS", 0)
    assert index_catalog(str(night.audio), root, encoders=Encoders(1))["resumed"] == 0
    assert content(root) == night.result
