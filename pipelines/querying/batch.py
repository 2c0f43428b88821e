"""A batch of queries: what is asked, what is answered, what is written."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from grafp import storage
from grafp.audio import MAX_SECONDS
from grafp.catalog.catalog import Catalog
from grafp.catalog.identify import open_for_queries, rows_of
from grafp.index.acceptance import Acceptance
from grafp.index.alignment import MAX_SPEED_CHANGE
from grafp.matches import MATCH_SCHEMA, write_matches
from grafp.storage.sources import Item, list_items
from grafp.storage.tables import Row
from pipelines.querying.unfinished import Unfinished

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What decides the answers of a batch, apart from the catalog and the queries."""

    top_k: int = 1
    """Pieces of music per query; tracks with the same music count once."""
    fpr: float | None = None
    min_score: float | None = None
    """For both see `Catalog.acceptance`."""
    decode: bool = False
    """See `open_search`."""
    max_seconds: float = MAX_SECONDS
    max_speed_change: float = MAX_SPEED_CHANGE
    """How much faster or slower than cataloged, as a share."""


@dataclass(frozen=True)
class Batch:
    """Queries with the published snapshot that they are asked of, and the answers so far."""

    catalog: Catalog
    acceptance: Acceptance
    asked: Asked
    out: str
    items: list[Item]
    uris: dict[int, list[str]]
    unfinished: Unfinished
    left: list[int]
    """Numbers of the queries that are to be answered."""
    started: float
    """When it began, in seconds of `time.monotonic`."""

    @classmethod
    def begin(cls, catalog_uri: str, queries: str | list[Item], out: str, asked: Asked) -> "Batch":
        """Go on with a batch that was interrupted, if there is one.

        Raises StorageError or CatalogError with nothing written.
        """
        started = time.monotonic()
        catalog, manifest = open_for_queries(catalog_uri)
        acceptance = catalog.acceptance(asked.fpr, asked.min_score)
        items = list_items(queries) if isinstance(queries, str) else queries
        uris = catalog.live_tracks()
        logger.info(
            f"{len(items)} queries against {len(uris)} tracks, snapshot {manifest.snapshot}"
        )
        job = [
            manifest.snapshot, asked.top_k, asked.fpr, asked.min_score, asked.decode,
            asked.max_seconds, asked.max_speed_change,
            [[item.uri, item.info and [item.info.size, item.info.etag]] for item in items],
        ]  # fmt: skip
        unfinished = Unfinished(out, job)
        storage.check_writable(out)
        left = [number for number in range(len(items)) if number not in unfinished.done]
        if unfinished.done:
            logger.info(f"  {len(unfinished.done)} were answered by a run that was interrupted")
        return cls(catalog, acceptance, asked, out, items, uris, unfinished, left, started)

    @property
    def waiting(self) -> list[Item]:
        """The queries that are to be answered."""
        return [self.items[number] for number in self.left]

    def finish(self, answers: Iterable[Row]) -> tuple[dict, pa.Table]:
        """Keep the answers as they come, and write OUT/matches.parquet.

        `answers`: in any order; `number` is that of the query in `waiting`.

        Returns the summary and the table. Raises StorageError.
        """
        for answer in answers:
            self.unfinished.add(self._rows(answer))
        whole = self.unfinished.table()
        summary = _summary(whole, self.started)
        table = write_matches(self.out, whole.select(MATCH_SCHEMA.names))
        self.unfinished.remove()
        return summary, table

    def _rows(self, answer: Row) -> list[Row]:
        """The rows of one query, of which the first says what it took."""
        number = self.left[answer["number"]]
        found = rows_of(
            self.items[number].uri,
            answer["duration_s"],
            answer["matches"],
            self.uris,
            self.acceptance,
            answer["error"],
        )
        took = {"number": number, "codes_scanned": 0.0, "search_seconds": 0.0}
        rows = [{**row, **took} for row in found]
        rows[0] |= {name: answer[name] for name in ("codes_scanned", "search_seconds")}
        return rows


def _summary(rows: pa.Table, started: float) -> dict:
    best = rows.filter(pc.equal(rows["rank"], 1))
    matched = pc.sum(best["matched"]).as_py() or 0
    errors = len(best) - best["error"].null_count
    return {
        "queries": len(best),
        "matched": matched,
        "unmatched": len(best) - matched - errors,
        "errors": errors,
        "codes_scanned": round(pc.sum(best["codes_scanned"]).as_py() or 0),
        "search_seconds": round(pc.sum(best["search_seconds"]).as_py() or 0, 3),
        "seconds": round(time.monotonic() - started, 2),
    }
