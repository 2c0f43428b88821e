"""Decoding in Ray's workers, some of which die of a recording."""

import os
import signal
from pathlib import Path

import numpy as np
import ray.data

from grafp import storage, synth
from grafp.audio import decode, encode
from pipelines.decode import decode_row


def crash_or_decode(data: bytes, **options: float) -> np.ndarray:
    """Stands for a decoder with a defect: no file is known that crashes the real one."""
    if data.startswith(b"deadly"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode(data, **options)


def test_a_recording_that_crashes_its_worker_costs_its_row(ray_here: None, tmp_path: Path) -> None:
    contents = {
        "a.wav": encode(synth.piece(60, 3.0), "wav"),
        "b.wav": b"deadly",
        "c.wav": b"deadly too",
        "d.wav": encode(synth.piece(61, 3.0), "wav"),
    }
    for name, data in contents.items():
        storage.write(f"{tmp_path}/{name}", data)
    rows = [{"location": f"{tmp_path}/{name}", "size": 1} for name in contents]
    here = Path(__file__).parent
    path = {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    decoded = ray.data.from_items(rows, override_num_blocks=1).map(
        decode_row,
        fn_kwargs={"max_seconds": 60.0, "known": frozenset(), "decoder": crash_or_decode},
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
