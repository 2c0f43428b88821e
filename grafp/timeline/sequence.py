"""A long recording's detections in order: seams joined, the weak left out, overlaps resolved."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from grafp.timeline.detection import BRIDGE_SECONDS, Detection
from grafp.timeline.lines import SAME_OFFSET_SECONDS

_LEAST_SECONDS = 3.0  # of a detection
_FADE_SECONDS = 6.0  # neighbors that overlap by no more meet in the middle


def timeline(
    detections: Iterable[Detection], accepts: Callable[[Detection], bool]
) -> list[Detection]:
    """The detections of a whole recording, in time order, from those of its chunks.

    What was cut by the seam of two chunks is joined, what does not reach the threshold is left
    out, and of overlapping detections the heavier keeps the chunk; if no more than a cross-fade is
    shared, they meet in its middle.

    Args:
        accepts: whether a detection is believed, apart from its length.
    """
    accepted = [
        detection
        for detection in _joined(detections)
        if detection.heard_s >= _LEAST_SECONDS and accepts(detection)
    ]
    kept: list[Detection] = []
    for detection in sorted(accepted, key=lambda p: (-p.weight, p.start_s, p.ordinal)):
        free = _beside(detection, kept)
        if free is not None:
            kept.append(free)
    kept.sort(key=lambda detection: detection.start_s)
    for number in range(1, len(kept)):
        before, after = kept[number - 1], kept[number]
        if before.end_s > after.start_s:
            middle_s = (before.end_s + after.start_s) / 2
            kept[number - 1] = before.between(before.start_s, middle_s)
            kept[number] = after.between(middle_s, after.end_s)
    return kept


def _joined(detections: Iterable[Detection]) -> list[Detection]:
    """Detections on one line of a track that touch, as one: chunks of a recording overlap."""
    joined: list[Detection] = []
    for detection in sorted(detections, key=lambda p: (p.ordinal, p.start_s, p.end_s)):
        for number, other in enumerate(joined):
            if (
                other.ordinal == detection.ordinal
                and abs(other.track_at(detection.start_s) - detection.track_start_s)
                <= SAME_OFFSET_SECONDS
                and detection.start_s - other.end_s <= BRIDGE_SECONDS
            ):
                joined[number] = _together(other, detection)
                break
        else:
            joined.append(detection)
    return joined


def _together(one: Detection, other: Detection) -> Detection:
    """Both as one detection; `other` does not begin first."""
    heard_s = one.heard_s + other.heard_s
    end_s = max(one.end_s, other.end_s)
    part = other.heard_s / heard_s
    return replace(
        one,
        end_s=end_s,
        score=one.score + part * (other.score - one.score),
        heard_s=min(heard_s, end_s - one.start_s),
        speed=one.speed + part * (other.speed - one.speed),
        beside=one.beside + part * (other.beside - one.beside),
    )


def _beside(detection: Detection, kept: list[Detection]) -> Detection | None:
    """What the heavier detections leave of a detection; None where that is less than half of it."""
    start_s, end_s = detection.start_s, detection.end_s
    for other in kept:
        shared_s = min(other.end_s, end_s) - max(other.start_s, start_s)
        shorter_s = min(other.end_s - other.start_s, end_s - start_s)
        if shared_s <= min(_FADE_SECONDS, shorter_s / 2):
            continue
        if other.start_s - start_s > end_s - other.end_s:
            end_s = other.start_s
        else:
            start_s = other.end_s
    if end_s - start_s < max(_LEAST_SECONDS, (detection.end_s - detection.start_s) / 2):
        return None
    return detection.between(start_s, end_s)
