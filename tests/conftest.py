"""Fixtures shared by all tests."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_head
import s3_server

# Two threads sum in no fixed order, and on a busy machine small networks wait for both.
os.environ["OMP_NUM_THREADS"] = "1"

_SLOW_TIMEOUT_S = 1800  # those that are not slow have `timeout` in pyproject.toml

_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_TIMEOUT_S))


@pytest.fixture(scope="session")
def short_sounds() -> Iterator[None]:
    """Sounds of a background that are no music last a second, not twelve: training ends sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grafp.training.background._STEADY", 16_000)
        patch.setattr("grafp.training.background._CHORD", 2_667)
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URI of a bucket on a real S3 server, which the AWS_* variables point to."""
    folder = str(tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as patch, s3_server.running("grafp-tests", folder) as server:
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server.uri


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty place, once as a local folder and once as a prefix on S3."""
    return _place(request, tmp_path)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def long_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Like `store`, for longer tests: on S3 with `make check-all` only."""
    return _place(request, tmp_path)


def _place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path)
    return f"{request.getfixturevalue('s3')}/test-{next(_numbers)}"


@pytest.fixture(scope="session")
def ray_here(s3: str) -> Iterator[None]:
    """One local Ray for all tests, its workers with the variables that point to the S3 server.

    In tests/support is a package with an encoder of its own, which workers find as if installed.
    """
    import ray

    path = [str(Path(__file__).parent / "support"), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR")
    with pytest.MonkeyPatch.context() as patch:
        # Without a calibration each index run is some seconds faster; `calibration` has one.
        patch.setattr("pipelines.indexing.calibrate.CLIPS", 0)
        yield
    ray.shutdown()


@pytest.fixture(scope="module")
def calibration(ray_here: None) -> Iterator[None]:
    """Index runs calibrate, with a fifth of the clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.indexing.calibrate.CLIPS", 40)
        yield


@pytest.fixture(scope="session")
def head(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ray_head.Head]:
    """A Ray head with a token, its workers with the variables that point to the S3 server."""
    with ray_head.running(tmp_path_factory.mktemp("client")) as started:
        yield started


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short pieces, one in each format in which most music is stored."""
    from grafp.audio import COMMON, encode, synthesis

    folder = tmp_path_factory.mktemp("music")
    for seed, extension in enumerate(COMMON):
        data = encode(synthesis.piece(seed, 12.0), extension[1:])
        (folder / f"piece {seed} é{extension}").write_bytes(data)
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many runs tests/test_kill.py killed, when, and what that lost and doubled."""
    kills = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "kill"
    ]
    if kills:
        moments = Counter(moment for moment, *_ in kills)
        told = ", ".join(f"{moment} {count}" for moment, count in sorted(moments.items()))
        half, lost, doubled = (sum(numbers) for numbers in zip(*(rest for _, *rest in kills)))
        terminalreporter.write_line(f"{len(kills)} runs killed ({told})")
        terminalreporter.write_line(f"{half} shards left without their record")
        terminalreporter.write_line(f"{lost} tracks lost, {doubled} doubled")
