"""Rooms and noise: what they add, how much of it, and when."""

import numpy as np
import pytest
import torch

from grafp import synth
from grafp.augment import AugmentConfig, Augmenter
from grafp.noises import add_at_snr
from grafp.rooms import direct_first

CPU = torch.device("cpu")
SECOND = 16_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def measured_snr_db(clean_BS: torch.Tensor, noisy_BS: torch.Tensor) -> torch.Tensor:
    noise_BS = noisy_BS - clean_BS
    return 10 * torch.log10(clean_BS.square().mean(dim=1) / noise_BS.square().mean(dim=1))


def clips(count: int) -> torch.Tensor:
    """A second of past and a second to keep, of differing loudness."""
    tracks = torch.from_numpy(np.stack([synth.piece(seed, 2.0) for seed in range(count)]))
    return tracks * torch.linspace(0.1, 1.0, count)[:, None]


@pytest.mark.parametrize("second_noise", [0.0, 1.0])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 15.0])
def test_noise_has_the_ratio_that_was_asked_for(snr_db: float, second_noise: float) -> None:
    noises = [torch.from_numpy(synth.noise(seed, 3.0)) * 0.1 for seed in range(4)]
    noises.append((noises[0] * 32767).short()[:5000])  # a short one is repeated
    config = AugmentConfig(
        reverb=0.0, noise=1.0, second_noise=second_noise, music_noise=0.0, snr_db=(snr_db, snr_db)
    )
    clean = clips(6)
    noisy = Augmenter(noises, [], config, CPU)(clean, generator())
    asked = torch.full((6,), snr_db)
    measured = measured_snr_db(clean[:, SECOND:], noisy)  # on what is kept, not on the past
    torch.testing.assert_close(measured, asked, rtol=0, atol=0.01)


def test_each_clip_gets_its_own_ratio_from_the_range() -> None:
    noises = [torch.from_numpy(synth.noise(seed, 3.0)) for seed in range(4)]
    config = AugmentConfig(reverb=0.0, noise=1.0, snr_db=(-2.0, 20.0))
    clean = clips(4).repeat(25, 1)
    measured = measured_snr_db(
        clean[:, SECOND:], Augmenter(noises, [], config, CPU)(clean, generator())
    )
    assert -2.01 < float(measured.min()) < 1
    assert 17 < float(measured.max()) < 20.01


def test_silence_stays_silent_and_silent_noise_adds_nothing() -> None:
    music_BS, silence_BS, ratio = clips(2), torch.zeros(2, 2 * SECOND), torch.zeros(2, 1)
    assert not add_at_snr(silence_BS, music_BS, ratio).any()
    assert torch.equal(add_at_snr(music_BS, silence_BS, ratio), music_BS)


def room_with_echo(delay: int, leading: int = 0) -> torch.Tensor:
    room = torch.zeros(leading + delay + 1)
    room[leading], room[leading + delay] = 1.0, 0.5
    return room


def click(place: int) -> torch.Tensor:
    """One click, `place` samples after the beginning of what is kept."""
    clip = torch.zeros(1, 2 * SECOND)
    clip[0, SECOND + place] = 1.0
    return clip


def reverberated(clip_BS: torch.Tensor, room: torch.Tensor, dry_past: float = 0.0) -> torch.Tensor:
    config = AugmentConfig(reverb=1.0, dry_past=dry_past)
    return Augmenter([], [room], config, CPU)(clip_BS, generator())[0]


def test_a_room_carries_the_past_into_the_kept_second() -> None:
    room = room_with_echo(1600)
    wet = reverberated(click(-800), room)
    assert int(wet.abs().argmax()) == 800
    assert float(wet[800]) == pytest.approx(0.5 / 1.25**0.5, rel=1e-4)
    assert float(wet.abs().sum() - wet[800].abs()) < 1e-3
    assert reverberated(click(-800), room, dry_past=1.0).abs().max() < 1e-6
    kept = reverberated(click(800), room, dry_past=1.0)
    assert kept.abs().topk(2).indices.tolist() == [800, 2400]


def test_a_room_does_not_move_what_is_heard_first() -> None:
    for leading in (0, 300, 5000):
        wet = reverberated(click(4000), room_with_echo(1600, leading))
        assert wet.abs().topk(2).indices.tolist() == [4000, 5600]


def test_the_direct_sound_comes_before_a_louder_reflection() -> None:
    room = torch.zeros(1000)
    room[50], room[100], room[200] = 0.01, 0.6, -1.0
    trimmed = direct_first(room)
    assert len(trimmed) == 900
    assert float(trimmed[0]) == pytest.approx(0.6 / 1.36**0.5, rel=1e-3)
    assert float(trimmed.square().sum()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("length", [1, 5_000, 16_000, 40_000])
def test_reverberation_is_a_convolution_with_the_first_second_of_the_room(length: int) -> None:
    room = np.random.default_rng(0).standard_normal(length) * np.exp(-np.arange(length) / 8_000)
    room[0] = 5.0
    clip = clips(3)[2:]
    heard = direct_first(torch.from_numpy(room))[:SECOND].double().numpy()
    wanted = np.convolve(clip[0].double().numpy(), heard)[SECOND : 2 * SECOND]
    wet = reverberated(clip, torch.from_numpy(room))
    torch.testing.assert_close(wet, torch.from_numpy(wanted).float(), rtol=0, atol=1e-4)


def test_the_generators_state_decides_everything() -> None:
    noises = [torch.from_numpy(synth.noise(seed, 3.0)) for seed in range(3)]
    rooms = [torch.from_numpy(synth.room(seed)) for seed in range(3)]
    augmenter, clean = Augmenter(noises, rooms, AugmentConfig(), CPU), clips(8)
    random = generator(5)
    first, next_one = augmenter(clean, random), augmenter(clean, random)
    torch.rand(3)  # the global generator plays no part
    assert torch.equal(augmenter(clean, generator(5)), first)
    assert not torch.equal(next_one, first)
    assert torch.equal(clean, clips(8))


def test_without_noises_and_rooms_the_kept_second_passes() -> None:
    clean = clips(3)
    assert torch.equal(
        Augmenter([], [], AugmentConfig(), CPU)(clean, generator()), clean[:, SECOND:]
    )
