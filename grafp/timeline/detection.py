"""Where tracks of the catalog sound in a chunk of a long recording.

Windows of a few seconds are identified like short queries. Windows that agree in the track and lie
on one line, the position in the track over the time in the recording, point to a detection. The
slope of the line is the speed at which the track plays. The inner products of all fingerprints
along the line show where the detection begins and ends. A track that sounds again lies on another
line, and is another detection.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from grafp.index.alignment import MAX_SPEED_CHANGE, Searcher, best_matches
from grafp.index.background import BackgroundSearch
from grafp.index.evidence import Answer, reached, weighed
from grafp.index.proposals import Alignments
from grafp.index.scoring import TRIED
from grafp.model.fingerprint import SEGMENT_SECONDS
from grafp.timeline.lines import Line, Window, lines_of, window_of

WINDOW_SECONDS = 5.0
STEP_SECONDS = 2.5
BRIDGE_SECONDS = 10.0  # of speech or noise within a detection
_TRACKS = 3  # per window: two in a cross-fade, and one more
_SMOOTH_SECONDS = 1.0
_LEVEL, _LEVEL_SHARE = 0.5, 0.75
"""A smoothed product is alike above this level, or above this share of what the windows of the line
score, where that is less: music in noise, or at another speed."""
_LEAST_RUN_SECONDS = 2.0  # what is alike for less may be chance


@dataclass(frozen=True)
class Detection:
    """A chunk of a recording in which a track sounds; times in seconds."""

    ordinal: int
    start_s: float
    end_s: float
    track_start_s: float
    """Where in the track `start_s` lies."""
    score: float
    """Mean inner product over what was heard."""
    heard_s: float
    """How much of the chunk is alike; bridged gaps are not."""
    speed: float = 1.0
    """At which the track plays, 1 as cataloged."""
    beside: float = 0.0
    """What speaks against it: the evidence is the score less this."""

    @property
    def evidence(self) -> float:
        return self.score - self.beside

    @property
    def weight(self) -> float:
        """Of two detections in one chunk the heavier is believed."""
        return self.heard_s * self.evidence

    def track_at(self, time_s: float) -> float:
        """Where in the track a time of the recording lies, seconds."""
        return self.track_start_s + self.speed * (time_s - self.start_s)

    def between(self, start_s: float, end_s: float) -> "Detection":
        """What of it lies between two times."""
        start_s, end_s = max(start_s, self.start_s), min(end_s, self.end_s)
        return replace(
            self,
            start_s=start_s,
            end_s=end_s,
            track_start_s=self.track_at(start_s),
            heard_s=min(self.heard_s, end_s - start_s),
        )


def find_detections(
    vectors_MD: np.ndarray,
    catalog: Searcher,
    background: BackgroundSearch | None,
    hop_s: float,
    points: Callable[[Answer], bool],
    begin_s: float = 0.0,
    change: float = MAX_SPEED_CHANGE,
) -> list[Detection]:
    """Everything in a chunk of a recording that may be a detection, for `sequence` to choose from.

    Args:
        vectors_MD: fingerprints of the chunk, float32 (segments, 128); zeros where it is silent.
        background: music that is no answer, see grafp.index.background.
        hop_s: seconds between fingerprints.
        points: whether the answer to a window of `WINDOW_SECONDS` points to a detection.
        begin_s: where in the recording the chunk begins, seconds.
        change: greatest change of the speed, as a share.
    """
    seen = _seen(vectors_MD, catalog, background, hop_s, points, change)
    waiting = lines_of(seen, hop_s)
    detections: list[Detection] = []
    edge = round(_SMOOTH_SECONDS / hop_s)
    while waiting:
        looks = [_look(line, len(vectors_MD), hop_s) for line in waiting]
        asked = [
            Alignments(
                vectors_MD[look],
                np.array([line.ordinal]),
                np.array([line.offset + catalog.offset_correction + line.speed * look.start]),
                np.array([line.speed]),
            )
            for line, look in zip(waiting, looks, strict=True)
        ]
        further = []
        for line, look, [product_N] in zip(waiting, looks, catalog.products(asked), strict=True):
            longer = _grown(line, look, product_N, len(vectors_MD), edge, catalog.stride)
            if longer != line:
                further.append(longer)
            else:
                detections += _detections_on(line, look.start, product_N, hop_s, begin_s)
        waiting = further
    return detections


def _seen(
    vectors_MD: np.ndarray,
    catalog: Searcher,
    background: BackgroundSearch | None,
    hop_s: float,
    points: Callable[[Answer], bool],
    change: float,
) -> list[Window]:
    """What each window points to; every fingerprint is searched once."""
    heard = np.flatnonzero(vectors_MD.any(axis=1))
    if not len(heard):
        return []
    similarity_MK = np.zeros((len(vectors_MD), catalog.neighbors), np.float32)
    id_MK = np.full((len(vectors_MD), catalog.neighbors), -1)
    similarity_MK[heard], id_MK[heard] = catalog.nearest(vectors_MD[heard], catalog.neighbors)
    size, step = round(WINDOW_SECONDS / hop_s), round(STEP_SECONDS / hop_s)
    latest = max(0, len(vectors_MD) - size)
    firsts = [*range(0, latest, step), latest]
    windows = [slice(first, first + size) for first in firsts]
    queries = [vectors_MD[w] for w in windows]
    nearest = [(similarity_MK[w], id_MK[w]) for w in windows]
    found = best_matches(queries, nearest, catalog, TRIED, change)
    beside = reached(queries, background, change=change)
    return [
        window_of(answer, first, len(query_MD))
        for first, query_MD, matches, other in zip(firsts, queries, found, beside, strict=True)
        for answer in weighed(matches, other, _TRACKS)
        if points(answer)
    ]


def _look(line: Line, count: int, hop_s: float) -> slice:
    """The fingerprints to compare: the line's own and some around.

    No more on a side than the line has, or most of the query might lie outside of the track.
    """
    more = min(round(BRIDGE_SECONDS / hop_s), line.last - line.first + 1)
    return slice(max(0, line.first - more), min(count, line.last + 1 + more))


def _grown(
    line: Line, look: slice, product_N: np.ndarray, count: int, edge: int, stride: int
) -> Line:
    """The line as far as was looked, on the sides where it is alike as far as that."""
    first, last = line.first, line.last
    level = _level(line)
    if look.start > 0 and _sounds(product_N[:edge], stride, level):
        first = look.start
    if look.stop < count and _sounds(product_N[-edge:], stride, level):
        last = look.stop - 1
    return replace(line, first=first, last=last)


def _level(line: Line) -> float:
    return min(_LEVEL, _LEVEL_SHARE * line.score)


def _sounds(product_N: np.ndarray, stride: int, level: float) -> bool:
    """Whether all of it lies within the track and is alike."""
    known = product_N[~np.isnan(product_N)]
    return len(known) * stride > len(product_N) - stride and bool(known.mean() > level)


def _detections_on(
    line: Line, begin: int, product_M: np.ndarray, hop_s: float, begin_s: float
) -> list[Detection]:
    """The chunks of a line that are alike; `begin` is the fingerprint of the first product."""
    inside = np.flatnonzero(~np.isnan(product_M))
    if not len(inside):
        return []
    begin += int(inside[0])
    product_N = np.interp(np.arange(inside[0], inside[-1] + 1), inside, product_M[inside])
    smooth_N = _smoothed(product_N, round(_SMOOTH_SECONDS / hop_s))
    alike_N = smooth_N > _level(line)
    detections = []
    for first, last in _runs(alike_N, hop_s):
        heard_N = product_N[first : last + 1][alike_N[first : last + 1]]
        start_s = _edge(first, hop_s)
        end_s = (len(product_N) - 1) * hop_s + SEGMENT_SECONDS
        end_s -= _edge(len(product_N) - 1 - last, hop_s)
        at_s = begin_s + begin * hop_s
        detections.append(
            Detection(
                ordinal=line.ordinal,
                start_s=at_s + start_s,
                end_s=at_s + end_s,
                track_start_s=max(
                    0.0, (line.offset + line.speed * begin) * hop_s + line.speed * start_s
                ),
                score=float(heard_N.mean()),
                heard_s=len(heard_N) * hop_s,
                speed=line.speed,
                beside=line.beside,
            )
        )
    return detections


def _smoothed(values_N: np.ndarray, width: int) -> np.ndarray:
    """Moving average; at the ends over what there is."""
    ones = np.ones(min(width, len(values_N)))
    return np.convolve(values_N, ones, "same") / np.convolve(np.ones(len(values_N)), ones, "same")


def _runs(alike_N: np.ndarray, hop_s: float) -> list[tuple[int, int]]:
    """First and last of every run that lasts, those with short gaps between them as one."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], alike_N.astype(int), [0]])))
    runs: list[tuple[int, int]] = []
    for first, after in change.reshape(-1, 2).tolist():
        if (after - first) * hop_s < _LEAST_RUN_SECONDS:
            continue
        if runs and (first - runs[-1][1]) * hop_s <= BRIDGE_SECONDS:
            runs[-1] = (runs[-1][0], after - 1)
        else:
            runs.append((first, after - 1))
    return runs


def _edge(hops: int, hop_s: float) -> float:
    """Seconds from the begin of a line to a detection that starts so many hops later.

    Where music sets in, the first fingerprint that is alike is half music. Where the track itself
    or the recording begins, it is all music; products that rise within a second say no other.
    """
    seconds = hops * hop_s
    return 0.0 if seconds <= _SMOOTH_SECONDS else seconds + (SEGMENT_SECONDS - hop_s) / 2
