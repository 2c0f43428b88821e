"""JSON records: what is read, and how what cannot be read is named."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

import pytest

from grafp import storage
from grafp.errors import CatalogError, StorageError, TrainingError
from grafp.storage.records import parse_record, read_record


@dataclass(frozen=True)
class Part:
    key: str
    size: int
    span: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise TrainingError(f"size: {self.size} is below 0")


@dataclass(frozen=True)
class Whole:
    parts: list[Part]
    note: str | None = None


WHOLE = Whole([Part("a", 1, (0.5, 2.0)), Part("b", 0)])


def test_a_record_comes_back_as_it_was_written(store: str) -> None:
    uri = storage.join(store, "record.json")
    storage.write(uri, json.dumps(asdict(WHOLE)).encode())
    read = read_record(uri, Whole)
    assert read == WHOLE
    assert isinstance(read.parts[0].span, tuple)


def test_a_record_of_a_later_version_is_read() -> None:
    assert parse_record('{"key": "a", "size": 1, "new": [1]}', Part, "x") == Part("a", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^x\.json: damaged \(Invalid JSON"),
        ('{"parts": [', r"^x\.json: damaged \(Invalid JSON"),
        ("[]", r"^x\.json: damaged \(Input should be an object"),
        ("{}", r"^x\.json: damaged \(parts: Field required"),
        ('{"parts": [{"key": "a"}]}', r"parts\.0\.size: Field required"),
        ('{"parts": [{"key": "a", "size": "1"}]}', r"parts\.0\.size: .*valid integer"),
        ('{"parts": [{"key": "a", "size": true}]}', r"parts\.0\.size: .*valid integer"),
        ('{"parts": [{"key": "a", "size": 1, "span": [0]}]}', r"parts\.0\.span\.1: Field required"),
        ('{"parts": [{"key": "a", "size": -1}]}', r"^x\.json: size: -1 is below 0"),
    ],
)
def test_a_record_that_does_not_fit_is_one_line(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message) as raised:
        parse_record(text, Whole, "x.json", CatalogError)
    assert "\n" not in str(raised.value)


def test_a_record_that_is_not_there_is_named(store: str) -> None:
    uri = storage.join(store, "nothing.json")
    with pytest.raises(StorageError, match="not found") as raised:
        read_record(uri, Whole, CatalogError)
    assert str(raised.value).startswith(uri)


def test_importing_it_does_not_import_pydantic() -> None:
    code = "import sys, grafp.storage.records; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
