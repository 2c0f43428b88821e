"""Fixtures shared by all tests."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server

_numbers = itertools.count()


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
    if request.param == "local":
        return str(tmp_path)
    return f"{request.getfixturevalue('s3')}/test-{next(_numbers)}"
