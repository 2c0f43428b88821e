"""Decoding in Ray's workers, some of which die of a recording."""

import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import ray.data

from grafp import storage
from grafp.audio import decode, encode, synthesis
from pipelines.common.decode import guarded_row


def crash_or_decode(data: bytes, **options: float) -> np.ndarray:
    """Stands for a decoder with a defect: no file is known that crashes the real one."""
    if data.startswith(b"deadly"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode(data, **options)


@pytest.mark.slow
def test_a_recording_that_crashes_its_worker_costs_its_row(ray_here: None, tmp_path: Path) -> None:
    contents = {
        "a.wav": encode(synthesis.piece(60, 3.0), "wav"),
        "b.wav": b"deadly",
        "c.wav": b"deadly too",
        "d.wav": encode(synthesis.piece(61, 3.0), "wav"),
    }
    for name, data in contents.items():
        storage.write(f"{tmp_path}/{name}", data)
    rows = [{"location": f"{tmp_path}/{name}", "size": 1} for name in contents]
    here = Path(__file__).parent
    path = {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    decoded = ray.data.from_items(rows, override_num_blocks=1).map(
        guarded_row,
        fn_kwargs={"max_seconds": 60.0, "known": None, "decoder": crash_or_decode},
        runtime_env={"env_vars": path},
    )
    found = {Path(row["location"]).name: row for row in decoded.take_all()}
    assert {name: row["error"] for name, row in found.items()} == {
        "a.wav": None,
        "b.wav": "the decoder crashes on it",
        "c.wav": "the decoder crashes on it",
        "d.wav": None,
    }
    assert found["d.wav"]["pcm"] == decode(contents["d.wav"]).tobytes()


def test_a_machine_whose_disk_is_full_decodes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = encode(synthesis.piece(62, 3.0), "wav")
    storage.write(f"{tmp_path}/a.wav", sound)
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}/a.wav")  # nothing can be written there
    row = {"location": f"{tmp_path}/a.wav", "size": 1}
    found = guarded_row(row, max_seconds=60.0, known=None, decoder=decode)
    assert (found["status"], found["pcm"]) == ("ok", decode(sound).tobytes())


def test_a_mark_waits_for_no_disk_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(_file: int) -> None:
        raise AssertionError("a mark has to outlive its process, not the machine")

    sound, marks = encode(synthesis.piece(63, 3.0), "wav"), tmp_path / "marks"
    storage.write(f"{tmp_path}/a.wav", sound)
    marks.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(marks))
    monkeypatch.setattr(os, "fsync", wait)
    row = {"location": f"{tmp_path}/a.wav", "size": 1}
    assert guarded_row(row, max_seconds=60.0, known=None, decoder=decode)["status"] == "ok"
    assert not list(marks.glob("*/*"))
