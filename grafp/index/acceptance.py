"""Which answers are accepted: by the rate of false positives, or by a score."""

from collections.abc import Callable
from dataclasses import dataclass

from grafp.index.calibration import Calibration

DEFAULT_FPR = 0.001
LOWEST_FPR, HIGHEST_FPR = 0.0001, 0.1
DECISIVE = 0.01
"""An answer whose rate is this part of the target's needs no further search."""


@dataclass(frozen=True)
class Acceptance:
    """The rule for the answers of one job."""

    calibration: Calibration | None
    """None: the snapshot has none, so there are no rates."""
    fpr: float = DEFAULT_FPR
    """Target false-positive rate."""
    min_score: Callable[[float], float] | None = None
    """By the length of a match in seconds; instead of the rate."""

    def threshold(self, beside: float, seconds: float) -> float:
        """The score that an answer of this length must reach.

        `beside` is what speaks against it: its score less its evidence; 0 without an answer.
        """
        if self.min_score:
            return self.min_score(seconds)
        assert self.calibration is not None
        return beside + self.calibration.law(seconds).evidence(self.fpr)

    def decisive(self, evidence: float, seconds: float) -> bool:
        """Whether an answer leaves no doubt; never where there are no rates."""
        rate = self.false_positive_rate(evidence, seconds)
        return rate is not None and rate <= DECISIVE * self.fpr

    def false_positive_rate(self, evidence: float, seconds: float) -> float | None:
        """The share of recordings that are not in the catalog and reach as much evidence."""
        if self.calibration is None:
            return None
        return self.calibration.law(seconds).false_positive_rate(evidence)
