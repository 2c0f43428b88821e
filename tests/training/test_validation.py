"""Hit rate and offset correction on synthetic music."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_music import CLEAN, CPU, music, validation

from grafp.model.presets import PRESETS
from grafp.training.augment import Augmenter
from grafp.training.config import AugmentConfig
from grafp.training.validation import Validation

SECOND = 16_000


class Flat(nn.Module):
    """The spectrogram itself as the fingerprint: it needs no training."""

    config = PRESETS["small"]

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        return F.normalize(mel_BFT.flatten(1).float(), dim=1)


class Deaf(nn.Module):
    """Fingerprints that do not depend on what is heard."""

    config = PRESETS["small"]

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        return F.normalize(
            torch.randn(len(mel_BFT), 128, generator=torch.Generator().manual_seed(0)), dim=1
        )


def test_clean_clips_on_the_grid_are_all_found() -> None:
    built = validation(CLEAN)
    rows = torch.arange(0, len(built.reference_BS), 7)
    on_grid = Validation(
        built.reference_BS,
        built.position_B,
        built.reference_BS[rows].float() / 32768,
        built.position_B[rows],
    )
    assert on_grid.hit_rate(Flat(), CPU) == 1.0
    beside = Validation(
        built.reference_BS, built.position_B, on_grid.query_BS, on_grid.truth_B + 801
    )
    assert beside.hit_rate(Flat(), CPU) == 0.0
    other_track = Validation(
        built.reference_BS, built.position_B, on_grid.query_BS, on_grid.truth_B + (1 << 32)
    )
    assert other_track.hit_rate(Flat(), CPU) == 0.0


def test_a_validation_clip_lies_where_its_truth_says() -> None:
    built = validation(CLEAN)
    tracks = music(3, 8.0)
    assert len(built.query_BS) == len(built.truth_B) == 60
    for clip, truth in zip(built.query_BS, built.truth_B.tolist(), strict=True):
        track, start = tracks[truth >> 32], truth & 0xFFFFFFFF
        assert torch.equal(clip, track[start : start + SECOND].float() / 32768)


def test_short_tracks_are_validated_with_silence_before_them() -> None:
    tracks = [track[: 3 * SECOND // 2] for track in music(3, 8.0)]
    built = Validation.build(tracks, Augmenter([], [], CLEAN, CPU), queries=6)
    assert built.truth_B.tolist() == [(n << 32) + SECOND // 2 for n in (0, 0, 1, 1, 2, 2)]
    assert built.hit_rate(Flat(), CPU) == 1.0


def test_the_offset_correction_is_how_early_clips_are_found() -> None:
    built = validation(CLEAN)
    clips, at = built.reference_BS[5::7].float() / 32768, built.position_B[5::7]
    for late in (0, 480):  # the truth is 30 ms after the offset found
        shifted = Validation(built.reference_BS, built.position_B, clips, at + late)
        assert shifted.offset_correction(Flat(), CPU) == pytest.approx(-late / SECOND, abs=0.003)
    few_late = at.clone()
    few_late[::4] += 960  # their mean would be -15 ms
    mixed = Validation(built.reference_BS, built.position_B, clips, few_late)
    assert mixed.offset_correction(Flat(), CPU) == pytest.approx(-0.03, abs=0.003)
    far = Validation(built.reference_BS, built.position_B, clips, at + SECOND)
    assert far.offset_correction(Flat(), CPU) == 0.0


def test_reverberation_makes_offsets_early() -> None:
    echo = torch.zeros(SECOND // 2)
    echo[0], echo[640:4000] = 0.2, 0.1 * torch.randn(3360, generator=torch.Generator())
    reverberant = AugmentConfig(
        reverb=1.0, dry_past=0.0, noise=0.0, second_noise=0.0, music_noise=0.0
    )
    tracks = music(3, 8.0)
    dry = Validation.build(tracks, Augmenter([], [], CLEAN, CPU), queries=60)
    wet = Validation.build(tracks, Augmenter([], [echo], reverberant, CPU), queries=60)
    assert abs(dry.offset_correction(Flat(), CPU)) < 0.01
    assert wet.offset_correction(Flat(), CPU) < -0.015


def test_the_hit_rate_falls_with_noise_and_deafness() -> None:
    noise = AugmentConfig(reverb=0.0, noise=1.0, music_noise=0.0, snr_db=(-30.0, -30.0))
    clean = validation(CLEAN)
    easy = clean.hit_rate(Flat(), CPU)
    assert easy > 0.8
    assert validation(noise).hit_rate(Flat(), CPU) < 0.5 * easy
    assert clean.hit_rate(Deaf(), CPU) < 0.2


def test_the_same_seed_validates_with_the_same_clips() -> None:
    first, second = validation(AugmentConfig()), validation(AugmentConfig())
    assert torch.equal(first.query_BS, second.query_BS)
    assert torch.equal(first.truth_B, second.truth_B)
