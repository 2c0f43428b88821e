"""Thresholds for a false-positive rate."""

import numpy as np
import pytest

from grafp.index.calibration import RATES, calibrate


def scores(mean: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.05, count)


def test_the_wished_rate_is_the_measured_one() -> None:
    """Also beyond what can be counted: 2,000 scores say nothing certain of 1 in 10,000."""
    calibration = calibrate({5.0: scores(0.5, 2_000, 1)}, 10_000)
    fresh = scores(0.5, 1_000_000, 2)
    for rate in RATES:
        measured = (fresh >= calibration.threshold(rate, 5.0)).mean()
        assert measured < 1.5 * rate
        if rate >= 0.01:
            assert measured > 0.6 * rate


def test_longer_matches_need_less_and_lower_rates_more() -> None:
    # The scores of 3 s are higher than those of 1 s, by the luck of a small sample.
    found = {1.0: scores(0.6, 300, 3), 3.0: scores(0.62, 50, 4), 10.0: scores(0.4, 300, 5)}
    calibration = calibrate(found, 10_000)
    for rate in (0.05, 0.002, 0.0001):
        by_length = [calibration.threshold(rate, s) for s in (0.5, 1.0, 2.0, 3.0, 6.0, 10.0, 60.0)]
        assert by_length == sorted(by_length, reverse=True)
        assert by_length[0] == by_length[1]
        assert by_length[-1] == by_length[-2]
    for seconds in (1.0, 2.0, 10.0):
        by_rate = [calibration.threshold(rate, seconds) for rate in RATES]
        assert by_rate == sorted(by_rate)
    assert all(calibration.threshold(rate, 1.0) <= 1.0 for rate in RATES)


@pytest.mark.parametrize("count", [1, 5])
def test_few_or_equal_scores_give_a_threshold_all_the_same(count: int) -> None:
    calibration = calibrate({1.0: np.full(count, 0.7)}, 100)
    assert calibration.threshold(0.001, 1.0) == pytest.approx(0.7)
