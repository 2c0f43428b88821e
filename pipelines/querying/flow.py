"""A batch of recordings against a catalog: fingerprint, search, align, accept or refuse."""

import logging
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from grafp.audio import MAX_SECONDS
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.errors import CatalogError
from grafp.index.acceptance import Acceptance
from grafp.index.alignment import MAX_SPEED_CHANGE
from grafp.index.background import BackgroundSearch
from grafp.index.evidence import Answer, identify, identify_by_need, reached
from grafp.index.scoring import Match
from grafp.index.search import IndexSearch
from grafp.matches import MATCH_SCHEMA, unmatched, write_matches
from grafp.model.fingerprint import SEGMENT_SECONDS
from grafp.storage.sources import Item, list_items
from grafp.storage.tables import Row
from pipelines.common.decode import decoded
from pipelines.common.encode import encoded, fingerprints_of
from pipelines.common.placement import ENCODERS, Encoders
from pipelines.common.runtime import connect, finished_rows
from pipelines.common.search import SpreadSearch
from pipelines.querying.unfinished import Unfinished

logger = logging.getLogger(__name__)

_STREAMED_BATCH = 4096


@dataclass(frozen=True)
class MatchBatch:
    """A Ray Data stage: fingerprints of a batch of queries to their matches."""

    search: SpreadSearch
    background: BackgroundSearch | None
    acceptance: Acceptance
    hop_s: float
    top_k: int
    change: float
    by_need: bool = False
    """Whether to search a query only as long as its answer leaves doubt."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        queries = [fingerprints_of(row) for row in rows]
        before = self.search.spent
        found = self._identified(queries)
        spent = self.search.spent - before
        return pa.Table.from_pylist(
            [
                {
                    "number": row["number"],
                    "status": row["status"],
                    "error": row["error"],
                    "duration_s": row["duration_s"],
                    "cut_at_s": row.get("cut_at_s"),
                    "matches": [self._describe(answer) for answer in answers],
                    # Queries of a batch are searched together.
                    "codes_scanned": spent.codes / len(rows),
                    "search_seconds": spent.seconds / len(rows),
                }
                for row, answers in zip(rows, found, strict=True)
            ],
            schema=_ANSWER_SCHEMA,
        )

    def _identified(self, queries: list[np.ndarray]) -> list[list[Answer]]:
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

    def _describe(self, answer: Answer) -> dict:
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


_MATCH = pa.struct(
    [
        ("ordinal", pa.int64()),
        ("piece", pa.int32()),
        ("query_start_s", pa.float64()),
        ("query_end_s", pa.float64()),
        ("track_start_s", pa.float64()),
        ("speed", pa.float64()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("false_positive_rate", pa.float64()),
    ]
)
_ANSWER_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("duration_s", pa.float64()),
        ("cut_at_s", pa.float64()),  # of evaluation clips: the true offset
        ("matches", pa.list_(_MATCH)),
        ("codes_scanned", pa.float64()),
        ("search_seconds", pa.float64()),
    ]
)


def query_batch(
    catalog_uri: str,
    queries: str | list[Item],
    out: str,
    *,
    top_k: int = 1,
    fpr: float | None = None,
    min_score: float | None = None,
    decode: bool = False,
    search_actors: int | None = None,
    search_memory: float | None = None,
    encoders: Encoders = ENCODERS,
    max_seconds: float = MAX_SECONDS,
    max_speed_change: float = MAX_SPEED_CHANGE,
) -> tuple[dict, pa.Table]:
    """Identify recordings; writes OUT/matches.parquet and returns the summary and the table.

    A batch that was interrupted goes on where it was, see `Unfinished`.

    Args:
        top_k: pieces of music per query; tracks with the same music count once.
        fpr, min_score: see `Catalog.acceptance`.
        max_speed_change: how much faster or slower than cataloged, as a share.
        decode: see `open_search`.
        search_actors, search_memory: see `SpreadSearch`.

    Raises StorageError or CatalogError with nothing written.
    """
    started = time.monotonic()
    catalog, manifest = open_for_queries(catalog_uri)
    acceptance = catalog.acceptance(fpr, min_score)
    items = list_items(queries) if isinstance(queries, str) else queries
    uris = catalog.live_tracks()
    logger.info(f"{len(items)} queries against {len(uris)} tracks, snapshot {manifest.snapshot}")
    job = [
        manifest.snapshot, top_k, fpr, min_score, decode, max_seconds, max_speed_change,
        [[item.uri, item.info and [item.info.size, item.info.etag]] for item in items],
    ]  # fmt: skip
    unfinished = Unfinished(out, job)
    left = [number for number in range(len(items)) if number not in unfinished.done]
    if unfinished.done:
        logger.info(f"  {len(unfinished.done)} were answered by a run that was interrupted")
    if left:  # Ray Data warns of work without input
        connect()
        answers = answered(
            decoded([items[number] for number in left], max_seconds),
            catalog,
            encoders,
            acceptance,
            top_k=top_k,
            change=max_speed_change,
            search_actors=search_actors,
            search_memory=search_memory,
            decode=decode,
        )
        for answer in finished_rows(answers, len(left)):
            number = left[answer["number"]]
            unfinished.add(_rows(answer, number, items[number], uris, acceptance))
    whole = unfinished.table()
    summary = _summary(whole, started)
    table = write_matches(out, whole.select(MATCH_SCHEMA.names))
    unfinished.remove()
    return summary, table


def open_for_queries(catalog_uri: str) -> tuple[Catalog, Manifest]:
    """A published catalog with its snapshot, refused now rather than by every actor.

    Raises CatalogError when it is not there, has no tracks, or lacks a file or its model.
    """
    catalog = Catalog.open_published(catalog_uri)
    assert catalog.manifest is not None
    if not catalog.manifest.shards:
        raise CatalogError(f"{catalog_uri}: the catalog has no usable tracks")
    catalog.check_files(catalog.manifest)
    catalog.model()
    return catalog, catalog.manifest


def background_of(catalog: Catalog) -> BackgroundSearch | None:
    """The background of the catalog's model, at the query hop. Raises ModelError."""
    assert catalog.manifest is not None
    background = catalog.background()
    return BackgroundSearch.of(background, catalog.manifest.query_hop_s) if background else None


def answered(
    recordings: ray.data.Dataset,
    catalog: Catalog,
    encoders: Encoders,
    acceptance: Acceptance,
    *,
    top_k: int = 1,
    change: float = MAX_SPEED_CHANGE,
    search_actors: int | None = None,
    search_memory: float | None = None,
    decode: bool = False,
    method: type[IndexSearch] = IndexSearch,
) -> ray.data.Dataset:
    """Recordings (rows with `pcm`) to rows with their matches, in no particular order."""
    assert catalog.manifest is not None
    hop_s = catalog.manifest.query_hop_s
    # Nothing is decisive without rates, and who asks for a number of probes wants them all.
    by_need = bool(acceptance.calibration) and catalog.manifest.index_options.probes is None
    search = SpreadSearch.for_queries(
        catalog, actors=search_actors, memory=search_memory, decode=decode, method=method
    )
    background = background_of(catalog)
    return encoded(recordings, catalog.model_uri(), hop_s, encoders).map_batches(
        MatchBatch(search, background, acceptance, hop_s, top_k, change, by_need),
        # Parts that are read anew for each batch should be read seldom, and not in turns.
        batch_size=_STREAMED_BATCH if search.streamed else 32,
        concurrency=1 if search.streamed else None,
        batch_format="pyarrow",
        num_cpus=0.3,
    )


def _rows(
    answer: Row, number: int, item: Item, uris: dict[int, list[str]], acceptance: Acceptance
) -> list[Row]:
    """The rows of one query: its matches, or one row that says why there is none.

    Exact copies of a matching track are answers too, with ranks of their own.
    """
    duration_s = answer["duration_s"]
    needed = acceptance.threshold(0.0, duration_s)
    empty = unmatched(item.uri, duration_s, needed, answer["error"])
    empty |= {"number": number, "codes_scanned": 0.0, "search_seconds": 0.0}
    rows: list[Row] = []
    for match in answer["matches"]:
        found = {name: value for name, value in match.items() if name in MATCH_SCHEMA.names}
        found["matched"] = match["score"] >= match["threshold"]
        for uri in uris[match["ordinal"]]:
            rows.append({**empty, **found, "rank": len(rows) + 1, "track": uri})
    rows = rows or [empty]
    rows[0] |= {name: answer[name] for name in ("codes_scanned", "search_seconds")}
    return rows if rows[0]["matched"] else rows[:1]


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
