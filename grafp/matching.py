"""From nearest fingerprints to "this track, at this second" (paper, section II-D).

Each neighbour proposes where the query would have to start in its track (eq. 7); every proposal
is scored with the exact fingerprints along the whole query (eq. 8).
"""

from dataclasses import dataclass

import faiss
import numpy as np

from grafp.index import SEGMENT_BITS, search

NEIGHBOURS = 20  # per fingerprint and shard
_CANDIDATES = 96  # proposals scored exactly per query and shard, those with the most votes first
_MIN_OVERLAP = 0.5  # of the query or the track, whichever is shorter
_ROWS_AT_ONCE = 1 << 19  # reference fingerprints in memory while scoring: 256 MB


@dataclass(frozen=True)
class Shard:
    """One part of a catalogue, opened: its tracks are in no other part."""

    index: faiss.IndexIVF | None
    vectors_ND: np.ndarray
    """float16 fingerprints in id order, (rows, 128); may be mapped from a file."""
    ordinals_T: np.ndarray
    """The tracks, ascending."""
    first_rows_T: np.ndarray
    counts_T: np.ndarray
    """Segments of each track; 0 for one that must not be found any more."""


@dataclass(frozen=True)
class Match:
    """One place of the catalogue that a query may come from."""

    ordinal: int
    start: float
    """Where in the track the query's first fingerprint lies, in hops; interpolated."""
    score: float
    """Mean inner product over the aligned fingerprints."""
    rank_score: float
    """Eq. 8 with zeros where the query sticks out of the track; ranks the matches."""
    first: int
    last: int
    """The query's fingerprints that lie within the track, both included."""


def find_matches(
    queries: list[np.ndarray], shards: list[Shard], *, top_k: int = 1, nprobe: int = 32
) -> list[list[Match]]:
    """The best place in each of the best tracks, for every query.

    Args:
        queries: fingerprints of each query, float32 (segments, 128), at the catalogue's hop.
        shards: the whole catalogue.
        top_k: tracks wanted per query.

    Returns one list per query, best first, at most `top_k` long.
    """
    found: list[list[Match]] = [[] for _ in queries]
    bounds = np.cumsum([0, *map(len, queries)])
    stacked_QD = np.concatenate(queries) if queries else np.zeros((0, 128), np.float32)
    for shard in shards:
        similarity_QK, id_QK = search(shard.index, stacked_QD, NEIGHBOURS, nprobe)
        for number, query_MD in enumerate(queries):
            part = slice(bounds[number], bounds[number + 1])
            track_C, start_C = _propose(similarity_QK[part], id_QK[part], query_MD, shard)
            found[number] += _score(query_MD, track_C, start_C, shard, top_k)
    return [
        sorted(matches, key=lambda match: (-match.rank_score, match.ordinal))[:top_k]
        for matches in found
    ]


def align(query_MD: np.ndarray, reference_ND: np.ndarray) -> Match | None:
    """The best place for a query in one recording, every start tried; None if either is empty."""
    if len(query_MD) == 0 or len(reference_ND) == 0:
        return None
    whole = Shard(None, reference_ND, np.array([0]), np.array([0]), np.array([len(reference_ND)]))
    start_C = np.arange(1 - len(query_MD), len(reference_ND))
    track_C = np.zeros(len(start_C), int)
    enough_C = _overlaps_enough(query_MD, track_C, start_C, whole)
    return _score(query_MD, track_C[enough_C], start_C[enough_C], whole, 1)[0]


def _propose(
    similarity_MK: np.ndarray, id_MK: np.ndarray, query_MD: np.ndarray, shard: Shard
) -> tuple[np.ndarray, np.ndarray]:
    """Offset compensation (eq. 7): distinct (track, start) pairs, the most supported first."""
    position_M1 = np.arange(len(id_MK))[:, None]
    heard_M = np.asarray(query_MD.any(axis=1))  # silence proposes nothing
    usable_MK = (id_MK >= 0) & heard_M[:, None]
    ordinal_P = (id_MK >> SEGMENT_BITS)[usable_MK]
    start_P = ((id_MK & ((1 << SEGMENT_BITS) - 1)) - position_M1)[usable_MK]
    # A start before the track's beginning is negative: the shift keeps it in its own track.
    shift = 1 << SEGMENT_BITS
    key_P = (ordinal_P << (SEGMENT_BITS + 1)) + start_P + shift
    key_C, where_P = np.unique(key_P, return_inverse=True)
    votes_C = np.bincount(where_P, similarity_MK[usable_MK], minlength=len(key_C))
    best_C = key_C[np.argsort(-votes_C, kind="stable")[:_CANDIDATES]]
    ordinal_C = best_C >> (SEGMENT_BITS + 1)
    start_C = (best_C & ((1 << (SEGMENT_BITS + 1)) - 1)) - shift
    track_C = np.searchsorted(shard.ordinals_T, ordinal_C)
    enough_C = _overlaps_enough(query_MD, track_C, start_C, shard)
    return track_C[enough_C], start_C[enough_C]


def _overlaps_enough(
    query_MD: np.ndarray, track_C: np.ndarray, start_C: np.ndarray, shard: Shard
) -> np.ndarray:
    """Whether enough of the query lies within the track to be judged by it."""
    count_C = shard.counts_T[track_C]
    overlap_C = np.minimum(start_C + len(query_MD), count_C) - np.maximum(start_C, 0)
    needed_C = np.maximum(1, _MIN_OVERLAP * np.minimum(len(query_MD), count_C))
    return overlap_C >= needed_C


def _score(
    query_MD: np.ndarray, track_C: np.ndarray, start_C: np.ndarray, shard: Shard, top_k: int
) -> list[Match]:
    """Sequence scores (eq. 8), then the best start of each of the best tracks, interpolated."""
    if len(track_C) == 0:
        return []
    per_chunk = max(1, _ROWS_AT_ONCE // len(query_MD))
    total_C = np.concatenate(
        [
            _alignment_sums(query_MD, track_C[i : i + per_chunk], start_C[i : i + per_chunk], shard)
            for i in range(0, len(track_C), per_chunk)
        ]
    )
    order_C = np.argsort(-total_C, kind="stable")
    _, first_seen = np.unique(track_C[order_C], return_index=True)
    winners = order_C[np.sort(first_seen)[:top_k]]
    return [_match(query_MD, int(track_C[c]), int(start_C[c]), shard) for c in winners]


def _alignment_sums(
    query_MD: np.ndarray, track_C: np.ndarray, start_C: np.ndarray, shard: Shard
) -> np.ndarray:
    """Sum of inner products along the query for each start; nothing counts outside the track."""
    segment_CM = start_C[:, None] + np.arange(len(query_MD))
    inside_CM = (segment_CM >= 0) & (segment_CM < shard.counts_T[track_C][:, None])
    row_CM = np.where(inside_CM, shard.first_rows_T[track_C][:, None] + segment_CM, 0)
    reference_CMD = np.asarray(shard.vectors_ND[row_CM], np.float32)
    return (np.einsum("cmd,md->cm", reference_CMD, query_MD) * inside_CM).sum(axis=1)


def _match(query_MD: np.ndarray, track: int, start: int, shard: Shard) -> Match:
    """The start refined between grid points by a parabola through three neighbouring scores."""
    starts_W = np.arange(start - 2, start + 3)
    sums_W = _alignment_sums(query_MD, np.full(5, track), starts_W, shard)
    peak = 1 + int(np.argmax(sums_W[1:4]))
    count, best = int(shard.counts_T[track]), int(starts_W[peak])
    first, last = max(0, -best), min(len(query_MD), count - best) - 1
    total = float(sums_W[peak])
    inside = 0 < best < count - len(query_MD)
    return Match(
        ordinal=int(shard.ordinals_T[track]),
        # At a track's edge a neighbour covers less of the query, so its score says nothing.
        start=best + (_vertex(*sums_W[peak - 1 : peak + 2].tolist()) if inside else 0.0),
        score=total / (last - first + 1),
        rank_score=total / len(query_MD),
        first=first,
        last=last,
    )


def _vertex(before: float, here: float, after: float) -> float:
    """Where a parabola through three equally spaced scores peaks, -0.5..0.5 from the middle."""
    curvature = before - 2.0 * here + after
    if curvature >= 0.0:
        return 0.0
    return float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5))
