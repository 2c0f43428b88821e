"""Long recordings to timelines: decoded, fingerprinted and searched in chunks, then joined.

A chunk overlaps the one before, so a detection that the seam cuts is whole or longer on one side of
it. Nothing outlives a chunk but its detections.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial

import pyarrow as pa

from grafp import storage
from grafp.audio import SAMPLE_RATE
from grafp.catalog.catalog import Catalog
from grafp.catalog.identify import background_of, open_for_queries
from grafp.index.acceptance import Acceptance
from grafp.index.alignment import MAX_SPEED_CHANGE
from grafp.index.background import BackgroundSearch
from grafp.index.evidence import Answer
from grafp.matches import MATCH_SCHEMA, unmatched, write_matches
from grafp.reports.timeline import timeline_report
from grafp.storage.sources import Item, list_items
from grafp.storage.tables import Row, table_of
from grafp.timeline.cue import cue_sheet, file_names
from grafp.timeline.detection import (
    STEP_SECONDS,
    WINDOW_SECONDS,
    Detection,
    find_detections,
)
from grafp.timeline.sequence import timeline
from pipelines.common.decode import decoded_chunks
from pipelines.common.encode import encoded, fingerprints_of
from pipelines.common.finished import finished_rows
from pipelines.common.opening import AnySearch, is_streamed, search_for_queries
from pipelines.common.work import ENCODERS, Encoders, connect

logger = logging.getLogger(__name__)

MAX_SECONDS = 86_400.0
_CHUNK_SECONDS = 300.0
_STREAMED_BATCH = 64
_OVERLAP_SECONDS = 20.0
_POINTING_FPR = 0.03  # of a window; a detection must reach the threshold of its own length
_WINDOWS_AN_HOUR = 3600 / STEP_SECONDS
_DETECTION = pa.struct(
    [(one.name, pa.int64() if one.name == "ordinal" else pa.float64()) for one in fields(Detection)]
)
_FOUND_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("duration_s", pa.float64()),
        ("detections", pa.list_(_DETECTION)),
    ]
)


@dataclass(frozen=True)
class FindDetections:
    """A stage: fingerprints of chunks to what may be detections."""

    search: AnySearch
    background: BackgroundSearch | None
    acceptance: Acceptance
    hop_s: float
    change: float

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row in batch.to_pylist():
            detections = find_detections(
                fingerprints_of(row),
                self.search,
                self.background,
                self.hop_s,
                self._points,
                row["begin_s"],
                self.change,
            )
            rows.append({**row, "detections": [asdict(detection) for detection in detections]})
        return pa.Table.from_pylist(rows, schema=_FOUND_SCHEMA)

    def _points(self, answer: Answer) -> bool:
        """Whether a window's answer points to a detection."""
        if self.acceptance.min_score:
            return answer.match.score >= self.acceptance.min_score(WINDOW_SECONDS)
        rate = self.acceptance.false_positive_rate(answer.evidence, WINDOW_SECONDS)
        return rate is not None and rate <= _POINTING_FPR


def timeline_batch(
    catalog_uri: str,
    recordings: str | list[Item],
    out: str,
    *,
    fpr: float | None = None,
    min_score: float | None = None,
    decode: bool = False,
    search_actors: int | None = None,
    search_memory: float | None = None,
    encoders: Encoders = ENCODERS,
    max_seconds: float = MAX_SECONDS,
    max_speed_change: float = MAX_SPEED_CHANGE,
    report: bool = False,
) -> tuple[dict, pa.Table]:
    """All detections in long recordings; returns the summary and the table.

    Writes OUT/matches.parquet, a row per detection, and a cue sheet per readable recording.
    `fpr` is the number of false detections in an hour of recording; see `Catalog.acceptance` for it
    and `min_score`. `max_speed_change` is a share. `report`: write OUT/report.html too.

    Raises StorageError or CatalogError with nothing written.
    """
    started = time.monotonic()
    catalog, manifest = open_for_queries(catalog_uri)
    acceptance = catalog.acceptance(fpr, min_score)
    # Each window of an hour may give a false detection.
    acceptance = replace(acceptance, fpr=acceptance.fpr / _WINDOWS_AN_HOUR)
    items = list_items(recordings) if isinstance(recordings, str) else recordings
    uris = catalog.live_tracks()
    logger.info(f"{len(items)} recordings against {len(uris)} tracks, snapshot {manifest.snapshot}")
    storage.check_writable(out)
    by_recording: list[list[dict]] = [[] for _ in items]
    if items:  # Ray Data warns of work without input
        connect()
        stage = FindDetections(
            search_for_queries(catalog, actors=search_actors, memory=search_memory, decode=decode),
            background_of(catalog),
            acceptance,
            manifest.query_hop_s,
            max_speed_change,
        )
        for row in _found(items, catalog, stage, max_seconds, encoders):
            by_recording[row["number"]].append(row)
    lines: list[Row] = []
    sheets: dict[str, str] = {}
    durations_s: dict[str, float] = {}
    for item, rows, name in zip(items, by_recording, file_names([i.uri for i in items])):
        error = next((row["error"] for row in rows if row["status"] != "ok"), None)
        duration_s = durations_s[item.uri] = sum(row["duration_s"] for row in rows)
        parts = [Detection(**detection) for row in rows for detection in row["detections"]]
        detections = timeline(parts, partial(_accepted, acceptance)) if error is None else []
        lines += _rows(item.uri, detections, duration_s, error, uris, acceptance)
        if error is None:
            spans = [
                (detection.start_s, detection.end_s, uris[detection.ordinal][0])
                for detection in detections
            ]
            sheets[name] = cue_sheet(item.uri, spans, duration_s)
    table = write_matches(out, table_of(lines, MATCH_SCHEMA))
    for name, text in sheets.items():
        storage.write(storage.join(out, name), text.encode())
    if report:
        page = timeline_report(table.to_pylist(), durations_s)
        storage.write(storage.join(out, "report.html"), page.encode())
    matched = len({line["query"] for line in lines if line["matched"]})
    summary = {
        "queries": len(items),
        "matched": matched,
        "unmatched": len(sheets) - matched,
        "errors": len(items) - len(sheets),
        "plays": sum(line["matched"] for line in lines),
        "audio_hours": round(sum(r["duration_s"] for rows in by_recording for r in rows) / 3600, 3),
        "seconds": round(time.monotonic() - started, 2),
    }
    return summary, table


def _found(
    items: list[Item],
    catalog: Catalog,
    stage: FindDetections,
    max_seconds: float,
    encoders: Encoders,
) -> Iterator[Row]:
    """What may be detections in each chunk of the recordings, in no particular order."""
    chunks = decoded_chunks(
        items,
        max_seconds,
        round(_CHUNK_SECONDS * SAMPLE_RATE),
        round(_OVERLAP_SECONDS * SAMPLE_RATE),
    )
    found = encoded(chunks, catalog.model_uri(), stage.hop_s, encoders).map_batches(
        stage,
        batch_size=_STREAMED_BATCH if is_streamed(stage.search) else 4,
        concurrency=1 if is_streamed(stage.search) else None,
        batch_format="pyarrow",
        num_cpus=0.3,
    )
    yield from finished_rows(found, None)


def _accepted(acceptance: Acceptance, detection: Detection) -> bool:
    return detection.score >= acceptance.threshold(detection.beside, detection.heard_s)


def _rows(
    uri: str,
    detections: list[Detection],
    duration_s: float,
    error: str | None,
    uris: dict[int, list[str]],
    acceptance: Acceptance,
) -> list[Row]:
    """The rows of one recording: its detections by time, or one row that says there is none.

    Of exact copies of a track the first is named.
    """
    empty = unmatched(uri, duration_s, acceptance.threshold(0.0, duration_s), error)
    rows = []
    for rank, detection in enumerate(detections, 1):
        rate = acceptance.false_positive_rate(detection.evidence, detection.heard_s)
        found = {
            "query_start_s": detection.start_s,
            "query_end_s": detection.end_s,
            "rank": rank,
            "track": uris[detection.ordinal][0],
            "track_start_s": detection.track_start_s,
            "speed": detection.speed,
            "score": detection.score,
            "matched": True,
            "threshold": acceptance.threshold(detection.beside, detection.heard_s),
            "false_positive_rate": None if rate is None else rate * _WINDOWS_AN_HOUR,
        }
        rows.append({**empty, **found})
    return rows or [empty]
