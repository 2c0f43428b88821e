"""The report of a query batch, from real recordings: what it reads once more, and what it bears."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from grafp.audio import SAMPLE_RATE, decode, encode, synthesis
from grafp.audio.degrade import cut_degraded
from pipelines.indexing.flow import index_catalog

pytestmark = pytest.mark.usefixtures("ray_here")
FIRST_S, FAST = 2.0, 1.04


@pytest.fixture(scope="module")
def tracks(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tracks of their own: tests remove their files."""
    folder = tmp_path_factory.mktemp("tracks")
    for path in sorted(music.iterdir())[:4]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def root(tracks: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> str:
    root = str(tmp_path_factory.mktemp("catalog"))
    index_catalog(str(tracks), root)
    return root


@pytest.fixture(scope="module")
def clips(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that begins before its track, a fast one, a long one, and one that is text."""
    folder = tmp_path_factory.mktemp("clips")
    one_S, two_S, three_S, _ = (decode(path.read_bytes()) for path in sorted(tracks.iterdir()))
    noise_S = synthesis.noise(0, 4.0)
    fast_S = cut_degraded(two_S, 32_000, 4.0, snr_db=20.0, noise_S=noise_S, rir_S=None, speed=FAST)
    sounds = {
        "early": np.concatenate([noise_S[: round(FIRST_S * SAMPLE_RATE)], one_S[:48_000]]),
        "fast": fast_S,
        "long": np.concatenate([synthesis.noise(3, 12.0), three_S]),
    }
    for name, samples_S in sounds.items():
        (folder / f"{name}.wav").write_bytes(encode(0.5 * samples_S, "wav"))
    (folder / "text.mp3").write_bytes(b"this is not music")
    return folder
