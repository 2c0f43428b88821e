"""Exact fingerprints of tracks: copied to this machine, or read from the store by ranges."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vectors

from grafp import storage
from grafp.catalog import opened
from grafp.catalog.embeddings import EMBEDDING_SCHEMA, write_embeddings
from grafp.catalog.opened import StoredVectors
from grafp.errors import CatalogError, DiskFull, StorageError
from grafp.storage import copies

LENGTHS = (30, 5, 17)


def row(name: str, track_ND: np.ndarray) -> dict[str, Any]:
    return {
        **dict.fromkeys(EMBEDDING_SCHEMA.names),
        "uri": name, "track_id": name, "n_segments": len(track_ND), "embeddings": track_ND,
    }  # fmt: skip


@pytest.fixture
def stored(s3: str, request: pytest.FixtureRequest) -> tuple[StoredVectors, np.ndarray]:
    """Three tracks in each of two files, and all their fingerprints."""
    root, files, positions, parts = f"{s3}/{request.node.name}", [], [], []
    for file in range(2):
        tracks = [vectors.recording(n, 10 * file + n)[::10].astype(np.float16) for n in LENGTHS]
        rows = [row(f"{file} {n}", track) for n, track in enumerate(tracks)]
        key, at = write_embeddings(root, "e", rows)
        files.append(key)
        positions += at
        parts += tracks
    first_row_T = np.cumsum([0, *map(len, parts)])[:-1]
    file_T = np.repeat([0, 1], len(LENGTHS))
    found = StoredVectors(root, files, file_T, np.array(positions), first_row_T)
    return found, np.concatenate(parts).astype(np.float32)


def test_a_full_disk_has_the_fingerprints_read_from_the_store(
    stored: tuple[StoredVectors, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found, exact_ND = stored
    monkeypatch.setattr(copies, "KEPT_FREE", 1.0)
    asked: list[int] = []
    read = storage.read_ranges

    def counted(uri: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        asked.append(len(ranges))
        return read(uri, ranges)

    monkeypatch.setattr(storage, "read_ranges", counted)
    rows = np.array([3, 4, 5, 90, 1, 4, 40, 41, 60])
    with caplog.at_level("WARNING", logger="grafp"):
        np.testing.assert_array_equal(found[rows], exact_ND[rows])
    everything = np.arange(len(exact_ND))
    np.testing.assert_array_equal(found[everything], exact_ND)
    assert asked[:2] == [3, 2]  # 1; 3 to 5; 40 and 41, and in the other file 60; 90
    assert asked[2:] == [3, 3]  # a range for each track
    [line] = [record.getMessage() for record in caplog.records]
    assert "the disk is full" in line
    assert "set TMPDIR" in line
    assert line.endswith("fingerprints are read from the store")


def test_both_ways_are_the_same(
    stored: tuple[StoredVectors, np.ndarray],
) -> None:
    found, exact_ND = stored
    rows = np.random.default_rng(0).permutation(len(exact_ND))
    np.testing.assert_array_equal(found[rows], exact_ND[rows])


def test_a_file_that_is_cut_off_is_told_when_it_is_read_by_ranges(
    stored: tuple[StoredVectors, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, exact_ND = stored
    monkeypatch.setattr(copies, "KEPT_FREE", 1.0)
    uri = storage.join(found._root, found._files[1])
    storage.write(uri, storage.read(uri)[:2000])
    with pytest.raises((CatalogError, StorageError), match=r"cut off|range is not"):
        found[np.arange(len(exact_ND))]


def test_a_copy_for_which_there_is_no_room_is_an_error(
    s3: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write(f"{s3}/large", b"x" * 1000)
    monkeypatch.setattr(copies, "KEPT_FREE", 1.0)
    with pytest.raises(DiskFull, match="GB are free"):
        storage.local_copy(f"{s3}/large", str(tmp_path))


def test_what_is_asked_once_is_not_copied(
    stored: tuple[StoredVectors, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, exact_ND = stored
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    once = StoredVectors(
        found._root, found._files, found._file_T, found._position_T, found._first_row_T,
        copied=False,
    )  # fmt: skip
    np.testing.assert_array_equal(once[np.arange(40)], exact_ND[:40])
    assert not list(tmp_path.iterdir())
    found[np.arange(40)]
    assert list(tmp_path.rglob("*.parquet"))


def test_the_store_is_asked_once_for_a_file(
    stored: tuple[StoredVectors, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is mapped anew, since only some are at a time; a lost copy is made again."""
    found, exact_ND = stored
    monkeypatch.setattr(opened, "_MAPPED", 1)
    copied: list[str] = []
    copy = storage.local_copy

    def counted(uri: str, folder: str) -> str:
        copied.append(uri)
        return copy(uri, folder)

    monkeypatch.setattr(storage, "local_copy", counted)
    rows = np.arange(len(exact_ND))
    for _ in range(3):
        np.testing.assert_array_equal(found[rows], exact_ND[rows])
    assert len(copied) == 2
    for path in found._paths.values():
        os.unlink(path)
    np.testing.assert_array_equal(found[rows[::-1]], exact_ND[rows[::-1]])
    assert len(copied) in (3, 4)  # one may still be mapped
