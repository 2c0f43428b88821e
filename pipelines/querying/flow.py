"""A batch of recordings against a catalog: fingerprint, search, align, accept or refuse."""

import logging
import time
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from grafp.audio import MAX_SECONDS
from grafp.catalog.catalog import Catalog
from grafp.catalog.identify import (
    Identifier,
    background_of,
    open_for_queries,
    rows_of,
    searched_by_need,
)
from grafp.index.acceptance import Acceptance
from grafp.index.alignment import MAX_SPEED_CHANGE
from grafp.index.search import IndexSearch
from grafp.matches import MATCH_SCHEMA, write_matches
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
class MatchBatch(Identifier):
    """A Ray Data stage: fingerprints of a batch of queries to their matches."""

    search: SpreadSearch

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        before = self.search.spent
        answers = self.answers([fingerprints_of(row) for row in rows])
        spent = self.search.spent - before
        return pa.Table.from_pylist(
            [
                {
                    "number": row["number"],
                    "status": row["status"],
                    "error": row["error"],
                    "duration_s": row["duration_s"],
                    "cut_at_s": row.get("cut_at_s"),
                    "matches": matches,
                    # Queries of a batch are searched together.
                    "codes_scanned": spent.codes / len(rows),
                    "search_seconds": spent.seconds / len(rows),
                }
                for row, matches in zip(rows, answers, strict=True)
            ],
            schema=_ANSWER_SCHEMA,
        )


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
    by_need = searched_by_need(catalog.manifest, acceptance)
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
    """The rows of one query, of which the first says what it took."""
    found = rows_of(
        item.uri, answer["duration_s"], answer["matches"], uris, acceptance, answer["error"]
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
