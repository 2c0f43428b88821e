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
        return between({float(s): one.law for s, one in self.by_length.items()}, seconds)


def between(laws: Mapping[float, Law], seconds: float) -> Law:
    """The law of a length between others, by its logarithm; the nearest beyond them."""
    lengths = sorted(laws)
    at, here = np.log(lengths), math.log(max(seconds, 1e-3))
    return Law(
        float(np.interp(here, at, [laws[length].location for length in lengths])),
        float(np.interp(here, at, [laws[length].scale for length in lengths])),
    )


def fit_law(evidence_N: Sequence[float] | np.ndarray, scale: float | None = None) -> Law:
    """The Gumbel law of the best wrong answers, by maximum likelihood.

    Only the fifth to the ninth tenth count by their values; what lies below or above is censored.
    Above are answers that are hardly wrong, such as the same sample in another track. Below are
    queries that are unlike anything.

    Args:
        evidence_N: of at least one query.
        scale: fit the location alone.
    """
    sorted_N = np.sort(np.asarray(evidence_N, float))
    low, high = np.quantile(sorted_N, _BULK)
    kept_N = sorted_N[(sorted_N >= low) & (sorted_N <= high)]
    below, above = int((sorted_N < low).sum()), int((sorted_N > high).sum())
    spread = float(kept_N.std()) if len(kept_N) else 0.0  # of two values, none is kept
    if spread < _LEAST_SCALE:  # a handful of clips, or all alike
        return Law(float(np.median(sorted_N)), scale or _LEAST_SCALE)

    def loss(parameters: np.ndarray) -> float:
        location = float(parameters[0])
        width = scale or float(np.exp(parameters[1]))
        z_N = (kept_N - location) / width
        inside = float((z_N + np.exp(np.minimum(-z_N, _MOST))).sum()) + len(kept_N) * math.log(
            width
        )
        under = below * math.exp(min(_MOST, (location - low) / width))
        over = -math.expm1(-math.exp(min(_MOST, (location - high) / width)))
        return inside + under - above * math.log(max(over, 1e-300))

    from scipy.optimize import minimize  # here: who only reads a law does without

    start = [float(np.median(kept_N))] + ([] if scale else [math.log(spread)])
    best = minimize(loss, start, method="Nelder-Mead").x
    return Law(float(best[0]), scale or max(float(np.exp(best[1])), _LEAST_SCALE))


def calibrate(
    found: Mapping[float, Sequence[tuple[int, float]]],
    fingerprints: int,
    in_catalog: int = 0,
) -> Calibration:
    """Laws from the evidence of unknown queries.

    Args:
        found: by length in seconds, for each query the number of its recording and its evidence.
            Queries of one recording are alike, so the intervals draw whole recordings.
    """
    recording_LN = {s: np.array([recording for recording, _ in found[s]]) for s in found}
    evidence_LN = {s: np.array([evidence for _, evidence in found[s]]) for s in found}
    laws = _laws(evidence_LN)
    rng = np.random.default_rng(0)
    recordings = np.unique(np.concatenate(list(recording_LN.values())))
    drawn = []
    for _ in range(_DRAWS):
        picked = rng.integers(len(recordings), size=len(recordings))
        counts = np.bincount(picked, minlength=len(recordings))
        times = dict(zip(recordings.tolist(), counts.tolist(), strict=True))
        copies = {s: np.array([times[r] for r in recording_LN[s].tolist()]) for s in found}
        drawn.append(_laws({s: np.repeat(evidence_LN[s], copies[s]) for s in found}))
    by_length = {}
    for s, law in laws.items():
        intervals = {f"{rate:g}": _interval(law, [d[s] for d in drawn], rate) for rate in RATES}
        by_length[f"{s:g}"] = LengthCalibration(law, len(evidence_LN[s]), intervals)
    return Calibration(fingerprints, in_catalog, by_length)


def _laws(evidence_LN: Mapping[float, np.ndarray]) -> dict[float, Law]:
    """A law for each length; their scales follow a power of the length, for few clips are long."""
    lengths = [s for s in sorted(evidence_LN) if len(evidence_LN[s])]
    plain = [fit_law(evidence_LN[s]) for s in lengths]
    if len(lengths) < 3:
        return dict(zip(lengths, plain, strict=True))
    weights = [len(evidence_LN[s]) ** 0.5 for s in lengths]
    powers = np.polyfit(np.log(lengths), np.log([law.scale for law in plain]), 1, w=weights)
    scales = np.exp(np.polyval(powers, np.log(lengths)))
    return {s: fit_law(evidence_LN[s], float(b)) for s, b in zip(lengths, scales, strict=True)}


def _interval(law: Law, drawn: Sequence[Law], rate: float) -> tuple[float, float]:
    """Where the true rate lies, 95 %: what other laws say of the evidence that this one takes."""
    evidence = law.evidence(rate)
    low, high = np.quantile([d.false_positive_rate(evidence) for d in drawn], (0.025, 0.975))
    return float(f"{low:.3g}"), float(f"{high:.3g}")
