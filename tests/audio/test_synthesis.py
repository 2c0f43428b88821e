"""The synthesized music must be good enough to test a fingerprint on."""

import numpy as np
import pytest

from grafp.audio import synthesis

RATE = 16_000
SEEDS = range(8)


def log_spectrogram(samples: np.ndarray) -> np.ndarray:
    """Decibels in 48 logarithmic bands: shape (frames, bands), a frame each 16 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::256] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.geomspace(8, 512, 49).astype(int))
    bands = np.add.reduceat(power[:, :512], edges[:-1], axis=1)
    return 10 * np.log10(bands + 1e-6 * bands.max())


def excerpts(samples: np.ndarray, step: int = 8) -> np.ndarray:
    """A one-second excerpt each `step` frames, as unit vectors: shape (excerpts, values)."""
    spectrogram = log_spectrogram(samples)
    spectrogram -= spectrogram.mean(axis=0)  # else all are alike: the piece's average spectrum
    starts = range(0, len(spectrogram) - 59, step)
    rows = np.stack([spectrogram[i : i + 59].ravel() for i in starts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def likeness_a_second_apart(samples: np.ndarray) -> float:
    """The largest cosine of two excerpts that do not overlap."""
    rows = excerpts(samples)
    lag = np.abs(np.subtract.outer(np.arange(len(rows)), np.arange(len(rows))))
    return (rows @ rows.T)[lag >= 8].max()


def rt60(response: np.ndarray) -> float:
    """Reverberation time in seconds, from the slope of the Schroeder integral, -5 to -25 dB."""
    late = response[RATE // 20 :].astype(float)  # after the direct sound and the reflections
    decay = np.cumsum(late[::-1] ** 2)[::-1]
    level = 10 * np.log10(decay / decay[0] + 1e-12)
    fit = np.flatnonzero((level < -5) & (level > -25))
    return -60 / np.polyfit(fit / RATE, level[fit], 1)[0]


@pytest.fixture(scope="module")
def pieces() -> list[np.ndarray]:
    return [synthesis.piece(seed) for seed in SEEDS]


def test_same_seed_gives_same_samples(pieces):
    np.testing.assert_array_equal(synthesis.piece(3), pieces[3])
    np.testing.assert_array_equal(synthesis.noise(3, 2.0), synthesis.noise(3, 2.0))
    np.testing.assert_array_equal(synthesis.impulse_response(3), synthesis.impulse_response(3))


def test_seeds_differ_in_tempo_key_players_and_sound(pieces):
    plans = [synthesis.Plan(seed) for seed in range(40)]
    assert np.ptp([plan.tempo for plan in plans]) > 60
    assert len({(plan.tonic, plan.mode) for plan in plans}) > 20
    assert {plan.drums for plan in plans} == set(synthesis.DRUMS)
    assert {plan.style for plan in plans} == {"held", "strum", "arpeggio"}
    bases = [excerpts(samples, step=64) for samples in pieces]
    assert max((a @ b.T).max() for i, a in enumerate(bases) for b in bases[:i]) < 0.8


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("seconds", [0.3, 7.5])
def test_shape_and_level(rate, seconds):
    for samples in (synthesis.piece(5, seconds, rate), synthesis.noise(5, seconds, rate)):
        assert samples.dtype == np.float32
        assert samples.shape == (round(seconds * rate),)
        assert np.abs(samples).max() == pytest.approx(0.7)  # and so no NaN


def test_no_long_silence(pieces):
    for samples in pieces:
        level = np.sqrt(np.mean(samples.reshape(-1, RATE // 2) ** 2, axis=1))
        assert level.min() > 0.05 * level.max()  # in half a second


def test_spectrum_changes_over_time(pieces):
    steady = np.random.default_rng(0).standard_normal(10 * RATE)
    for samples in pieces:
        spread = log_spectrogram(samples).std(axis=0).mean()
        assert spread > 2 * log_spectrogram(steady).std(axis=0).mean()


def test_every_second_can_be_told_from_every_other(pieces):
    loop = np.tile(pieces[0][: 32 * 2048], 4)  # whole steps of the excerpts
    assert likeness_a_second_apart(loop) > 0.99
    for samples in pieces:
        assert likeness_a_second_apart(samples) < 0.85


def test_excerpts_are_found_at_their_exact_offset_in_noise(pieces):
    for samples in pieces:
        noise = synthesis.noise(0, 30.0)
        noise *= 10 ** (-10 / 20) * np.linalg.norm(samples) / np.linalg.norm(noise)  # 10 dB SNR
        rows, noisy = excerpts(samples), excerpts(samples + noise)
        found = np.argmax(noisy @ rows.T, axis=1)
        assert np.mean(found == np.arange(len(rows))) > 0.95


def test_onsets_follow_the_tempo():
    plan = synthesis.Plan(7)
    starts = [(start, note.part) for start, note in synthesis._compose(plan, 30)]
    beat = np.array([start for start, part in starts if part == "hat"]) * plan.tempo / 60
    off_grid = np.abs(beat * 4 - np.round(beat * 4)) / 4 * 60 / plan.tempo
    assert 0.003 < off_grid.mean() <= off_grid.max() <= 0.0151


def test_a_seed_is_the_same_music_at_every_rate():
    low, high = synthesis.piece(2, 8.0), synthesis.piece(2, 8.0, 48_000)[::3]
    likeness = excerpts(low) @ excerpts(high).T
    assert np.diag(likeness).min() > 0.8


@pytest.mark.parametrize("seed", range(20))
def test_room_reverberates_for_a_plausible_time(seed):
    response = synthesis.impulse_response(seed)
    assert np.argmax(np.abs(response)) == 0
    assert np.linalg.norm(response) == pytest.approx(1, abs=1e-4)
    assert 0.2 <= rt60(response) <= 0.9


def test_noises_are_of_several_kinds():
    centroids = []
    for seed in range(12):
        power = np.abs(np.fft.rfft(synthesis.noise(seed, 2.0))) ** 2
        centroids.append(np.sum(power * np.arange(power.size)) / power.sum() / 2)
    assert min(centroids) < 300
    assert max(centroids) > 2000
