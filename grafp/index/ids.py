"""Fingerprint ids: the track's ordinal above, the segment's number in the lowest 20 bits."""

import numpy as np

SEGMENT_BITS = 20  # 2^20 segments every 0.1 s are 29 hours, far above the longest recording
_SEGMENTS = (1 << SEGMENT_BITS) - 1


def fingerprint_ids(ordinal: int, segments_N: np.ndarray) -> np.ndarray:
    """int64 ids of a track's segments, in the shape of `segments_N`."""
    return (np.int64(ordinal) << SEGMENT_BITS) | segments_N.astype(np.int64)


def ordinals_of(ids: np.ndarray) -> np.ndarray:
    """The tracks' ordinals, in the shape of `ids`; -1 for the id -1, which is none."""
    return ids >> SEGMENT_BITS


def segments_of(ids: np.ndarray) -> np.ndarray:
    """The segments' numbers, in the shape of `ids`."""
    return ids & _SEGMENTS
