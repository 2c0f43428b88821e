"""How much evidence a recording that is not in the catalog reaches, and so what an answer is worth.

The best of many wrong tracks is an extreme value. Its law, of Gumbel, is fitted to the bulk of the
wrong answers; their largest only count as larger. So music that shares a sample or an album with
the catalog does not move it. The law is the p-value: an answer with evidence e is a false positive
at the rate 1 - exp(-exp(-(e - location) / scale)).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RATES = (0.01, 0.001, 0.0001)
_BULK = (0.5, 0.9)
_MOST = 50.0  # of an exponent
_LEAST_SCALE = 1e-4
_DRAWS = 100  # of the bootstrap
_LOWEST_RATE = 1e-12


@dataclass(frozen=True)
class Law:
    """Evidence of the best wrong answer of unknown queries of one length: a Gumbel law."""

    location: float
    scale: float

    def false_positive_rate(self, evidence: float) -> float:
        """The share of unknown queries whose best answer reaches so much."""
        rate = -math.expm1(-math.exp(min(700.0, (self.location - evidence) / self.scale)))
        return max(_LOWEST_RATE, rate)

    def evidence(self, rate: float) -> float:
        """What this share of unknown queries reaches."""
        return self.location - self.scale * math.log(-math.log1p(-rate))


@dataclass(frozen=True)
class LengthCalibration:
    """The law of one length, and what it was fitted to."""

    law: Law
    clips: int
    intervals: dict[str, tuple[float, float]]
    """By target rate: where the true rate lies, 95 %."""


@dataclass(frozen=True)
class Calibration:
    """The laws of one snapshot."""

    fingerprints: int
    """The catalog's size when they were measured."""
    in_catalog: int
    """Clips of the background left out, since their music is in the catalog."""
    by_length: dict[str, LengthCalibration]
    """By length in seconds."""

    def law(self, seconds: float) -> Law:
        """Of queries of this length: between those measured, by the logarithm of the length."""
        lengths = sorted(self.by_length, key=float)
        at = [math.log(float(length)) for length in lengths]
        laws = [self.by_length[length].law for length in lengths]
        here = math.log(max(seconds, 1e-3))
        return Law(
            float(np.interp(here, at, [law.location for law in laws])),
            float(np.interp(here, at, [law.scale for law in laws])),
        )


def fit_law(evidence_N: Sequence[float] | np.ndarray) -> Law:
    """The Gumbel law of the best wrong answers, by maximum likelihood.

    Only the fifth to the ninth tenth count by their values; what lies below or above is censored.
    Above are answers that are hardly wrong, such as the same sample in another track. Below are
    queries that are unlike anything.
    """
    sorted_N = np.sort(np.asarray(evidence_N, float))
    low, high = np.quantile(sorted_N, _BULK)
    kept_N = sorted_N[(sorted_N >= low) & (sorted_N <= high)]
    below, above = int((sorted_N < low).sum()), int((sorted_N > high).sum())
    spread = float(kept_N.std())
    if spread < _LEAST_SCALE:  # a handful of clips, or all alike
        return Law(float(kept_N.mean()), _LEAST_SCALE)

    def loss(parameters: np.ndarray) -> float:
        location, scale = float(parameters[0]), float(np.exp(parameters[1]))
        z_N = (kept_N - location) / scale
        inside = float((z_N + np.exp(np.minimum(-z_N, _MOST))).sum()) + len(kept_N) * math.log(
            scale
        )
        under = below * math.exp(min(_MOST, (location - low) / scale))
        over = -math.expm1(-math.exp(min(_MOST, (location - high) / scale)))
        return inside + under - above * math.log(max(over, 1e-300))

    from scipy.optimize import minimize  # here: who only reads a law does without

    start = np.array([float(np.median(kept_N)), math.log(spread)])
    location, log_scale = minimize(loss, start, method="Nelder-Mead").x
    return Law(float(location), max(float(np.exp(log_scale)), _LEAST_SCALE))


def calibrate(
    found: Mapping[float, Sequence[tuple[int, float]]],
    fingerprints: int,
    in_catalog: int = 0,
    rates: Sequence[float] = RATES,
) -> Calibration:
    """Laws from the evidence of unknown queries.

    Args:
        found: by length in seconds, for each query the number of its recording and its evidence.
            Queries of one recording are alike, so the intervals draw whole recordings.
    """
    by_length = {}
    for seconds in sorted(found):
        recording_N = np.array([recording for recording, _ in found[seconds]])
        evidence_N = np.array([evidence for _, evidence in found[seconds]])
        law = fit_law(evidence_N)
        intervals = _intervals(recording_N, evidence_N, law, rates)
        by_length[f"{seconds:g}"] = LengthCalibration(law, len(evidence_N), intervals)
    return Calibration(fingerprints, in_catalog, by_length)


def _intervals(
    recording_N: np.ndarray, evidence_N: np.ndarray, law: Law, rates: Sequence[float]
) -> dict[str, tuple[float, float]]:
    """The rates that laws of resampled recordings give to what this law takes for each rate."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(recording_N == recording) for recording in np.unique(recording_N)]
    laws = []
    for _ in range(_DRAWS):
        drawn = rng.integers(len(groups), size=len(groups))
        laws.append(fit_law(evidence_N[np.concatenate([groups[g] for g in drawn])]))
    result = {}
    for rate in rates:
        evidence = law.evidence(rate)
        true = [other.false_positive_rate(evidence) for other in laws]
        low, high = np.quantile(true, (0.025, 0.975))
        result[f"{rate:g}"] = (float(f"{low:.3g}"), float(f"{high:.3g}"))
    return result
