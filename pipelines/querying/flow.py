"""A batch of recordings against a catalog: fingerprint, search, align, accept or refuse."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from grafp.audio import MAX_SECONDS
from grafp.catalog.catalog import Catalog
from grafp.catalog.identify import Identifier, background_of, searched_by_need
from grafp.evaluation.truth import Truth
from grafp.index.acceptance import Acceptance
from grafp.index.alignment import MAX_SPEED_CHANGE
from grafp.index.search import IndexSearch
from grafp.storage.sources import Item
from grafp.storage.tables import Row
from pipelines.common.apart import Apart
from pipelines.common.decode import decoded
from pipelines.common.encode import encoded, fingerprints_of
from pipelines.common.finished import finished_rows
from pipelines.common.opening import AnySearch, is_streamed, search_for_queries
from pipelines.common.work import ENCODERS, Encoders, Rows, at_work, connect
from pipelines.querying.batch import Asked, Batch

if TYPE_CHECKING:
    import ray.data

_STREAMED_BATCH = 4096


@dataclass(frozen=True)
class MatchBatch(Identifier):
    """A stage: fingerprints of a batch of queries to their matches."""

    search: AnySearch

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
    truth: Truth | None = None,
    report: bool = False,
) -> tuple[dict, pa.Table]:
    """Identify recordings; writes OUT/matches.parquet and returns the summary and the table.

    A batch that was interrupted goes on where it was, see `Unfinished`.

    Args:
        top_k, fpr, min_score, decode, max_seconds, max_speed_change: see `Asked`.
        search_actors, search_memory: see `SpreadSearch`.
        truth: right answers; then OUT/report.json and OUT/report.html say how good these are.
        report: write OUT/report.html, see `grafp.reports.shown`.

    Raises StorageError or CatalogError with nothing written, OptionError for a query that has no
    line in the truth.
    """
    asked = Asked(top_k, fpr, min_score, decode, max_seconds, max_speed_change)
    batch = Batch.begin(catalog_uri, queries, out, asked)
    if not (search_actors or search_memory):
        encoders = encoders.for_work(batch.waiting, batch.catalog.manifest)
    with at_work(encoders):
        summary, table = batch.finish(_answers(batch, search_actors, search_memory, encoders))
    if report or truth is not None:
        from grafp.reports.shown import write_page  # imports Matplotlib, which takes a second

        with Apart() as process:
            summary |= write_page(batch.catalog, batch.items, out, table, truth, process.call)
    return summary, table


def _answers(
    batch: Batch, search_actors: int | None, search_memory: float | None, encoders: Encoders
) -> Iterator[Row]:
    """The answers to what is waiting, see `Batch.finish`."""
    if not batch.left:  # Ray Data warns of work without input
        return
    connect()
    answers = answered(
        decoded(batch.waiting, batch.asked.max_seconds),
        batch.catalog,
        encoders,
        batch.acceptance,
        top_k=batch.asked.top_k,
        change=batch.asked.max_speed_change,
        search_actors=search_actors,
        search_memory=search_memory,
        decode=batch.asked.decode,
    )
    yield from finished_rows(answers, len(batch.left))


def answered(
    recordings: "ray.data.Dataset | Rows",
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
) -> "ray.data.Dataset | Rows":
    """Recordings (rows with `pcm`) to rows with their matches, in no particular order."""
    assert catalog.manifest is not None
    hop_s = catalog.manifest.query_hop_s
    by_need = searched_by_need(catalog.manifest, acceptance)
    search = search_for_queries(
        catalog, actors=search_actors, memory=search_memory, decode=decode, method=method
    )
    background = background_of(catalog)
    return encoded(recordings, catalog.model_uri(), hop_s, encoders).map_batches(
        MatchBatch(search, background, acceptance, hop_s, top_k, change, by_need),
        # Parts that are read anew for each batch should be read seldom, and not in turns.
        batch_size=_STREAMED_BATCH if is_streamed(search) else 32,
        concurrency=1 if is_streamed(search) else None,
        batch_format="pyarrow",
        num_cpus=0.3,
    )
