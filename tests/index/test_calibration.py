"""Laws of evidence: fitted to what has a known law, and what they say of it."""

import numpy as np
import pytest

from grafp.index.acceptance import Acceptance
from grafp.index.calibration import RATES, Calibration, Law, LengthCalibration, calibrate, fit_law

TRUE = {1.0: Law(0.20, 0.040), 2.0: Law(0.16, 0.032), 5.0: Law(0.11, 0.024), 10.0: Law(0.08, 0.02)}


def samples(law: Law, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).gumbel(law.location, law.scale, count)


def found(count: int, recordings: int, seed: int = 0) -> dict[float, list[tuple[int, float]]]:
    """The evidence of so many queries a length, from all recordings alike."""
    return {
        s: [(n % recordings, float(e)) for n, e in enumerate(samples(law, count, round(seed + s)))]
        for s, law in TRUE.items()
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("law", [Law(0.1, 0.02), Law(-0.3, 0.1), Law(0.5, 0.005)])
def test_the_law_of_samples_is_found(law: Law, seed: int) -> None:
    fitted = fit_law(samples(law, 4_000, seed))
    assert fitted.location == pytest.approx(law.location, abs=0.05 * law.scale)
    assert fitted.scale == pytest.approx(law.scale, rel=0.1)
    given = fit_law(samples(law, 4_000, seed), law.scale)
    assert given.scale == law.scale
    assert given.location == pytest.approx(law.location, abs=0.05 * law.scale)


def test_answers_that_are_hardly_wrong_do_not_move_the_law() -> None:
    """Near duplicates of the catalog's music, and queries that are unlike anything."""
    plain = samples(Law(0.1, 0.02), 1_000, 0)
    far, farther, few = plain.copy(), plain.copy(), plain.copy()
    far[plain.argsort()[-50:]], farther[plain.argsort()[-50:]] = 0.6, 0.95
    assert fit_law(far) == fit_law(farther) == fit_law(plain)
    few[:5], few[5:10] = 0.9, -0.5
    law, moved = fit_law(plain), fit_law(few)
    assert moved.location == pytest.approx(law.location, abs=0.1 * law.scale)
    assert moved.scale == pytest.approx(law.scale, rel=0.05)


def test_the_measured_rates_are_the_wished_ones() -> None:
    calibration = calibrate(found(4_000, 200), 1)
    for seconds, law in TRUE.items():
        fresh = samples(law, 1_000_000, 99)
        for rate in (0.01, 0.001, 0.0001):
            measured = (fresh >= calibration.law(seconds).evidence(rate)).mean()
            assert 0.5 * rate < measured < 1.5 * rate


def test_a_rate_and_its_evidence_belong_to_each_other() -> None:
    law = Law(0.12, 0.025)
    for rate in (0.5, *RATES, 1e-9):
        assert law.false_positive_rate(law.evidence(rate)) == pytest.approx(rate, rel=1e-6)
    rates = [law.false_positive_rate(e) for e in np.linspace(-1.0, 1.0, 200)]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[-1]) == (1.0, 1e-12)  # never 0: nobody can measure that
    assert [law.evidence(rate) for rate in RATES] == sorted(law.evidence(rate) for rate in RATES)


def test_between_two_lengths_lies_a_law_and_beyond_them_the_nearest() -> None:
    one, ten = Law(0.20, 0.04), Law(0.10, 0.02)
    calibration = Calibration(
        1, 0, {"10": LengthCalibration(ten, 9, {}), "1": LengthCalibration(one, 9, {})}
    )
    assert calibration.law(0.5) == calibration.law(1.0) == one
    assert calibration.law(600.0) == calibration.law(10.0) == ten
    middle = calibration.law(10**0.5)
    assert (middle.location, middle.scale) == (pytest.approx(0.15), pytest.approx(0.03))
    rates = [calibration.law(s).false_positive_rate(0.3) for s in (0.0, 1, 1.5, 2, 4, 8, 10, 99)]
    assert rates == sorted(rates, reverse=True)


def test_scales_follow_the_length_though_some_samples_are_small() -> None:
    """Few queries are long, and what they say of the tail alone is little."""
    together, alone = [], []
    for seed in range(4):
        few = found(500, 20)
        few[10.0] = [(n % 20, float(e)) for n, e in enumerate(samples(TRUE[10.0], 30, seed))]
        together.append(calibrate(few, 1).law(10.0).scale / TRUE[10.0].scale)
        alone.append(fit_law([e for _, e in few[10.0]]).scale / TRUE[10.0].scale)
    assert np.abs(np.log(together)).max() < 0.2 < np.abs(np.log(alone)).max()


@pytest.mark.parametrize("evidence", [[0.2], [0.1, 0.3], [0.2] * 3, [0.2] * 50, [0.1, 0.2, 0.3]])
def test_few_or_equal_values_give_a_law_all_the_same(evidence: list[float]) -> None:
    calibration = calibrate({1.0: list(enumerate(evidence))}, 100, in_catalog=3)
    assert (calibration.fingerprints, calibration.in_catalog) == (100, 3)
    assert calibration.by_length["1"].clips == len(evidence)
    law = calibration.law(1.0)
    assert law.location == pytest.approx(0.2, abs=1e-6)
    assert law.false_positive_rate(0.9) == 1e-12
    assert law.false_positive_rate(0.1) > 0.5
    for low, high in calibration.by_length["1"].intervals.values():
        assert 0 < low <= high <= 1


def test_intervals_contain_the_target_and_narrow_with_more_recordings() -> None:
    many, few = calibrate(found(1_600, 400), 1), calibrate(found(160, 40), 1)
    for seconds in ("1", "2", "5", "10"):
        assert set(many.by_length[seconds].intervals) == {"0.01", "0.001", "0.0001"}
        for rate in RATES:
            low, high = many.by_length[seconds].intervals[f"{rate:g}"]
            wider_low, wider_high = few.by_length[seconds].intervals[f"{rate:g}"]
            assert low < rate < high
            assert wider_low < rate < wider_high
            assert high / low < wider_high / wider_low


def test_queries_of_one_recording_count_as_one_witness() -> None:
    """Ten cuts of each recording have the same evidence: no more is known than from one."""
    one = {1.0: list(enumerate(samples(TRUE[1.0], 60, 0).tolist()))}
    ten = {1.0: one[1.0] * 10}
    for rate in RATES:
        widths = []
        for given in (one, ten):
            low, high = calibrate(given, 1).by_length["1"].intervals[f"{rate:g}"]
            widths.append(np.log(high / low))
        assert widths[1] > 0.8 * widths[0]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(found(200, 20), 1)


def test_the_same_queries_give_the_same_calibration(calibration: Calibration) -> None:
    assert calibrate(found(200, 20), 1) == calibration


@pytest.mark.parametrize("fpr", [0.01, 0.0001])
def test_an_answer_is_accepted_where_its_rate_is_low_enough(
    fpr: float, calibration: Calibration
) -> None:
    rule = Acceptance(calibration, fpr)
    for seconds in (1.0, 3.0, 20.0):
        for evidence in np.linspace(0.0, 0.6, 50).tolist():
            for beside in (-0.2, 0.0, 0.4):
                accepted = evidence + beside >= rule.threshold(beside, seconds)
                rate = rule.false_positive_rate(evidence, seconds)
                assert rate is not None
                assert accepted == (rate <= fpr)


def test_a_score_may_decide_instead_of_a_rate(calibration: Calibration) -> None:
    rule = Acceptance(calibration, min_score=lambda seconds: 0.9 if seconds < 3 else 0.7)
    assert [rule.threshold(0.3, seconds) for seconds in (1.0, 5.0)] == [0.9, 0.7]
    assert rule.false_positive_rate(0.3, 5.0) == calibration.law(5.0).false_positive_rate(0.3)
    assert Acceptance(None, min_score=lambda _: 0.5).false_positive_rate(0.3, 5.0) is None
