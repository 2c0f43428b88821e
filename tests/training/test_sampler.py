"""What training draws from its music."""

from pathlib import Path

import numpy as np
import pytest
import torch

from grafp.audio import synthesis
from grafp.errors import StorageError, TrainingError
from grafp.training.augment import FUTURE_SAMPLES, PAST_SAMPLES
from grafp.training.data import partition, pcm
from grafp.training.data.buffer import STEPS_A_SHARD, Music, Piece, Pool, Waveforms
from grafp.training.data.partition import Budget, Share, deal
from grafp.training.data.pcm import Sources
from grafp.training.data.prepare import Collected, collect
from grafp.training.data.sampler import PairSampler

CPU = torch.device("cpu")
SECOND = 16_000
BATCH = tuple[torch.Tensor, torch.Tensor]


class Tracks:
    """Loud noise, every four samples of which tell their track and position."""

    def __init__(self, count: int, seconds: float) -> None:
        random = np.random.default_rng(0)
        values = random.integers(-30_000, 30_000, (count, round(seconds * SECOND)), np.int16)
        self.tracks = [torch.from_numpy(row) for row in values]
        windows = np.lib.stride_tricks.sliding_window_view(values, 4, axis=1)
        keys = np.ascontiguousarray(windows).view(np.int64)[..., 0]
        self._order = np.argsort(keys, axis=None)
        self._keys, self._starts = keys.ravel()[self._order], keys.shape[1]

    def track_and_start(self, clips_BS: torch.Tensor) -> np.ndarray:
        """(batch, 2) of each clip; all of its samples must be that track's."""
        pcm_BS = (clips_BS * 32768).short().numpy()
        keys = np.ascontiguousarray(pcm_BS[:, :4]).view(np.int64)[:, 0]
        found = self._order[np.searchsorted(self._keys, keys)]
        positions = np.stack([found // self._starts, found % self._starts], axis=1)
        for clip_S, (track, start) in zip(pcm_BS, positions, strict=True):
            assert (clip_S == self.tracks[track].numpy()[start : start + len(clip_S)]).all()
        return positions


def draw(sampler: PairSampler, seed: int = 0, step: int = 0) -> BATCH:
    return sampler.draw(np.random.default_rng(seed), step)


def kept(partners_BS: torch.Tensor) -> torch.Tensor:
    return partners_BS[:, PAST_SAMPLES : PAST_SAMPLES + SECOND]


def test_a_partner_is_the_same_segment_shifted_by_at_most_the_offset() -> None:
    known = Tracks(100, 4.0)
    for offset in (0.05, 0.25):
        sampler = PairSampler(Waveforms.of(known.tracks), 200, 2, offset_seconds=offset)
        anchors, partners = draw(sampler)
        assert anchors.shape == (200, SECOND)
        assert partners.shape == (200, PAST_SAMPLES + SECOND + FUTURE_SAMPLES)
        assert anchors.dtype == partners.dtype == torch.float32
        moved = known.track_and_start(kept(partners)) - known.track_and_start(anchors)
        assert not moved[:, 0].any()
        assert np.abs(moved[:, 1]).max() <= offset * SECOND
        assert moved[:, 1].max() > 0.85 * offset * SECOND
        assert moved[:, 1].min() < -0.85 * offset * SECOND


def test_a_partner_comes_with_what_surrounds_it_and_zeros_outside_the_track() -> None:
    known = Tracks(100, 2.5)
    _, partners = draw(PairSampler(Waveforms.of(known.tracks), 100))
    positions = known.track_and_start(kept(partners))
    assert positions[:, 1].min() < 3000  # nearly all of the past is silence
    assert positions[:, 1].max() > 1.5 * SECOND - FUTURE_SAMPLES  # so is some of what follows
    for clip, (track, start) in zip(partners, positions, strict=True):
        padded = np.pad(known.tracks[track].numpy(), (PAST_SAMPLES, FUTURE_SAMPLES))
        assert np.array_equal((clip * 32768).short(), padded[start : start + len(clip)])


def test_a_batch_has_one_recording_of_each_group() -> None:
    known = Tracks(60, 1.5)
    groups = [number // 3 for number in range(60)]
    sampler = PairSampler(Waveforms.of(known.tracks, groups), pairs=31, per_track=2)
    drawn = set()
    for seed in range(20):
        tracks = known.track_and_start(draw(sampler, seed)[0])[:, 0]
        drawn |= set(tracks.tolist())
        _, counts = np.unique(tracks // 3, return_counts=True)
        assert sorted(counts) == [1, *[2] * 15]
        assert len(np.unique(tracks)) == 16
    assert len(drawn) > 50


@pytest.mark.parametrize(("pairs", "per_track"), [(7, 1), (12, 2)])
def test_too_few_groups_are_refused_with_what_would_fit(pairs: int, per_track: int) -> None:
    waveforms = Waveforms.of(Tracks(10, 1.5).tracks, [0, 1, 2, 3, 4] * 2)
    with pytest.raises(TrainingError) as error:
        PairSampler(waveforms, pairs, per_track)
    told = str(error.value)
    assert "there are 5 groups of music, " in told
    assert f"give --pairs {5 * per_track}, or --per-track {per_track + 1}" in told
    PairSampler(waveforms, 5 * per_track, per_track)
    PairSampler(waveforms, pairs, per_track + 1)


def test_segments_of_one_track_keep_their_distance_where_it_is_long_enough() -> None:
    known = Tracks(50, 6.0)
    sampler = PairSampler(Waveforms.of(known.tracks), 150, 3, gap_seconds=(0.1, 1.0))
    starts = known.track_and_start(draw(sampler)[0])[:, 1].reshape(50, 3)
    gaps = np.diff(starts, axis=1)
    assert gaps.min() >= 1599
    assert gaps.max() <= SECOND + 1
    assert gaps.max() - gaps.min() > 10_000
    short = Tracks(4, 1.05)
    starts = short.track_and_start(draw(PairSampler(Waveforms.of(short.tracks), 8, 2))[0])[:, 1]
    assert (starts.reshape(4, 2) == [0, 800]).all()
    least = Tracks(2, 1.0)
    anchors, partners = draw(PairSampler(Waveforms.of(least.tracks), 4, 2))
    assert not least.track_and_start(anchors)[:, 1].any()
    assert torch.equal(anchors, kept(partners))


def test_silence_is_skipped_where_there_is_music() -> None:
    music = torch.from_numpy((synthesis.piece(1, 10.0) * 32767).astype(np.int16))
    track = torch.cat([torch.zeros(10 * SECOND, dtype=torch.int16), music])
    anchors, _ = draw(PairSampler(Waveforms.of([track] * 100), pairs=200, per_track=2))
    assert (anchors.abs().amax(dim=1) < 1e-3).sum() <= 6  # half of them, if it did not look
    silent = PairSampler(Waveforms.of([torch.zeros(2 * SECOND, dtype=torch.int16)]), pairs=1)
    assert not draw(silent)[0].any()  # and it gives up in the end
    buzz = torch.full((2 * SECOND,), -32768, dtype=torch.int16)
    assert Waveforms.of([buzz]).loud(np.array([PAST_SAMPLES]))


def test_the_same_seed_draws_the_same_batch() -> None:
    sampler = PairSampler(Waveforms.of(Tracks(5, 3.0).tracks), pairs=8, per_track=2)
    first, again, other = (draw(sampler, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_groups_are_dealt_whole_and_evenly(world: int) -> None:
    random = np.random.default_rng(0)
    groups = np.sort(random.integers(200, size=500)).astype(str).tolist()
    samples = random.integers(1, 1000, size=500)
    ranks = deal(groups, samples.tolist(), world)
    assert all(len(set(ranks[np.array(groups) == group])) == 1 for group in groups)
    loads = np.bincount(ranks, weights=samples, minlength=world)
    assert loads.min() > 0.8 * loads.mean()
    assert (np.diff(ranks) >= 0).all()


@pytest.mark.parametrize("weights", [[100, 1, 1], [1, 100, 1], [1, 1, 100]])
def test_one_long_group_leaves_no_rank_without_music(weights: list[int]) -> None:
    assert deal(["a", "b", "c"], weights, 3).tolist() == [0, 1, 2]
    assert deal(["a", "b", "c"], weights, 5).tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    """48 tracks in 24 groups, of some of which validation hears; twelve shards or so."""
    from grafp.audio import encode

    folder = tmp_path_factory.mktemp("tracks")
    rows = ["path,group"]
    for number, track in enumerate(Tracks(48, 2.0).tracks):
        (folder / f"{number}.wav").write_bytes(encode(track.numpy() / 32768, "wav"))
        rows.append(f"{number}.wav,{number // 2}")
    (folder / "music.csv").write_text("\n".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pcm, "SHARD_BYTES", 4 * 2 * SECOND * 2)
        return collect(Sources.of("music", f"{folder}/music.csv"), f"{folder}/data")


def rows_of(one: Share) -> set[tuple[str, int]]:
    return {(piece.uri, int(row)) for piece in one.pieces for row in piece.rows}


def test_shares_of_ranks_have_no_group_in_common_and_all_together(collected: Collected) -> None:
    shares = [Share.of(collected, rank, 3) for rank in range(3)]
    groups = [{g for piece in one.pieces for g in piece.groups_T.tolist()} for one in shares]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert min(map(len, groups)) == shares[0].fewest_groups > 4
    rows = [rows_of(one) for one in shares]
    assert set.union(*rows) == rows_of(Share.of(collected, 0, 1))
    assert sum(map(len, rows)) == len(collected.usable()[0])


def held_bytes(music: Music) -> int:
    waveforms = music.at(0)
    return waveforms.pcm_S.numel() * 2


def slots_for(one: Share, slots: int) -> Budget:
    largest = max(piece.size for piece in one.pieces)
    return Budget((slots + 3) * largest * 2, 0)


def test_what_fits_is_held_and_what_does_not_is_a_pool_within_its_budget(
    collected: Collected,
) -> None:
    one = Share.of(collected, 0, 1)
    whole = sum(piece.size for piece in one.pieces) * 2
    held = one.load(Budget(whole, 0), CPU, (0, 0))
    assert isinstance(held, Waveforms)
    assert held.fewest_groups == one.fewest_groups
    assert held.at(0) is held.at(1000)
    assert held_bytes(held) == whole
    budget = slots_for(one, 3)
    assert budget.memory < whole
    pool = one.load(budget, CPU, (0, 0))
    assert isinstance(pool, Pool)
    assert pool.slots == 3
    assert held_bytes(pool) == 3 * budget.memory / 6
    with pytest.raises(TrainingError, match=r"0\.00 GB for music are too little"):
        one.load(Budget(1000, 0), CPU, (0, 0))


def test_a_pool_hears_everything_and_depends_on_seed_and_step_alone(collected: Collected) -> None:
    one = Share.of(collected, 0, 1)
    steps = range(0, 20 * STEPS_A_SHARD, 7)
    pools = [Pool(one.pieces, slots_for(one, 4).memory, seed) for seed in ((0, 0), (0, 0), (0, 1))]
    samplers = [PairSampler(pool, 6, 2) for pool in pools]
    straight = [draw(samplers[0], step, step) for step in steps]
    resumed = steps[len(steps) // 2]
    for step, batch in zip(steps, straight, strict=True):
        if step >= resumed:
            again = draw(samplers[1], step, step)
            assert torch.equal(batch[0], again[0])
            assert torch.equal(batch[1], again[1])
    assert not torch.equal(straight[0][0], draw(samplers[2], 0, 0)[0])
    sound = {start.tobytes() for start in _contents(pools[0], steps)}
    assert len(sound) == len(rows_of(one))


def _contents(pool: Pool, steps: range) -> list[np.ndarray]:
    """The first second of everything that the pool holds at some step."""
    return [
        waveforms.windows(waveforms.starts_T, SECOND)[number].numpy()
        for waveforms in map(pool.at, steps)
        for number in range(len(waveforms.starts_T))
    ]


def test_a_pool_knows_its_fewest_groups_and_refuses_larger_batches(collected: Collected) -> None:
    one = Share.of(collected, 0, 1)
    pool = Pool(one.pieces, slots_for(one, 4).memory, (0, 0))
    steps = range(0, (len(one.pieces) + 1) * STEPS_A_SHARD, STEPS_A_SHARD)
    assert pool.fewest_groups == min(pool.at(step).fewest_groups for step in steps)
    assert pool.fewest_groups < one.fewest_groups
    with pytest.raises(TrainingError, match="--memory-gb holds"):
        PairSampler(pool, pool.fewest_groups + 1)


def test_a_shard_that_is_gone_or_damaged_is_named(collected: Collected, tmp_path: Path) -> None:
    piece = Share.of(collected, 0, 1).pieces[0]
    damaged = tmp_path / "x.parquet"
    data = bytearray(Path(piece.uri).read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    for uri, reason in {str(damaged): "damaged", f"{tmp_path}/y.parquet": "not found"}.items():
        gone = Piece(uri, piece.rows, piece.lengths_T, piece.groups_T)
        with pytest.raises(StorageError, match=f"{uri}: {reason}"):
            gone.load()


def test_what_a_worker_may_hold_stays_as_when_the_run_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(partition, "_free_memory", lambda: 8_000)
    began = Budget.of(str(tmp_path), 1, 2, CPU)
    assert began == Budget(2_000, 0)
    monkeypatch.setattr(partition, "_free_memory", lambda: 9_000)
    assert Budget.of(str(tmp_path), 1, 2, CPU) == began
    assert Budget.of(str(tmp_path), 0, 2, CPU) == Budget(2_250, 0)
    assert Budget.given(1.5, CPU) == Budget(1_500_000_000, 0)
    (tmp_path / "memory" / "0-of-2.json").write_text('{"memory": "all", "gpu": 0}')
    with pytest.raises(TrainingError, match=r"memory/0-of-2\.json: damaged \(memory: "):
        Budget.of(str(tmp_path), 0, 2, CPU)
    monkeypatch.undo()
    assert 1e8 < partition._free_memory() < 1e13
