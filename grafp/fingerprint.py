"""What a fingerprint is, for code that stores, searches and compares them without PyTorch."""

from grafp.audio import SAMPLE_RATE

DIMENSION = 128
"""Numbers in a fingerprint; a unit vector (paper, section II-B)."""
SEGMENT_SECONDS = 1.0
"""Audio that one fingerprint stands for (paper, Table I)."""
SEGMENT_SAMPLES = round(SEGMENT_SECONDS * SAMPLE_RATE)
HOP_SECONDS = 0.1
"""Between two fingerprints of a query, and of a catalogue unless told otherwise (Table I)."""


def segment_count(samples: int, hop_samples: int) -> int:
    """How many whole segments fit, one every hop."""
    return 0 if samples < SEGMENT_SAMPLES else (samples - SEGMENT_SAMPLES) // hop_samples + 1
