"""A long recording's plays in order: seams joined, the weak left out, overlaps resolved."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from grafp.timeline.detection import BRIDGE_SECONDS, SAME_PLACE_SECONDS, Play

_LEAST_SECONDS = 3.0  # of a play
_FADE_SECONDS = 6.0  # neighbours that overlap by no more meet in the middle


def timeline(plays: Iterable[Play], threshold: Callable[[float], float]) -> list[Play]:
    """The plays of a whole recording from what `find_plays` gave for its stretches, in time order.

    What was cut by the seam of two stretches is joined, what does not reach the threshold is left
    out, and of overlapping plays the heavier keeps the stretch; if no more than a cross-fade is
    shared, they meet in its middle.

    Args:
        threshold: the score that a play must reach, by how much of it was heard, seconds.
    """
    accepted = [
        play
        for play in _joined(plays)
        if play.heard_s >= _LEAST_SECONDS and play.score >= threshold(play.heard_s)
    ]
    kept: list[Play] = []
    for play in sorted(accepted, key=lambda p: (-p.weight, p.start_s, p.ordinal)):
        free = _beside(play, kept)
        if free is not None:
            kept.append(free)
    kept.sort(key=lambda play: play.start_s)
    for number in range(1, len(kept)):
        before, after = kept[number - 1], kept[number]
        if before.end_s > after.start_s:
            middle_s = (before.end_s + after.start_s) / 2
            kept[number - 1] = before.between(before.start_s, middle_s)
            kept[number] = after.between(middle_s, after.end_s)
    return kept


def _joined(plays: Iterable[Play]) -> list[Play]:
    """Plays at one place of a track that touch, as one: stretches of a recording overlap."""
    joined: list[Play] = []
    for play in sorted(plays, key=lambda p: (p.ordinal, p.start_s, p.end_s)):
        for number, other in enumerate(joined):
            if (
                other.ordinal == play.ordinal
                and abs(other.place_s - play.place_s) <= SAME_PLACE_SECONDS
                and play.start_s - other.end_s <= BRIDGE_SECONDS
            ):
                joined[number] = _together(other, play)
                break
        else:
            joined.append(play)
    return joined


def _together(one: Play, other: Play) -> Play:
    """Both as one play; `other` does not begin first."""
    heard_s = one.heard_s + other.heard_s
    end_s = max(one.end_s, other.end_s)
    return replace(
        one,
        end_s=end_s,
        score=(one.score * one.heard_s + other.score * other.heard_s) / heard_s,
        heard_s=min(heard_s, end_s - one.start_s),
    )


def _beside(play: Play, kept: list[Play]) -> Play | None:
    """What the heavier plays leave of a play; None where that is less than half of it."""
    start_s, end_s = play.start_s, play.end_s
    for other in kept:
        shared_s = min(other.end_s, end_s) - max(other.start_s, start_s)
        shorter_s = min(other.end_s - other.start_s, end_s - start_s)
        if shared_s <= min(_FADE_SECONDS, shorter_s / 2):
            continue
        if other.start_s - start_s > end_s - other.end_s:
            end_s = other.start_s
        else:
            start_s = other.end_s
    if end_s - start_s < max(_LEAST_SECONDS, (play.end_s - play.start_s) / 2):
        return None
    return play.between(start_s, end_s)
