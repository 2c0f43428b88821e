"""The background's music as a catalog of its own, to search beside the real one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

try:
    from faiss import METRIC_INNER_PRODUCT, knn
except ImportError:  # who only locates clips in recordings may do without
    knn = None  # type: ignore[assignment]

from grafp.index.alignment import CANDIDATES
from grafp.index.calibration import Law, between
from grafp.index.ids import fingerprint_ids
from grafp.index.scoring import Alignments, Match, Tracks
from grafp.model.background import LENGTHS_S, Background


@dataclass(frozen=True)
class BackgroundSearch:
    """The clean excerpts of a background, compared exactly; a `Searcher`."""

    tracks: Tracks
    vectors_ND: np.ndarray
    ids_N: np.ndarray
    music: int
    """The first so many of its tracks are music; sounds come after them."""
    stride: int = 1
    offset_correction: float = 0.0
    neighbors: int = 8
    candidates: int = CANDIDATES

    @classmethod
    def of(
        cls, background: Background, query_hop_s: float, without: int | None = None
    ) -> "BackgroundSearch":
        """`without`: a track that is left out, by its number in `Background.track_N`."""
        there = background.at_hop(query_hop_s)
        tracks_T = np.arange(len(there.counts_T))
        kept_T = tracks_T != (-1 if without is None else without)
        counts_T = there.counts_T[kept_T].astype(np.int64)
        ordinals_T = np.arange(len(counts_T))
        vectors_ND = there.references_RD[np.repeat(kept_T, there.counts_T)].astype(np.float32)
        first_rows_T = np.cumsum(counts_T) - counts_T
        ids = [fingerprint_ids(t, np.arange(count)) for t, count in enumerate(counts_T.tolist())]
        tracks = Tracks(vectors_ND, ordinals_T, first_rows_T, counts_T)
        music = int(kept_T[: background.tracks].sum())
        return cls(tracks, vectors_ND, np.concatenate(ids), music)

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, len(self.vectors_ND))
        queries_QD = np.ascontiguousarray(queries_QD, np.float32)
        if knn is None:
            product_QN = queries_QD @ self.vectors_ND.T
            row_QK = np.argpartition(-product_QN, k - 1, axis=1)[:, :k]
            return np.take_along_axis(product_QN, row_QK, axis=1), self.ids_N[row_QK]
        similarity_QK, row_QK = knn(queries_QD, self.vectors_ND, k, metric=METRIC_INNER_PRODUCT)
        return similarity_QK, self.ids_N[row_QK]

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        return [self.tracks.products(one, self.stride) for one in asked]

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        return [self.tracks.matches(one, self.stride, tried, change) for one in asked]


def law_alone(background: Background, seconds: float, segments: int) -> Law:
    """The law of a clip of this length in one recording of so many segments.

    The best of more starts is larger by the scale times the logarithm of their number.
    """
    laws = {s: Law(*row) for s, row in zip(LENGTHS_S, background.alone_L2.tolist(), strict=True)}
    law = between(laws, seconds)
    more = max(1, segments) / float(background.counts_T[: background.tracks].mean())
    return Law(law.location + law.scale * math.log(more), law.scale)
