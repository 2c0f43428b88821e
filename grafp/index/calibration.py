"""How high a wrong answer scores in one catalog, and so what a match must reach.

No audio and no outside data are needed: an excerpt of a cataloged track, searched with that
track left out, is a recording that is not in the catalog, and its best answer is wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LENGTHS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
RATES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_COUNTED = 20  # so many scores above a threshold are counted; with fewer, the tail is extrapolated
_TAIL = 0.05


@dataclass(frozen=True)
class Calibration:
    """Thresholds of one catalog."""

    excerpts: int
    """What they were measured with."""
    fingerprints: int
    """The catalog's size then."""
    thresholds: dict[str, dict[str, float]]
    """By length in seconds, by false-positive rate."""

    def threshold(self, rate: float, seconds: float) -> float:
        """The score that a match of this length must reach, for `rate` false positives a query.

        Interpolated between the lengths, and between the logarithms of the rates.
        """
        at_length = []
        for by_rate in self.thresholds.values():
            rates = sorted(by_rate, key=float)
            scores = [by_rate[r] for r in rates]
            at_length.append(np.interp(math.log(rate), np.log([float(r) for r in rates]), scores))
        return float(np.interp(seconds, [float(s) for s in self.thresholds], at_length))


def calibrate(wrong_scores: Mapping[float, Sequence[float]], fingerprints: int) -> Calibration:
    """Thresholds from the best wrong scores of unknown queries, by their length in seconds.

    A longer match never needs more than a shorter one, and a lower rate never less than a higher.
    """
    thresholds: dict[str, dict[str, float]] = {}
    limit = np.ones(len(RATES))
    for seconds in sorted(wrong_scores):
        scores = np.sort(np.asarray(wrong_scores[seconds], float))
        at_rate = np.maximum.accumulate([_exceeded_by(scores, rate) for rate in RATES])
        limit = np.minimum(limit, at_rate)
        thresholds[f"{seconds:g}"] = {
            f"{rate:g}": round(float(score), 4) for rate, score in zip(RATES, limit, strict=True)
        }
    return Calibration(max(map(len, wrong_scores.values())), fingerprints, thresholds)


def _exceeded_by(scores: np.ndarray, rate: float) -> float:
    """The score that this share of all scores passes; an exponential tail beyond the counted."""
    share = max(_TAIL, _COUNTED / len(scores))
    if rate * len(scores) >= _COUNTED or share >= 1:
        return float(np.quantile(scores, 1 - rate, method="higher"))
    start = float(np.quantile(scores, 1 - share))
    excess = float((scores[scores > start] - start).mean()) if (scores > start).any() else 0.0
    return start + excess * math.log(share / rate)
