"""Fingerprints of queries to the tracks that answer them, in jobs and in the library alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.errors import CatalogError
from grafp.index.acceptance import Acceptance
from grafp.index.alignment import MAX_SPEED_CHANGE, Searcher
from grafp.index.background import BackgroundSearch
from grafp.index.evidence import Answer, identify, identify_by_need, reached
from grafp.index.scoring import Match
from grafp.matches import MATCH_SCHEMA, unmatched
from grafp.model.fingerprint import SEGMENT_SECONDS
from grafp.storage.tables import Row


@dataclass(frozen=True)
class Identifier:
    """A catalog that is open for search, and the rule by which its answers are accepted."""

    search: Searcher
    background: BackgroundSearch | None
    acceptance: Acceptance
    hop_s: float
    """Between two fingerprints of a query."""
    top_k: int = 1
    """Pieces of music for each query."""
    change: float = MAX_SPEED_CHANGE
    by_need: bool = False
    """Whether to search a query only as long as its answer leaves doubt."""

    def answers(self, queries: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
        """For each query its answers, best first, accepted or not, see `_describe`.

        `queries`: fingerprints, float32 (segments, 128), at the query hop.
        """
        return [[self._describe(answer) for answer in found] for found in self._found(queries)]

    def _found(self, queries: Sequence[np.ndarray]) -> list[list[Answer]]:
        if self.by_need and self.top_k == 1:
            return identify_by_need(
                queries, self.search, self.background, self._decisive, change=self.change
            )
        beside = reached(queries, self.background, change=self.change)
        return identify(queries, self.search, beside, top_k=self.top_k, change=self.change)

    def _decisive(self, answer: Answer) -> bool:
        return self.acceptance.decisive(answer.evidence, self._seconds(answer.match))

    def _seconds(self, match: Match) -> float:
        return (match.last - match.first) * self.hop_s + SEGMENT_SECONDS

    def _describe(self, answer: Answer) -> dict[str, Any]:
        """Columns of matches.parquet, with the track's ordinal and the number of its piece."""
        match = answer.match
        seconds = self._seconds(match)
        return {
            "ordinal": match.ordinal,
            "piece": answer.piece,
            "query_start_s": match.first * self.hop_s,
            "query_end_s": match.first * self.hop_s + seconds,
            "track_start_s": max(0.0, (match.start + match.speed * match.first) * self.hop_s),
            "speed": match.speed,
            "score": match.score,
            "threshold": self.acceptance.threshold(answer.beside, seconds),
            "false_positive_rate": self.acceptance.false_positive_rate(answer.evidence, seconds),
        }


def open_for_queries(root: str) -> tuple[Catalog, Manifest]:
    """A published catalog with its snapshot.

    Raises CatalogError when it is not there, has no tracks, or lacks a file or its model.
    """
    catalog = Catalog.open_published(root)
    assert catalog.manifest is not None
    if not catalog.manifest.shards:
        raise CatalogError(f"{root}: the catalog has no usable tracks")
    catalog.check_files(catalog.manifest)
    catalog.model()
    return catalog, catalog.manifest


def background_of(catalog: Catalog) -> BackgroundSearch | None:
    """The background of the catalog's model, at the query hop. Raises ModelError."""
    assert catalog.manifest is not None
    background = catalog.background()
    return BackgroundSearch.of(background, catalog.manifest.query_hop_s) if background else None


def searched_by_need(manifest: Manifest, acceptance: Acceptance) -> bool:
    """Nothing is decisive without rates, and who asks for a number of probes wants them all."""
    return bool(acceptance.calibration) and manifest.index_options.probes is None


def rows_of(
    query: str,
    duration_s: float,
    answers: Sequence[dict[str, Any]],
    uris: dict[int, list[str]],
    acceptance: Acceptance,
    error: str | None = None,
) -> list[Row]:
    """The rows of a query in matches.parquet: its matches, or one row that says why there is none.

    Exact copies of a matching track are answers too, with ranks of their own.

    Args:
        answers: as `Identifier.answers` gives them.
        uris: of each track by its ordinal, see `Catalog.live_tracks`.
    """
    empty = unmatched(query, duration_s, acceptance.threshold(0.0, duration_s), error)
    rows: list[Row] = []
    for answer in answers:
        found = {name: value for name, value in answer.items() if name in MATCH_SCHEMA.names}
        found["matched"] = answer["score"] >= answer["threshold"]
        for uri in uris[answer["ordinal"]]:
            rows.append({**empty, **found, "rank": len(rows) + 1, "track": uri})
    rows = rows or [empty]
    return rows if rows[0]["matched"] else rows[:1]
