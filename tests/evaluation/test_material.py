"""Noises and impulse responses of an evaluation, as int16."""

from pathlib import Path

import numpy as np

from grafp.audio import encode, to_pcm
from grafp.datasets import waveforms
from grafp.storage.sources import list_items


def test_samples_are_rounded_and_clipped() -> None:
    samples_S = np.array([0.6, -0.6, 0.4, -0.4, 32767, -32767, 40_000, -40_000], np.float32)
    pcm_S = to_pcm(samples_S / np.float32(32767))
    assert pcm_S.dtype == np.int16
    assert pcm_S.tolist() == [1, -1, 0, 0, 32767, -32767, 32767, -32767]


def test_noises_keep_the_samples_of_their_files(tmp_path: Path) -> None:
    wave_S = np.tile(np.array([100, -100, 1, -1, 0], np.int16), 1000)
    (tmp_path / "noise.wav").write_bytes(encode(wave_S.astype(np.float32) / 32768))
    (tmp_path / "broken.wav").write_bytes(b"no noise")
    [pcm_S] = waveforms(list_items(str(tmp_path)))
    assert np.array_equal(pcm_S, wave_S)
