"""Reverberation, noise and the rest: what they add, how much of it, and in which order."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from grafp.audio import synthesis
from grafp.audio.mixing import Noises, add_at_snr, direct_first
from grafp.training.augment import FUTURE_SAMPLES, Augmenter
from grafp.training.config import AugmentConfig, TrainConfig
from grafp.training.data.buffer import Waveforms
from grafp.training.data.sampler import PairSampler
from grafp.training.trainer import Trainer

CPU = torch.device("cpu")
SECOND = 16_000
CLEAN = AugmentConfig(reverb=0.0, noise=0.0)
SWITCHES = ("speed", "pitch", "loudspeaker", "microphone", "drive", "codec")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def measured_snr_db(clean_BS: torch.Tensor, noisy_BS: torch.Tensor) -> torch.Tensor:
    noise_BS = noisy_BS - clean_BS
    return 10 * torch.log10(clean_BS.square().mean(dim=1) / noise_BS.square().mean(dim=1))


def clips(count: int, seconds: float = 2.0) -> torch.Tensor:
    """A second of past and a second to keep, of differing loudness."""
    tracks = torch.from_numpy(np.stack([synthesis.piece(seed, seconds) for seed in range(count)]))
    return tracks * torch.linspace(0.1, 1.0, count)[:, None]


@pytest.mark.parametrize("second_noise", [0.0, 1.0])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 15.0])
def test_noise_has_the_ratio_that_was_asked_for(snr_db: float, second_noise: float) -> None:
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) * 0.1 for seed in range(4)]
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
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) for seed in range(4)]
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


def one_echo(delay: int, leading: int = 0) -> torch.Tensor:
    rir = torch.zeros(leading + delay + 1)
    rir[leading], rir[leading + delay] = 1.0, 0.5
    return rir


def click(position: int) -> torch.Tensor:
    """One click, `position` samples after the beginning of what is kept."""
    clip = torch.zeros(1, 2 * SECOND)
    clip[0, SECOND + position] = 1.0
    return clip


def reverberated(clip_BS: torch.Tensor, rir: torch.Tensor, dry_past: float = 0.0) -> torch.Tensor:
    config = AugmentConfig(reverb=1.0, dry_past=dry_past)
    return Augmenter([], [rir], config, CPU)(clip_BS, generator())[0]


def test_reverberation_carries_the_past_into_the_kept_second() -> None:
    rir = one_echo(1600)
    wet = reverberated(click(-800), rir)
    assert int(wet.abs().argmax()) == 800
    assert float(wet[800]) == pytest.approx(0.5 / 1.25**0.5, rel=1e-4)
    assert float(wet.abs().sum() - wet[800].abs()) < 1e-3
    assert reverberated(click(-800), rir, dry_past=1.0).abs().max() < 1e-6
    kept = reverberated(click(800), rir, dry_past=1.0)
    assert kept.abs().topk(2).indices.tolist() == [800, 2400]


def test_reverberation_does_not_move_the_direct_sound() -> None:
    for leading in (0, 300, 5000):
        wet = reverberated(click(4000), one_echo(1600, leading))
        assert wet.abs().topk(2).indices.tolist() == [4000, 5600]


def test_the_direct_sound_comes_before_a_louder_reflection() -> None:
    rir = torch.zeros(1000)
    rir[50], rir[100], rir[200] = 0.01, 0.6, -1.0
    trimmed = direct_first(rir)
    assert len(trimmed) == 900
    assert float(trimmed[0]) == pytest.approx(0.6 / 1.36**0.5, rel=1e-3)
    assert float(trimmed.square().sum()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("length", [1, 5_000, 16_000, 40_000])
def test_reverberation_is_a_convolution_with_the_first_second_of_the_response(length: int) -> None:
    rir = np.random.default_rng(0).standard_normal(length) * np.exp(-np.arange(length) / 8_000)
    rir[0] = 5.0
    clip = clips(3)[2:]
    heard = direct_first(torch.from_numpy(rir))[:SECOND].double().numpy()
    wanted = np.convolve(clip[0].double().numpy(), heard)[SECOND : 2 * SECOND]
    wet = reverberated(clip, torch.from_numpy(rir))
    torch.testing.assert_close(wet, torch.from_numpy(wanted).float(), rtol=0, atol=1e-4)


def test_the_generators_state_decides_everything() -> None:
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) for seed in range(3)]
    rirs = [torch.from_numpy(synthesis.impulse_response(seed)) for seed in range(3)]
    augmenter, clean = Augmenter(noises, rirs, AugmentConfig(), CPU), clips(8)
    random = generator(5)
    first, next_one = augmenter(clean, random), augmenter(clean, random)
    torch.rand(3)  # the global generator plays no part
    assert torch.equal(augmenter(clean, generator(5)), first)
    assert not torch.equal(next_one, first)
    assert torch.equal(clean, clips(8))


def test_without_noises_and_responses_the_kept_second_passes() -> None:
    clean = clips(3)
    assert torch.equal(
        Augmenter([], [], AugmentConfig(), CPU)(clean, generator()), clean[:, SECOND:]
    )


@pytest.mark.parametrize("length", [100, 4000, 20_000, 40_000])
def test_excerpts_are_pieces_of_one_noise_and_short_ones_are_repeated(length: int) -> None:
    ramps = [torch.arange(length, dtype=torch.int16) // 4 + 1, -torch.ones(50_000).short()]
    noises = Noises(ramps, CPU)
    assert len(noises) == 1 + (length >= 4000)
    whole = ramps[0].repeat(-(-SECOND // length) + 1) if length < SECOND else ramps[0]
    for excerpt in (noises.excerpts(20, SECOND, generator()) * 32768).short():
        if excerpt[0] < 0:
            assert torch.equal(excerpt, ramps[1][:SECOND])
            continue
        first = int((whole == excerpt[0]).nonzero()[0])
        assert any(torch.equal(excerpt, whole[at : at + SECOND]) for at in range(first, first + 4))


def test_every_part_of_a_noise_is_heard() -> None:
    noises = Noises([torch.arange(20_001, dtype=torch.int16)], CPU)
    starts = (noises.excerpts(400, SECOND, generator())[:, 0] * 32768).round()
    assert 0 <= float(starts.min()) < 200
    assert 3800 < float(starts.max()) <= 4001


@pytest.mark.parametrize("order", ["room-noise", "noise-room"])
def test_the_ratio_is_that_of_the_kept_second_in_both_orders(order: str) -> None:
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) for seed in range(3)]
    config = replace(CLEAN, reverb=1.0, dry_past=0.0, noise=1.0, snr_db=(3.0, 3.0), order=order)
    clean = clips(4)
    clean[:, :SECOND] *= 5  # another ratio over both seconds
    noisy = Augmenter(noises, [torch.ones(1)], config, CPU)(clean, generator())
    measured = measured_snr_db(clean[:, SECOND:], noisy)
    torch.testing.assert_close(measured, torch.full((4,), 3.0), rtol=0, atol=0.01)


def test_noise_is_reverberant_only_where_it_comes_first() -> None:
    """A response of two equal clicks cancels tones that arrive in opposite phase."""
    rir = torch.zeros(9)
    rir[0] = rir[8] = 1.0  # nothing is left of 1 kHz
    hum = torch.sin(2 * torch.pi * 1000 / SECOND * torch.arange(3 * SECOND))
    music = torch.sin(2 * torch.pi * 500 / SECOND * torch.arange(2 * SECOND))[None]
    levels = {}
    for order in ("room-noise", "noise-room"):
        config = replace(CLEAN, reverb=1.0, dry_past=0.0, noise=1.0, music_noise=0.0, order=order)
        heard = Augmenter([hum], [rir], config, CPU)(music, generator())[0]
        levels[order] = float(torch.fft.rfft(heard).abs()[1000])
    assert levels["noise-room"] < 0.01 * levels["room-noise"]


def test_what_is_new_is_off() -> None:
    config = AugmentConfig()
    assert [getattr(config, name) for name in (*SWITCHES, "time_mask", "frequency_mask")] == [0] * 8
    assert config.order == "room-noise"


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("future", [0, FUTURE_SAMPLES])
def test_each_switch_changes_its_share_of_the_clips(switch: str, future: int) -> None:
    clean = clips(8, 2.05)[:, : 2 * SECOND + future]
    kept = clean[:, SECOND : 2 * SECOND]
    all_of_them = Augmenter([], [], replace(CLEAN, **{switch: 1.0}), CPU)
    heard = all_of_them(clean, generator())
    assert heard.shape == kept.shape
    assert bool(torch.isfinite(heard).all())
    assert bool(((heard - kept).abs().amax(dim=1) > 1e-3 * kept.abs().amax(dim=1)).all())
    assert torch.equal(all_of_them(clean, generator()), heard)
    some = Augmenter([], [], replace(CLEAN, **{switch: 0.5}), CPU)(clean, generator())
    assert 1 <= sum(torch.equal(one, other) for one, other in zip(some, kept)) <= 7


def test_a_faster_speed_hears_the_future() -> None:
    clean = clips(1, 2.05)
    config = replace(CLEAN, speed=1.0, speed_percent=(3.0, 3.0))
    augmenter = Augmenter([], [], config, CPU)
    with_it = augmenter(clean, generator())
    without = augmenter(clean[:, : 2 * SECOND], generator())
    torch.testing.assert_close(with_it[:, :15_700], without[:, :15_700], rtol=0, atol=1e-4)
    assert float(with_it[:, -100:].std()) > 10 * float(without[:, -100:].std())
    middle = slice(7998, 8003)  # stays in place
    torch.testing.assert_close(
        with_it[:, middle],
        clean[:, SECOND:][:, middle],
        rtol=0,
        atol=0.03 * float(clean.abs().max()),
    )


def test_clips_of_16_bits_are_the_same_and_of_another_length_are_refused() -> None:
    pcm = (clips(2) * 32767).short()
    augmenter = Augmenter([], [], replace(CLEAN, drive=1.0), CPU)
    assert torch.equal(augmenter(pcm, generator()), augmenter(pcm.float() / 32768, generator()))
    with pytest.raises(ValueError, match="32000 or 32800"):
        augmenter(pcm[:, :30_000], generator())


def test_masks_are_stripes_of_the_width_that_was_asked_for() -> None:
    config = replace(CLEAN, time_mask=1.0, frequency_mask=0.5, mask_percent=(5.0, 20.0))
    masked = torch.ones(200, 64, 32)
    Augmenter([], [], config, CPU).mask_(masked, generator())
    frames = (masked.amax(dim=1) == 0).sum(dim=1)
    assert 1 <= int(frames.min()) <= 2
    assert 6 <= int(frames.max()) <= 7
    bins_BF = masked.amax(dim=2) == 0
    bins = bins_BF.sum(dim=1)
    assert 70 < int((bins > 0).sum()) < 130
    assert 11 <= int(bins.max()) <= 13
    borders = bins_BF.int().diff(dim=1).abs().sum(dim=1)
    assert int(borders.max()) <= 2  # one stripe each
    assert bool(bins_BF[:, :4].any())
    assert bool(bins_BF[:, -4:].any())
    untouched = torch.ones(2, 64, 32)
    Augmenter([], [], AugmentConfig(), CPU).mask_(untouched, generator())
    assert bool((untouched == 1).all())


def test_training_masks_the_degraded_views_and_no_others() -> None:
    config = replace(CLEAN, time_mask=1.0, mask_percent=(50.0, 50.0))
    sampler = PairSampler(Waveforms.of([(row * 32767).short() for row in clips(4)]), pairs=4)
    augmenter = Augmenter([], [], config, CPU)
    trainer = Trainer(TrainConfig(steps=1, pairs=4), sampler, augmenter, None, CPU)

    class Seen(Exception):
        pass

    def stop(_: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        raise Seen(given[0])

    trainer.encoder.register_forward_pre_hook(stop)
    with pytest.raises(Seen) as seen:
        trainer.run(lambda *_: None)
    silent_BT = seen.value.args[0].amax(dim=1) == 0
    assert silent_BT.sum(dim=1).tolist() == [0] * 4 + [16] * 4


def test_everything_at_once_has_a_result_that_the_generator_decides() -> None:
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) for seed in range(3)]
    rirs = [torch.from_numpy(synthesis.impulse_response(seed)) for seed in range(3)]
    config = AugmentConfig(order="noise-room", **dict.fromkeys(SWITCHES, 0.5))
    augmenter, clean = Augmenter(noises, rirs, config, CPU), clips(8, 2.05)
    heard = augmenter(clean, generator(3))
    assert heard.shape == (8, SECOND)
    assert bool(torch.isfinite(heard).all())
    assert torch.equal(augmenter(clean, generator(3)), heard)
    assert torch.equal(clean, clips(8, 2.05))
    assert not augmenter(torch.zeros(4, 2 * SECOND), generator(3)).isnan().any()


def test_a_loudspeaker_leaves_the_noise_alone_and_a_microphone_does_not() -> None:
    hum = torch.sin(2 * torch.pi * 6000 / SECOND * torch.arange(3 * SECOND))
    levels = {}
    for switch in ("loudspeaker", "microphone"):
        config = replace(CLEAN, noise=1.0, music_noise=0.0, snr_db=(0.0, 0.0), **{switch: 1.0})
        config = replace(config, high_cut_hz=(2000.0, 2000.0), low_cut_hz=(1.0, 1.0))
        heard = Augmenter([hum], [], config, CPU)(clips(1), generator())[0]
        levels[switch] = float(torch.fft.rfft(heard).abs()[6000] / heard.norm())
    assert levels["microphone"] < 0.1 * levels["loudspeaker"]
