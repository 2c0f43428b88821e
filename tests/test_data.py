"""What training draws from its music, and what it loads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from grafp import audio, storage, synth
from grafp.data import PairSampler, TrainingSet
from grafp.errors import TrainingError

SECOND = 16_000
TRACK = 200_000


def numbered_tracks(count: int, seconds: float) -> list[torch.Tensor]:
    """Every sample tells its track and place: exact in float32 up to 80 tracks of 12 s."""
    places = torch.arange(round(seconds * SECOND), dtype=torch.float32)
    return [TRACK * number + places for number in range(1, count + 1)]


def track_and_start(segments_BS: torch.Tensor) -> np.ndarray:
    """(batch, 2) from each segment's last second; its samples must be consecutive."""
    last = segments_BS[:, -SECOND:]
    assert (last.diff(dim=1) == 1).all()
    first = last[:, 0].long().numpy()
    return np.stack([first // TRACK, first % TRACK], axis=1)


def test_a_partner_is_the_same_place_moved_by_at_most_the_offset() -> None:
    sampler = PairSampler(numbered_tracks(4, 12.0), pairs=200, per_track=2, offset_seconds=0.05)
    anchors, partners = sampler.draw(np.random.default_rng(0))
    assert anchors.shape == (200, SECOND)
    assert partners.shape == (200, 2 * SECOND)
    moved = track_and_start(partners) - track_and_start(anchors)
    assert not moved[:, 0].any()
    assert np.abs(moved[:, 1]).max() <= 800
    assert moved[:, 1].max() > 700
    assert moved[:, 1].min() < -700


def test_a_partner_comes_with_the_second_before_it_and_zeros_before_the_track() -> None:
    sampler = PairSampler(numbered_tracks(1, 3.0), pairs=100)
    _, partners = sampler.draw(np.random.default_rng(0))
    starts = track_and_start(partners)[:, 1]
    assert starts.min() < SECOND < starts.max()
    for clip, start in zip(partners, starts, strict=True):
        known = min(int(start), SECOND)
        assert not clip[: SECOND - known].any()
        assert (clip[SECOND - known :].diff() == 1).all()


def test_a_batch_has_distinct_tracks_and_uses_all_when_there_are_too_few() -> None:
    sampler = PairSampler(numbered_tracks(40, 1.5), pairs=16, per_track=2)
    drawn = set()
    for seed in range(10):
        tracks = track_and_start(sampler.draw(np.random.default_rng(seed))[0])[:, 0]
        assert (np.unique(tracks, return_counts=True)[1] == 2).all()
        drawn |= set(tracks.tolist())
    assert len(drawn) > 30
    few = PairSampler(numbered_tracks(3, 1.5), pairs=7)
    tracks = track_and_start(few.draw(np.random.default_rng(0))[0])[:, 0]
    assert sorted(np.unique(tracks, return_counts=True)[1]) == [2, 2, 3]


def test_segments_of_one_track_keep_their_distance() -> None:
    tracks = numbered_tracks(50, 12.0)
    sampler = PairSampler(tracks, pairs=100, per_track=2, gap_seconds=(0.1, 1.0))
    starts = track_and_start(sampler.draw(np.random.default_rng(0))[0])[:, 1]
    gaps = np.abs(starts[1::2] - starts[::2])
    assert gaps.min() >= 1600
    assert gaps.max() <= SECOND
    assert gaps.max() - gaps.min() > 10_000


def test_a_track_of_just_a_second_can_be_drawn() -> None:
    anchors, partners = PairSampler(numbered_tracks(1, 1.0), 4, 2).draw(np.random.default_rng(0))
    assert (track_and_start(anchors) == [1, 0]).all()
    assert (track_and_start(partners) == [1, 0]).all()


def test_silence_is_skipped_where_there_is_music() -> None:
    music = torch.from_numpy((synth.piece(1, 10.0) * 32767).astype(np.int16))
    track = torch.cat([torch.zeros(10 * SECOND, dtype=torch.int16), music])
    sampler = PairSampler([track], pairs=100)
    anchors, _ = sampler.draw(np.random.default_rng(0))
    assert (anchors.abs().amax(dim=1) < 1e-3).sum() <= 3  # half of them, if it did not look
    silent = PairSampler([torch.zeros(2 * SECOND, dtype=torch.int16)], pairs=1)
    assert not silent.draw(np.random.default_rng(0))[0].any()  # and it gives up in the end


def test_the_same_seed_draws_the_same_batch() -> None:
    sampler = PairSampler(numbered_tracks(5, 3.0), pairs=8, per_track=2)
    first, again, other = (sampler.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def save_audio(uri: str, samples: np.ndarray) -> str:
    storage.write(uri, audio.encode(samples, "wav"))
    return uri


def test_a_group_is_either_trained_on_or_held_out_and_the_rest_is_named(tmp_path: Path) -> None:
    lines, said = ["path,split,group"], []
    for number in range(40):
        save_audio(f"{tmp_path}/{number}.wav", 0.01 * (number + 1) * np.ones(2 * SECOND))
        lines.append(f"{number}.wav,train,album {number // 2}")
    save_audio(f"{tmp_path}/test.wav", 0.9 * np.ones(2 * SECOND))
    save_audio(f"{tmp_path}/short.wav", np.ones(SECOND // 2))
    lines += ["test.wav,test,x", "short.wav,train,y", "missing.wav,,z"]
    (tmp_path / "music.csv").write_text("\n".join(lines))
    data = TrainingSet.load(f"{tmp_path}/music.csv", None, None, said.append)
    assert data.validation is not None
    sides = [
        sorted(round(float(track[0]) / 327.67) - 1 for track in tracks)
        for tracks in (data.tracks, data.validation.tracks)
    ]
    assert sorted(sides[0] + sides[1]) == list(range(40))
    assert not {n // 2 for n in sides[0]} & {n // 2 for n in sides[1]}
    assert 0 < len(sides[1]) < 15
    assert data.description["tracks"] == len(sides[0])
    assert [line for line in said if "short.wav" in line and "0.50 s" in line]
    assert [line for line in said if "missing.wav" in line and "not found" in line]
    assert not [line for line in said if "test.wav" in line]


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [  # album 4 is in the tenth, the others here are not
        pytest.param(["album 0"] * 6, (6, 0), id="one group, of those that train"),
        pytest.param(["album 4"] * 6, (6, 0), id="one group, of the tenth"),
        pytest.param(["album 4", "album 0", "album 0"], (2, 1), id="one of two in the tenth"),
        pytest.param([f"album {n}" for n in (0, 1, 2, 3)], (4, 0), id="four"),
        pytest.param([f"album {n}" for n in (0, 1, 2, 3, 5, 5)], (4, 2), id="five, one of two"),
    ],
)
def test_a_small_collection_is_split_between_groups_or_not_at_all(
    groups: list[str], wanted: tuple[int, int], tmp_path: Path
) -> None:
    rows = ["path,group"]
    for number, group in enumerate(groups):
        save_audio(f"{tmp_path}/{number}.wav", 0.5 * np.ones(2 * SECOND))
        rows.append(f"{number}.wav,{group}")
    (tmp_path / "music.csv").write_text("\n".join(rows))
    data = TrainingSet.load(f"{tmp_path}/music.csv", None, None, lambda _: None)
    validation = data.validation.tracks if data.validation else []
    assert (len(data.tracks), len(validation)) == wanted


def test_no_usable_music_is_an_error(tmp_path: Path) -> None:
    save_audio(f"{tmp_path}/short.wav", np.ones(SECOND // 2))
    with pytest.raises(TrainingError, match="no usable music"):
        TrainingSet.load(str(tmp_path), None, None, lambda _: None)
