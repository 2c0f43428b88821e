"""Other speeds and pitches: how much, how clean, and that nothing moves."""

import math

import pytest
import torch

from grafp.audio.speed import change_pitch, change_speed

CENTER, SAMPLES = 24_000, 32_800
TIME_S = torch.arange(SAMPLES, dtype=torch.float64)


def tone(hertz: float) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz / 16_000 * TIME_S).float()[None]


def loudest_hertz(sound_BS: torch.Tensor) -> float:
    middle_S = sound_BS[0, 4000:28_000]
    return float(torch.fft.rfft(middle_S * torch.hann_window(24_000)).abs().argmax()) / 1.5


def level_db(sound_BS: torch.Tensor) -> float:
    return 10 * math.log10(float(2 * sound_BS[0, 4000:28_000].square().mean()))


@pytest.mark.parametrize("rate", [0.97, 1.0, 1.03])
def test_another_speed_is_the_same_sound_at_other_times(rate: float) -> None:
    for hertz in (100, 1000, 6000):
        phase_S = 2 * math.pi * hertz / 16_000 * (CENTER + (TIME_S - CENTER) * rate)
        played = change_speed(tone(hertz), torch.tensor([[rate]]), CENTER)
        error = (played[0] - phase_S.sin())[2000:31_000]
        assert float(error.abs().max()) < 0.01


def test_the_center_of_another_speed_stays_in_place_and_each_clip_has_its_own() -> None:
    clicks = torch.zeros(3, SAMPLES)
    clicks[:, [CENTER - 4000, CENTER, CENTER + 4000]] = 1.0
    played = change_speed(clicks, torch.tensor([[0.8], [1.0], [1.25]]), CENTER)
    for row, distance in zip(played, (5000, 4000, 3200)):
        positions = sorted(row.topk(3).indices.tolist())
        assert positions == [CENTER - distance, CENTER, CENTER + distance]


def test_what_a_faster_speed_lifts_over_the_band_does_not_come_back_as_another_tone() -> None:
    played = change_speed(tone(7850), torch.tensor([[1.03]]), CENTER)  # 8085 Hz: an alias at 7915
    assert level_db(played) < -35
    assert level_db(change_speed(tone(6900), torch.tensor([[1.03]]), CENTER)) > -1
    assert level_db(change_pitch(tone(7600), 2.0)) < -35


def test_a_clip_that_ends_too_early_repeats_its_edge() -> None:
    played = change_speed(torch.linspace(0, 1, 32_000)[None], torch.tensor([[1.03]]), CENTER)
    assert torch.allclose(played[0, -200:], torch.ones(()), atol=1e-3)


@pytest.mark.parametrize("semitones", [-2.0, -0.5, 1.0])
def test_another_pitch_is_as_high_as_asked(semitones: float) -> None:
    sung = change_pitch(tone(1000), semitones)
    assert sung.shape == (1, SAMPLES)
    assert loudest_hertz(sung) == pytest.approx(1000 * 2 ** (semitones / 12), abs=1)


@pytest.mark.parametrize("semitones", [-2.0, -1.0, 1.0, 2.0])
def test_another_pitch_leaves_beats_in_place(semitones: float) -> None:
    beats, positions = torch.zeros(8, SAMPLES), range(2500, 31_000, 4000)
    random = torch.Generator().manual_seed(0)
    for position in positions:
        beats[:, position - 200 : position + 200] = torch.randn(8, 400, generator=random)
    moved = []
    for heard_BS in (beats, change_pitch(beats, semitones)):
        around = torch.stack([heard_BS[:, p - 1500 : p + 1500] for p in positions]).square()
        moved.append((around * torch.arange(3000)).sum(-1) / around.sum(-1))
    shift = moved[1] - moved[0]
    assert abs(float(shift.mean())) < 48  # 3 ms of a vocoder's blur
    assert float(shift.abs().max()) < 240
