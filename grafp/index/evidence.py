"""What an answer is worth: its score, and what the same query reaches elsewhere.

A noisy second of music scores 0.4 in its own track and 0.1 in all others; a second of a common
chord scores 0.7 in many. So the evidence for an answer is its score less a part of the best score
that the query reaches in other music: in other tracks of the catalog, and in a background that is
no answer. Two tracks that agree with each other along the query have the same music, such as two
encodings of one recording. They are one piece, and share its evidence.

Hum and long tones resemble any held note. They are steadier than music: their fingerprints are all
alike. What a query is steadier than clean music counts against its answers.

The part was chosen on validation music; benchmarks/acceptance.py prints others beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from grafp.index.alignment import MAX_SPEED_CHANGE, QUICK, Effort, Searcher, find_matches
from grafp.index.background import BackgroundSearch
from grafp.index.scoring import TRIED, Match

_QUICK_BESIDE = Effort(6, 8, candidates=16)
PART, FREE = 0.65, 0.2
"""Of the best score elsewhere, this part counts; above 0.57 all of it but so much."""
_FURTHER = 16  # times as many neighbors and candidates, where copies take all
_SAME_MUSIC = 0.7  # mean inner product of two tracks along a query


@dataclass(frozen=True)
class Beside:
    """What a query reaches in music that is no answer."""

    score: float
    sketch_SD: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Of the music that it reaches, see `Match.sketch_SD`; none of hum, tones and noise."""
    too_steady: float = 0.0
    """See `BackgroundSearch.too_steady`."""


NOTHING = Beside(0.0)


@dataclass(frozen=True)
class Answer:
    """A track that a query may come from, and what speaks for it."""

    match: Match
    reached: float
    """Score of the piece's best track, zeros where the query sticks out of it."""
    elsewhere: float
    """The best score of the query in other music."""
    piece: int
    """Numbers the pieces of music among the answers from 0; tracks with the same music share
    one."""
    too_steady: float = 0.0
    """How much steadier the query is than music."""

    @property
    def evidence(self) -> float:
        return self.reached - against(self.elsewhere) - self.too_steady

    @property
    def beside(self) -> float:
        """What speaks against it: the score less the evidence."""
        return self.match.score - self.evidence


def against(elsewhere: float) -> float:
    """What the best score elsewhere takes from the evidence.

    Of a high one nearly all: hum or a long tone scores 0.98 in a track and 0.95 elsewhere.
    """
    return max(PART * elsewhere, elsewhere - FREE)


def identify_by_need(
    queries: Sequence[np.ndarray],
    catalog: Searcher,
    background: BackgroundSearch | None,
    decisive: Callable[[Answer], bool],
    *,
    change: float = MAX_SPEED_CHANGE,
) -> list[list[Answer]]:
    """The best piece of music for every query: a quick search, and a whole one where that
    leaves doubt.

    Args:
        queries, catalog, change: see `identify`.
        background: at the query hop.
        decisive: whether an answer leaves no doubt.
    """
    answers: list[list[Answer]] = [[] for _ in queries]
    long = [n for n, query in enumerate(queries) if len(query) > (QUICK.fingerprints or 0)]
    some = [queries[n] for n in long]
    beside = reached(some, background, change=change, effort=_QUICK_BESIDE)
    found = find_matches(some, catalog, change=change, effort=QUICK)
    for n, matches, one in zip(long, found, beside, strict=True):
        first = weighed(matches, one, 1)
        # Of a recording with copies, all are answers, and some may not have been found.
        if len(first) == 1 and decisive(first[0]):
            answers[n] = first
    left = [n for n, known in enumerate(answers) if not known]
    some = [queries[n] for n in left]
    beside = reached(some, background, change=change)
    for n, whole in zip(left, identify(some, catalog, beside, change=change), strict=True):
        answers[n] = whole
    return answers


def identify(
    queries: Sequence[np.ndarray],
    catalog: Searcher,
    beside: Sequence[Beside],
    *,
    top_k: int = 1,
    change: float = MAX_SPEED_CHANGE,
) -> list[list[Answer]]:
    """The best `top_k` pieces of music for every query, with every track that has one; best first.

    Args:
        queries: fingerprints of each query, float32 (segments, 128), one every query hop.
        catalog: all shards, here or elsewhere.
        beside: what each query reaches in a background, see `reached`.
        change: greatest change of the speed, as a share.
    """
    tried = max(TRIED, top_k + 1)
    found = find_matches(queries, catalog, tried=tried, change=change)
    # Where copies take all that was tried, there may be more of them. They are the nearest
    # neighbors too, so other music is further away.
    full = [n for n, matches in enumerate(found) if _too_few_pieces(matches, top_k)]
    more = find_matches(
        [queries[n] for n in full],
        catalog,
        tried=_FURTHER * catalog.candidates,
        neighbors=_FURTHER * catalog.neighbors,
        candidates=_FURTHER * catalog.candidates,
        change=change,
    )
    for n, matches in zip(full, more, strict=True):
        found[n] = matches
    return [weighed(*each, top_k) for each in zip(found, beside, strict=True)]


def _too_few_pieces(matches: Sequence[Match], top_k: int) -> bool:
    """Whether none follows the last piece asked for, though as many tracks were found as tried."""
    sketches = [match.sketch_SD for match in matches]
    return len(matches) >= max(TRIED, top_k + 1) and max(_pieces(sketches)) < top_k


def reached(
    queries: Sequence[np.ndarray],
    background: BackgroundSearch | None,
    *,
    change: float = MAX_SPEED_CHANGE,
    effort: Effort | None = None,
) -> list[Beside]:
    """What each query reaches in music that is no answer; `background`: at the query hop."""
    if background is None:
        return [NOTHING] * len(queries)
    found = find_matches(queries, background, tried=1, change=change, effort=effort)
    return [
        _beside(query_MD, matches[0], background) if matches else NOTHING
        for query_MD, matches in zip(queries, found, strict=True)
    ]


def _beside(query_MD: np.ndarray, match: Match, background: BackgroundSearch) -> Beside:
    sketch_SD = match.sketch_SD if match.ordinal < background.music else None
    return Beside(match.rank_score, sketch_SD, background.too_steady(query_MD))


def weighed(matches: Sequence[Match], beside: Beside, top_k: int) -> list[Answer]:
    """Matches as answers; each piece is compared with the best of those that follow it.

    What the query reaches in the background does not speak against a piece that has its music: a
    catalog may hold music that the background is made of. Hum always does.
    """
    sketches = [match.sketch_SD for match in matches]
    piece_W = _pieces(sketches)
    score = {
        piece: max(m.rank_score for m, p in zip(matches, piece_W, strict=True) if p == piece)
        for piece in piece_W
    }
    same: set[int] = set()
    if beside.sketch_SD is not None:
        alike_W = _agreeing([beside.sketch_SD, *sketches])[0, 1:]
        same = {piece for piece, alike in zip(piece_W, alike_W, strict=True) if alike}
    following = {
        piece: [0.0 if piece in same else beside.score]
        + [s for other, s in score.items() if other > piece]
        for piece in score
    }
    return [
        Answer(match, score[piece], max(following[piece]), piece, beside.too_steady)
        for match, piece in zip(matches, piece_W, strict=True)
        if piece < top_k
    ]


def _pieces(sketches: Sequence[np.ndarray]) -> list[int]:
    """A number for each track, the same for all that agree with the first of them."""
    leaders: list[int] = []
    pieces = []
    for n, alike_W in enumerate(_agreeing(sketches).tolist()):
        piece = next((p for p, leader in enumerate(leaders) if alike_W[leader]), len(leaders))
        if piece == len(leaders):
            leaders.append(n)
        pieces.append(piece)
    return pieces


def _agreeing(sketches: Sequence[np.ndarray]) -> np.ndarray:
    """Which tracks have the same music, bool (tracks, tracks); see `Match.sketch_SD`."""
    if not sketches:
        return np.zeros((0, 0), bool)
    sketch_WSD = np.stack(sketches).astype(np.float32)
    inside_WS = np.asarray(sketch_WSD.any(axis=2), np.float32)
    flat_WF: np.ndarray = sketch_WSD.reshape(len(sketch_WSD), -1)
    both_WW = inside_WS @ inside_WS.T
    agree_WW: np.ndarray = flat_WF @ flat_WF.T >= _SAME_MUSIC * np.maximum(both_WW, 1)
    return agree_WW
