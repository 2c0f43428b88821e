"""Loudspeakers, microphones, overdrive and codecs: what they change, and that nothing moves."""

import math

import av
import numpy as np
import pytest
import torch

from grafp.audio import synthesis
from grafp.audio.effects import BANDS, Codecs, overdrive, respond
from grafp.errors import TrainingError
from grafp.training.augment import Augmenter
from grafp.training.config import AugmentConfig

SECOND = 16_000
FLAT_BN, NO_LOW, NO_HIGH = torch.zeros(1, BANDS), torch.zeros(1, 1), torch.full((1, 1), 1e6)


def music(count: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.stack([synthesis.piece(seed, 1.0) for seed in range(count)]))


def lag_samples(one_S: torch.Tensor, other_S: torch.Tensor) -> int:
    """By how much the second sound is later, at the peak of the cross-correlation."""
    product_F = torch.fft.rfft(other_S, 32_768) * torch.fft.rfft(one_S, 32_768).conj()
    position = int(torch.fft.irfft(product_F).argmax())
    return position - 32_768 if position > 16_384 else position


def gain_db(hertz: float, *response: torch.Tensor) -> float:
    tone = torch.sin(2 * math.pi * hertz / SECOND * torch.arange(SECOND))[None]
    heard = respond(tone, *response)[0, 4000:12_000]
    return 10 * math.log10(float(2 * heard.square().mean()))


def test_a_flat_response_changes_nothing_and_one_band_changes_its_own() -> None:
    torch.testing.assert_close(
        respond(music(), FLAT_BN, NO_LOW, NO_HIGH), music(), rtol=0, atol=1e-4
    )
    one_band = FLAT_BN.clone()
    one_band[0, 5] = -9.0  # bands are 0.785 of an octave apart, the sixth is at 908 Hz
    assert gain_db(908, one_band, NO_LOW, NO_HIGH) == pytest.approx(-9, abs=0.2)
    assert gain_db(100, one_band, NO_LOW, NO_HIGH) == pytest.approx(0, abs=0.1)
    assert gain_db(4000, one_band, NO_LOW, NO_HIGH) == pytest.approx(0, abs=0.1)


def test_a_small_speaker_has_neither_the_lowest_nor_the_highest_tones() -> None:
    cuts = FLAT_BN, torch.full((1, 1), 400.0), torch.full((1, 1), 4000.0)
    assert gain_db(1200, *cuts) == pytest.approx(0, abs=0.2)
    assert gain_db(400, *cuts) == pytest.approx(-3, abs=0.2)
    assert gain_db(200, *cuts) == pytest.approx(-12.3, abs=0.5)
    assert gain_db(4000, *cuts) == pytest.approx(-3, abs=0.2)
    assert gain_db(7900, *cuts) == pytest.approx(-23.7, abs=0.8)


def test_a_response_does_not_move_a_click_or_wrap_round() -> None:
    clicks = torch.zeros(3, SECOND)
    clicks[range(3), [40, 8000, 15_990]] = 1.0
    rough = 8 * torch.randn(3, BANDS, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    heard = respond(clicks, rough, torch.full((3, 1), 400.0), torch.full((3, 1), 4000.0))
    assert heard.abs().argmax(dim=1).tolist() == [40, 8000, 15_990]
    assert float(heard[0, 8000:].abs().max()) < 1e-3
    assert float(heard[2, :8000].abs().max()) < 1e-3


def test_overdrive_cuts_what_is_above_full_scale() -> None:
    quiet, above_db = music(2) * 0.01, torch.tensor([[0.0], [20.0]])
    hard = overdrive(quiet, above_db, torch.zeros(2, 1, dtype=torch.bool))
    torch.testing.assert_close(hard[0], quiet[0] / quiet[0].abs().max())
    relative_S = quiet[1].abs() / quiet[1].abs().max()
    assert 0.05 < float((relative_S > 0.1).float().mean()) < 0.95
    torch.testing.assert_close(hard[1].abs(), (10 * relative_S).clamp_max(1))
    soft = overdrive(quiet, above_db, torch.ones(2, 1, dtype=torch.bool))
    assert float(soft.abs().max()) <= 1
    assert bool((soft.abs() <= hard.abs() + 1e-6).all())
    assert not overdrive(torch.zeros(2, SECOND), above_db, above_db > 0).any()


@pytest.mark.parametrize("name", Codecs.NAMES)
def test_a_codec_neither_moves_nor_lengthens_a_clip(name: str) -> None:
    clips = music(3) * torch.tensor([[0.1], [1.0], [3.0]])  # louder than full scale too
    heard = Codecs()(clips, [name] * 3, [24.0, 32.0, 64.0])
    assert heard.shape == clips.shape
    for clean_S, coded_S in zip(clips, heard):
        assert abs(lag_samples(clean_S, coded_S)) <= 1
        error = (clean_S - coded_S).square().mean() / clean_S.square().mean()
        assert 1e-6 < float(error) < 0.1
    assert not Codecs()(torch.zeros(1, SECOND), [name], [32.0]).abs().gt(1e-3).any()


def test_a_lower_rate_leaves_more_out() -> None:
    clip = music(1)
    for name in Codecs.NAMES:
        low, high = Codecs()(clip.repeat(2, 1), [name] * 2, [24.0, 64.0])
        assert float((low - clip).square().mean()) > 1.5 * float((high - clip).square().mean())


def test_a_missing_encoder_is_named_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"libmp3lame"})
    Augmenter([], [], AugmentConfig(), torch.device("cpu"))
    with pytest.raises(TrainingError, match="libopus"):
        Augmenter([], [], AugmentConfig(codec=0.1), torch.device("cpu"))
