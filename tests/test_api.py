"""The library in a notebook: what it answers, and that it needs no index library for that."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import grafp
from grafp.audio import SAMPLE_RATE, encode, synthesis
from grafp.model.bundle import read_card


@pytest.fixture(scope="module")
def model() -> grafp.Model:
    return grafp.load_model()


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return synthesis.piece(3, 12.0)


def test_a_clip_is_located_with_the_models_offset_correction(
    model: grafp.Model, song: np.ndarray
) -> None:
    clip = song[3 * SAMPLE_RATE : 6 * SAMPLE_RATE]
    rows, clip_rows = model.fingerprint(song), model.fingerprint(clip)
    assert model.offset_correction_s == read_card("small").offset_correction_s != 0.0
    found = grafp.locate(clip_rows, rows)
    assert found == grafp.locate(clip_rows, rows, model=model)
    assert found
    assert found.start_s == pytest.approx(3.0 - model.offset_correction_s, abs=2e-3)
    assert found.score > 0.99
    other = replace(model, offset_correction_s=0.05)
    located = grafp.locate(clip_rows, rows, model=other)
    assert located
    assert located.start_s == pytest.approx(2.95, abs=2e-3)
    first = grafp.locate(rows[:20], rows, model=other)
    assert first
    assert first.start_s == 0.0  # no clip starts before its recording


def test_what_is_not_there_is_not_located(model: grafp.Model, song: np.ndarray) -> None:
    rows = model.fingerprint(song)
    assert grafp.locate(model.fingerprint(synthesis.piece(4, 3.0)), rows) is None
    assert grafp.locate(rows[:0], rows) is None


WITHOUT_FAISS = (
    "import sys; sys.modules['faiss'] = None; import grafp; model = grafp.load_model()\n"
)
FINGERPRINT = "rows = model.fingerprint(sys.argv[1]); print(rows.shape)\n"
LOCATE = "print(round(grafp.locate(rows[10:30], rows).start_s))\n"


@pytest.mark.parametrize(
    ("code", "output"), [(FINGERPRINT, "(31, 128)"), (FINGERPRINT + LOCATE, "(31, 128)\n1")]
)
def test_the_library_works_without_faiss(
    code: str, output: str, song: np.ndarray, tmp_path
) -> None:
    """As after `pip install .`, which installs no FAISS."""
    path = tmp_path / "song.wav"
    path.write_bytes(encode(song[: 4 * SAMPLE_RATE], "wav"))
    command = [sys.executable, "-c", WITHOUT_FAISS + code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == output, done.stderr
