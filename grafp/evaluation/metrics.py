"""How good answers are: hit rates with their uncertainty, and errors at the threshold."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TOLERANCE_S = 0.05  # paper, section III-E: +-50 ms
_Z95 = 1.959964


@dataclass(frozen=True)
class Rate:
    """A share of cases, with its 95 % Wilson interval."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total if self.total else math.nan

    def interval(self) -> tuple[float, float]:
        """Lower and upper bound; unlike the normal approximation it stays within 0..1."""
        if not self.total:
            return math.nan, math.nan
        p, n, z2 = self.value, self.total, _Z95**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_dict(self) -> dict[str, float | None]:
        low, high = self.interval()
        rounded = [None if math.isnan(x) else round(x, 4) for x in (self.value, low, high)]
        return {
            "rate": rounded[0],
            "low": rounded[1],
            "high": rounded[2],
            "hits": self.hits,
            "total": self.total,
        }


def total(rates: Iterable[Rate]) -> Rate:
    """The rate over all cases of several rates."""
    rates = list(rates)
    return Rate(sum(rate.hits for rate in rates), sum(rate.total for rate in rates))


@dataclass(frozen=True)
class Answer:
    """The best answer to one query, beside the truth."""

    query: str
    track: str | None
    start_s: float | None
    score: float | None
    matched: bool
    error: str | None
    true_track: str | None
    """None: not in the catalog."""
    true_start_s: float | None
    """None: only the track is known."""
    false_positive_rate: float | None
    """None: the snapshot has no calibration, or nothing was near."""

    @property
    def right_track(self) -> bool:
        return self.true_track is not None and self.track == self.true_track

    @property
    def right_offset(self) -> bool:
        """The right track within 50 ms."""
        return self.within(TOLERANCE_S)

    @property
    def wrong(self) -> bool:
        """A known query without the right offset, or an unknown query that was matched."""
        return self.matched if self.true_track is None else not self.right_offset

    def within(self, tolerance_s: float) -> bool:
        """The right track within a tolerance; a truth without an offset asks for the track only."""
        if not self.right_track or self.true_start_s is None or self.start_s is None:
            return self.right_track
        return abs(self.start_s - self.true_start_s) <= tolerance_s + 1e-9


def score_answers(answers: Sequence[Answer]) -> dict[str, Rate]:
    """Rates over a batch of queries.

    `hit_track` and `hit_50ms` ask whether the best answer is right, whatever its score.
    `false_positive`: queries that are not in the catalog, but were matched.
    `false_negative`: queries that are in it, but were not matched to their track.
    """
    known = [answer for answer in answers if answer.true_track is not None]
    unknown = [answer for answer in answers if answer.true_track is None]
    missed = sum(not (answer.matched and answer.right_track) for answer in known)
    return {
        "hit_track": Rate(sum(answer.right_track for answer in known), len(known)),
        "hit_50ms": Rate(sum(answer.right_offset for answer in known), len(known)),
        "false_positive": Rate(sum(answer.matched for answer in unknown), len(unknown)),
        "false_negative": Rate(missed, len(known)),
    }
