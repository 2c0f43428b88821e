"""What a fingerprint is, for code that stores, searches and compares them without PyTorch."""

import math

import numpy as np
from numpy.typing import ArrayLike

from grafp.audio import SAMPLE_RATE

DIMENSION = 128
"""Numbers in a fingerprint; a unit vector (paper, section II-B)."""
SEGMENT_SECONDS = 1.0
"""Audio that one fingerprint stands for (paper, Table I)."""
SEGMENT_SAMPLES = round(SEGMENT_SECONDS * SAMPLE_RATE)
HOP_SECONDS = 0.1
"""Between two fingerprints of a query, and of a catalog unless told otherwise (Table I)."""


def query_stride(hop_s: float) -> int:
    """Query hops between two fingerprints of a catalog: queries are at 0.1 s or finer."""
    hop = round(hop_s * SAMPLE_RATE)
    least = math.ceil(hop_s / HOP_SECONDS - 1e-9)
    return next(n for n in range(least, hop + 1) if hop % n == 0)  # whole samples: no drift


def segment_count(samples: int, hop_samples: int) -> int:
    """How many whole segments fit, one every hop."""
    return 0 if samples < SEGMENT_SAMPLES else (samples - SEGMENT_SAMPLES) // hop_samples + 1


def peak_between(before: ArrayLike, here: ArrayLike, after: ArrayLike) -> np.ndarray:
    """Where parabolas through scores a step apart peak, -0.5..0.5 steps from the middle one."""
    before, here, after = np.asarray(before), np.asarray(here), np.asarray(after)
    curvature = before - 2.0 * here + after
    bent = curvature < 0.0
    peak = 0.5 * (before - after) / np.where(bent, curvature, -1.0)
    return np.where(bent, peak.clip(-0.5, 0.5), 0.0)
