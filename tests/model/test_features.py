"""A second of audio has one spectrogram, wherever the second is cut from."""

import numpy as np
import pytest
import torch
from torch import nn

from grafp.audio import SAMPLE_RATE, SILENCE_PEAK, synthesis
from grafp.model.features import is_silent, log_mel
from grafp.model.fingerprint import DIMENSION, SEGMENT_SAMPLES
from grafp.model.inference import Fingerprinter
from grafp.model.presets import PRESETS
from grafp.model.spectrogram import SPECTROGRAMS
from grafp.training.data.buffer import Waveforms
from grafp.training.data.sampler import PairSampler


def music_pcm(seconds: float = 6.0) -> np.ndarray:
    """Music as training holds it, int16."""
    return (synthesis.piece(3, seconds) * 32767).astype(np.int16)


def floats(pcm: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pcm.astype(np.float32) / 32768)


class Recorder(nn.Module):
    """An encoder that keeps what it is given."""

    config = PRESETS["small"]

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        self.seen.append(mel_BFT.clone())
        return torch.ones(len(mel_BFT), DIMENSION) / DIMENSION**0.5


def indexing_spectrograms(samples_S: np.ndarray) -> torch.Tensor:
    """What an encoder sees of a whole recording, one spectrogram every 0.1 s."""
    recorder = Recorder()
    Fingerprinter(recorder, torch.device("cpu"))(samples_S)
    return torch.cat(recorder.seen)


def assert_same(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_a_second_is_64_by_32_from_0_to_1() -> None:
    mel = log_mel(floats(music_pcm()).unfold(0, SEGMENT_SAMPLES, 8000))
    assert mel.shape == (11, 64, 32)
    assert mel.dtype == torch.float32
    assert (mel.amax(dim=(1, 2)) == 1.0).all()
    assert (mel >= 0.0).all()
    assert mel.std() > 0.1


def test_a_tone_lights_up_its_own_band_in_every_frame() -> None:
    time_s = torch.arange(SEGMENT_SAMPLES) / SAMPLE_RATE
    tones = torch.stack([torch.sin(2 * torch.pi * hertz * time_s) for hertz in (200, 1000, 5000)])
    loudest = log_mel(tones).argmax(dim=1)
    assert (loudest == loudest[:, :1]).all()
    assert loudest[0, 0] < loudest[1, 0] < loudest[2, 0]


def test_indexing_a_recording_and_a_lone_second_give_the_same() -> None:
    samples = floats(music_pcm(15.0))  # 141 seconds: more than one batch
    mel = indexing_spectrograms(samples.numpy())
    assert len(mel) == 141
    for number in (0, 1, 57, 127, 128, 140):
        start = number * 1600
        assert_same(mel[number], log_mel(samples[None, start : start + SEGMENT_SAMPLES])[0])


def test_training_and_indexing_see_the_same_of_a_second() -> None:
    pcm = music_pcm()
    sampler = PairSampler(Waveforms.of([torch.from_numpy(pcm)]), pairs=6, per_track=6)
    anchors, _ = sampler.draw(np.random.default_rng(0), 0)
    beginnings = np.lib.stride_tricks.sliding_window_view(pcm, 64)
    for anchor, trained in zip(anchors, log_mel(anchors), strict=True):
        head = (anchor[:64] * 32768).short().numpy()
        [start] = np.flatnonzero((beginnings == head).all(axis=1))
        recording = pcm[start % 1600 :]  # so that this second lies on the grid
        mel = indexing_spectrograms(floats(recording).numpy())
        assert_same(trained, mel[start // 1600])


def test_what_surrounds_a_second_does_not_matter() -> None:
    quiet, loud = floats(music_pcm()).numpy().copy(), floats(music_pcm()).numpy().copy()
    quiet[:32_000], quiet[48_000:] = 0.0, 0.0
    rng = np.random.default_rng(0)
    loud[:32_000] = rng.uniform(-1, 1, 32_000)
    loud[48_000:] = rng.uniform(-1, 1, len(loud) - 48_000)
    first, second = indexing_spectrograms(quiet), indexing_spectrograms(loud)
    assert_same(first[20], second[20])
    assert (first[19] - second[19]).abs().max() > 0.1


@pytest.mark.parametrize("gain", [1e-3, 0.03, 10.0, 1e4])
def test_loudness_does_not_matter(gain: float) -> None:
    segments = floats(music_pcm()).unfold(0, SEGMENT_SAMPLES, 8000)
    assert_same(log_mel(segments * gain), log_mel(segments))


def test_sixteen_bits_are_enough() -> None:
    exact = torch.from_numpy(synthesis.piece(3, 6.0)).unfold(0, SEGMENT_SAMPLES, 8000)
    rounded = floats(music_pcm()).unfold(0, SEGMENT_SAMPLES, 8000)
    assert (log_mel(exact) - log_mel(rounded)).abs().mean() < 0.005


def constant(value: float) -> torch.Tensor:
    return torch.full((1, SEGMENT_SAMPLES), value)


@pytest.mark.parametrize(
    "segment",
    [
        pytest.param(constant(0.0), id="zeros"),
        pytest.param(constant(-0.0), id="negative zeros"),
        pytest.param(constant(1e-40), id="denormal numbers"),
        pytest.param(constant(0.99 * SILENCE_PEAK), id="DC below the limit"),
        pytest.param(torch.rand(1, SEGMENT_SAMPLES) * 0.99 * SILENCE_PEAK, id="faint noise"),
    ],
)
def test_silence_is_marked_and_gives_zeros(segment: torch.Tensor) -> None:
    assert is_silent(segment).all()
    assert not log_mel(segment).any()


@pytest.mark.parametrize(
    "segment",
    [
        pytest.param(constant(0.5), id="DC"),
        pytest.param(constant(-1e6), id="loud DC"),
        pytest.param(torch.eye(1, SEGMENT_SAMPLES) * 2e-4, id="one faint click"),
        pytest.param(torch.eye(1, SEGMENT_SAMPLES) * 1e6, id="one loud click"),
        pytest.param(torch.randn(1, SEGMENT_SAMPLES) * 1e5, id="loud noise"),
    ],
)
def test_odd_sounds_still_give_numbers_from_0_to_1(segment: torch.Tensor) -> None:
    mel = log_mel(segment)
    assert not is_silent(segment).any()
    assert ((mel >= 0.0) & (mel <= 1.0)).all()


def test_one_silent_second_in_a_batch_changes_only_itself() -> None:
    segments = floats(music_pcm())[:48_000].view(3, SEGMENT_SAMPLES).clone()
    before = log_mel(segments)
    segments[1] = 0.0
    assert is_silent(segments).tolist() == [False, True, False]
    assert_same(log_mel(segments)[::2], before[::2])


@pytest.mark.parametrize("shape", [(1, 15_999), (1, 16_001), (2, 0), (16_000,), (1, 1, 16_000)])
def test_other_lengths_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="16000 samples"):
        log_mel(torch.zeros(shape))


@pytest.mark.parametrize("name", SPECTROGRAMS)
def test_every_spectrogram_has_whole_frames_and_no_empty_band(name: str) -> None:
    sizes = SPECTROGRAMS[name]
    assert sizes.window + (sizes.frames - 1) * sizes.hop <= SEGMENT_SAMPLES
    assert sizes.window + sizes.frames * sizes.hop > SEGMENT_SAMPLES
    noise = torch.randn(2, SEGMENT_SAMPLES, generator=torch.Generator().manual_seed(0))
    mel = log_mel(0.1 * noise, name)
    assert mel.shape == (2, sizes.mels, sizes.frames)
    assert (mel > 0).all()
    assert mel.max() == 1
