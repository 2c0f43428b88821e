"""Where tracks of the catalog sound in a chunk of a long recording.

Windows of a few seconds are identified like short queries. Windows that agree in the track and in
the offset, the time in the track less the time in the recording, point to a detection. The inner
products of all fingerprints along that line show where it begins and ends. A track that sounds
again has another offset, and is another detection.
"""

from dataclasses import dataclass, replace

import numpy as np

from grafp.index.alignment import Searcher, best_matches
from grafp.index.scoring import Alignments
from grafp.model.fingerprint import SEGMENT_SECONDS

WINDOW_SECONDS = 5.0
SAME_OFFSET_SECONDS = 0.3
BRIDGE_SECONDS = 10.0  # of speech or noise within a detection
_STEP_SECONDS = 2.5
_TRACKS = 3  # per window: two in a cross-fade, and one more
_SMOOTH_SECONDS = 1.0
_LEVEL = 0.5  # a smoothed product above it is alike
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

    @property
    def offset_s(self) -> float:
        """Where in the track the recording would begin, seconds."""
        return self.track_start_s - self.start_s

    @property
    def weight(self) -> float:
        """Of two detections in one chunk the heavier is believed."""
        return self.heard_s * (self.score - _LEVEL)

    def between(self, start_s: float, end_s: float) -> "Detection":
        """What of it lies between two times."""
        start_s, end_s = max(start_s, self.start_s), min(end_s, self.end_s)
        return replace(
            self,
            start_s=start_s,
            end_s=end_s,
            track_start_s=self.offset_s + start_s,
            heard_s=min(self.heard_s, end_s - start_s),
        )


@dataclass(frozen=True)
class _Line:
    """Windows that agree: fingerprint n of the chunk is number n + offset of the track."""

    ordinal: int
    offset: float
    first: int
    last: int
    """Fingerprints of the chunk, both included."""


def find_detections(
    vectors_MD: np.ndarray,
    catalog: Searcher,
    hop_s: float,
    min_score: float,
    begin_s: float = 0.0,
) -> list[Detection]:
    """Everything in a chunk of a recording that may be a detection, for `sequence` to choose from.

    Args:
        vectors_MD: fingerprints of the chunk, float32 (segments, 128); zeros where it is silent.
        hop_s: seconds between them.
        min_score: what a window of `WINDOW_SECONDS` must reach to point to a detection.
        begin_s: where in the recording the chunk begins, seconds.
    """
    waiting = _lines(_seen(vectors_MD, catalog, hop_s, min_score), hop_s)
    detections: list[Detection] = []
    edge = round(_SMOOTH_SECONDS / hop_s)
    while waiting:
        looks = [_look(line, len(vectors_MD), hop_s) for line in waiting]
        asked = [
            Alignments(
                vectors_MD[look],
                np.array([line.ordinal]),
                np.array([round(line.offset + catalog.offset_correction) + look.start]),
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


def _seen(vectors_MD: np.ndarray, catalog: Searcher, hop_s: float, min_score: float) -> list[_Line]:
    """What each window points to; every fingerprint is searched once."""
    heard = np.flatnonzero(vectors_MD.any(axis=1))
    if not len(heard):
        return []
    similarity_MK = np.zeros((len(vectors_MD), catalog.neighbors), np.float32)
    id_MK = np.full((len(vectors_MD), catalog.neighbors), -1)
    similarity_MK[heard], id_MK[heard] = catalog.nearest(vectors_MD[heard], catalog.neighbors)
    size, step = round(WINDOW_SECONDS / hop_s), round(_STEP_SECONDS / hop_s)
    latest = max(0, len(vectors_MD) - size)
    firsts = [*range(0, latest, step), latest]
    windows = [slice(first, first + size) for first in firsts]
    found = best_matches(
        [vectors_MD[w] for w in windows],
        [(similarity_MK[w], id_MK[w]) for w in windows],
        catalog,
        _TRACKS,
    )
    return [
        _Line(match.ordinal, match.start - first, first + match.first, first + match.last)
        for first, matches in zip(firsts, found, strict=True)
        for match in matches
        if match.score >= min_score
    ]


def _lines(seen: list[_Line], hop_s: float) -> list[_Line]:
    """Windows that agree, together."""
    groups: list[list[_Line]] = []
    for one in sorted(seen, key=lambda line: (line.ordinal, line.offset)):
        near = SAME_OFFSET_SECONDS / hop_s
        last = groups[-1][-1] if groups else None
        if last and last.ordinal == one.ordinal and one.offset - last.offset <= near:
            groups[-1].append(one)
        else:
            groups.append([one])
    return [
        _Line(
            group[0].ordinal,
            float(np.median([line.offset for line in group])),
            min(line.first for line in group),
            max(line.last for line in group),
        )
        for group in groups
    ]


def _look(line: _Line, count: int, hop_s: float) -> slice:
    """The fingerprints to compare: the line's own and some around.

    No more on a side than the line has, or most of the query might lie outside of the track.
    """
    more = min(round(BRIDGE_SECONDS / hop_s), line.last - line.first + 1)
    return slice(max(0, line.first - more), min(count, line.last + 1 + more))


def _grown(
    line: _Line, look: slice, product_N: np.ndarray, count: int, edge: int, stride: int
) -> _Line:
    """The line as far as was looked, on the sides where it is alike as far as that."""
    first, last = line.first, line.last
    if look.start > 0 and _sounds(product_N[:edge], stride):
        first = look.start
    if look.stop < count and _sounds(product_N[-edge:], stride):
        last = look.stop - 1
    return replace(line, first=first, last=last)


def _sounds(product_N: np.ndarray, stride: int) -> bool:
    """Whether all of it lies within the track and is alike."""
    known = product_N[~np.isnan(product_N)]
    return len(known) * stride > len(product_N) - stride and bool(known.mean() > _LEVEL)


def _detections_on(
    line: _Line, begin: int, product_M: np.ndarray, hop_s: float, begin_s: float
) -> list[Detection]:
    """The chunks of a line that are alike; `begin` is the fingerprint of the first product."""
    inside = np.flatnonzero(~np.isnan(product_M))
    if not len(inside):
        return []
    begin += int(inside[0])
    product_N = np.interp(np.arange(inside[0], inside[-1] + 1), inside, product_M[inside])
    smooth_N = _smoothed(product_N, round(_SMOOTH_SECONDS / hop_s))
    detections = []
    for first, last in _runs(smooth_N > _LEVEL, hop_s):
        heard_N = product_N[first : last + 1][smooth_N[first : last + 1] > _LEVEL]
        start_s = _edge(first, hop_s)
        end_s = (len(product_N) - 1) * hop_s + SEGMENT_SECONDS
        end_s -= _edge(len(product_N) - 1 - last, hop_s)
        at_s = begin_s + begin * hop_s
        detections.append(
            Detection(
                ordinal=line.ordinal,
                start_s=at_s + start_s,
                end_s=at_s + end_s,
                track_start_s=max(0.0, (line.offset + begin) * hop_s + start_s),
                score=float(heard_N.mean()),
                heard_s=len(heard_N) * hop_s,
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
