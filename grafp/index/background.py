"""The background's music as a catalog of its own, to search beside the real one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

try:
    import faiss

    from grafp.index.cells import in_cells
except ImportError:  # who only locates clips in recordings may do without
    faiss = None  # type: ignore[assignment]

from grafp.index.alignment import CANDIDATES, Effort
from grafp.index.calibration import Law, between
from grafp.index.ids import fingerprint_ids
from grafp.index.proposals import Alignments
from grafp.index.scoring import Match, Tracks
from grafp.model.background import LENGTHS_S, Background
from grafp.model.fingerprint import SEGMENT_SECONDS

_LISTS = 128  # of which a single fingerprint is looked for in all
_STEADY = 0.99  # of clean music is less steady


@dataclass(frozen=True)
class BackgroundSearch:
    """The clean excerpts of a background, a `Searcher`: exact, or quick in some of its lists."""

    tracks: Tracks
    vectors_ND: np.ndarray
    ids_N: np.ndarray
    music: int
    """The first so many of its tracks are music; sounds come after them."""
    hop_s: float
    """Between two fingerprints, seconds."""
    stride: int = 1
    offset_correction: float = 0.0
    neighbors: int = 8
    candidates: int = CANDIDATES
    effort: ClassVar[Effort] = Effort(16, 32, lists_in_all=_LISTS)

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
        return cls(tracks, vectors_ND, np.concatenate(ids), music, query_hop_s)

    def too_steady(self, query_MD: np.ndarray) -> float:
        """How much steadier a query is than music: 0 for nearly all music, up to 0.7 for hum."""
        seconds = (len(query_MD) - 1) * self.hop_s + SEGMENT_SECONDS
        limits, apart = self._steadiest, self._apart
        if len(query_MD) <= apart or not limits:
            return 0.0
        limit = np.interp(math.log(seconds), [math.log(s) for s in limits], list(limits.values()))
        return max(0.0, float(steadiness(query_MD, apart) - limit))

    @property
    def _apart(self) -> int:
        """From this many hops on, two fingerprints have no second in common."""
        return round(SEGMENT_SECONDS / self.hop_s)

    @cached_property
    def _steadiest(self) -> dict[float, float]:
        """By length in seconds, what nearly all passages of the clean excerpts stay below."""
        ends_T = np.cumsum(self.tracks.counts_T)[: self.music]
        excerpts = np.split(self.vectors_ND[: ends_T[-1]], ends_T[:-1]) if self.music else []
        limits = {}
        for seconds in LENGTHS_S[1:]:
            length = 1 + round((seconds - SEGMENT_SECONDS) / self.hop_s)
            passages = [
                np.lib.stride_tricks.sliding_window_view(one_ND, length, 0)[:: self._apart]
                for one_ND in excerpts
                if len(one_ND) >= length
            ]
            if passages:
                passages_PMD = np.concatenate(passages).swapaxes(1, 2)
                limits[seconds] = float(np.quantile(steadiness(passages_PMD, self._apart), _STEADY))
        return limits

    def nearest(
        self, queries_QD: np.ndarray, k: int, nprobe: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, len(self.vectors_ND))
        queries_QD = np.ascontiguousarray(queries_QD, np.float32)
        if faiss is None:
            product_QN = queries_QD @ self.vectors_ND.T
            row_QK = np.argpartition(-product_QN, k - 1, axis=1)[:, :k]
            return np.take_along_axis(product_QN, row_QK, axis=1), self.ids_N[row_QK]
        if nprobe and nprobe < self._lists.nlist:
            asked = faiss.SearchParametersIVF(nprobe=nprobe)
            similarity_QK, row_QK = self._lists.search(queries_QD, k, params=asked)
            return similarity_QK, np.where(row_QK < 0, -1, self.ids_N[row_QK])
        metric = faiss.METRIC_INNER_PRODUCT
        similarity_QK, row_QK = faiss.knn(queries_QD, self.vectors_ND, k, metric=metric)
        return similarity_QK, self.ids_N[row_QK]

    @cached_property
    def _lists(self) -> "faiss.IndexIVF":
        return in_cells(self.vectors_ND, _LISTS)

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        return [self.tracks.products(one, self.stride) for one in asked]

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        return self.tracks.matches(asked, self.stride, tried, change)


def steadiness(query_MD: np.ndarray, apart: int) -> np.ndarray:
    """Mean inner product of all pairs of fingerprints at least `apart` rows from each other.

    Args:
        query_MD: (..., segments, 128) with more than `apart` segments.
    """
    after_MD = np.cumsum(query_MD[..., ::-1, :], axis=-2)[..., ::-1, :]
    count = query_MD.shape[-2] - apart
    sums = np.einsum("...md,...md->...", query_MD[..., :count, :], after_MD[..., apart:, :])
    mean: np.ndarray = sums / (count * (count + 1) / 2)
    return mean


def law_alone(background: Background, seconds: float, segments: int) -> Law:
    """The law of a clip of this length in one recording of so many segments.

    The best of more starts is larger by the scale times the logarithm of their number.
    """
    laws = {s: Law(*row) for s, row in zip(LENGTHS_S, background.alone_L2.tolist(), strict=True)}
    law = between(laws, seconds)
    more = max(1, segments) / float(background.counts_T[: background.tracks].mean())
    return Law(law.location + law.scale * math.log(more), law.scale)
