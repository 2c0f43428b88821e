"""Long recordings to timelines: decoded, fingerprinted and searched in chunks, then joined.

A chunk overlaps the one before, so a detection that the seam cuts is whole or longer on one side of
it. Nothing outlives a chunk but its detections.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import pyarrow as pa

from grafp import storage
from grafp.audio import SAMPLE_RATE
from grafp.catalog.catalog import Catalog
from grafp.matches import unmatched, write_matches
from grafp.storage.sources import Item, list_items
from grafp.storage.tables import Row
from grafp.timeline.cue import cue_sheet, file_names
from grafp.timeline.detection import WINDOW_SECONDS, Detection, find_detections
from grafp.timeline.sequence import timeline
from pipelines.common.decode import decoded_chunks
from pipelines.common.encode import encoded, fingerprints_of
from pipelines.common.placement import ENCODERS, Encoders
from pipelines.common.runtime import connect, finished_rows
from pipelines.common.search import SpreadSearch
from pipelines.querying.flow import open_for_queries

logger = logging.getLogger(__name__)

MAX_SECONDS = 86_400.0
_CHUNK_SECONDS = 300.0
_OVERLAP_SECONDS = 20.0
_POINTING_FPR = 0.03  # of a window; a detection must reach the threshold of its own length
_DETECTION = pa.struct(
    [("ordinal", pa.int64())]
    + [(name, pa.float64()) for name in ("start_s", "end_s", "track_start_s", "score", "heard_s")]
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
    """A Ray Data stage: fingerprints of chunks to what may be detections."""

    search: SpreadSearch
    hop_s: float
    min_score: float

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row in batch.to_pylist():
            vectors_MD = fingerprints_of(row)
            detections = find_detections(
                vectors_MD, self.search, self.hop_s, self.min_score, row["begin_s"]
            )
            rows.append({**row, "detections": [asdict(detection) for detection in detections]})
        return pa.Table.from_pylist(rows, schema=_FOUND_SCHEMA)


def timeline_batch(
    catalog_uri: str,
    recordings: str | list[Item],
    out: str,
    *,
    fpr: float | None = None,
    min_score: float | None = None,
    decode: bool = False,
    search_actors: int | None = None,
    encoders: Encoders = ENCODERS,
    max_seconds: float = MAX_SECONDS,
) -> tuple[dict, pa.Table]:
    """All detections in long recordings; returns the summary and the table.

    Writes OUT/matches.parquet, a row per detection, and a cue sheet per readable recording.
    `fpr` is the rate for detections of their length, not for a whole recording; see
    `Catalog.threshold`. `min_score` overrides it.

    Raises StorageError or CatalogError with nothing written.
    """
    started = time.monotonic()
    catalog, manifest = open_for_queries(catalog_uri)
    threshold, pointing_score = _thresholds(catalog, fpr, min_score)
    items = list_items(recordings) if isinstance(recordings, str) else recordings
    uris = catalog.live_tracks()
    logger.info(f"{len(items)} recordings against {len(uris)} tracks, snapshot {manifest.snapshot}")
    by_recording: list[list[dict]] = [[] for _ in items]
    found = _found(items, catalog, pointing_score, max_seconds, encoders, search_actors, decode)
    for row in found if items else ():  # Ray Data warns of work without input
        by_recording[row["number"]].append(row)
    lines: list[Row] = []
    sheets: dict[str, str] = {}
    for item, rows, name in zip(items, by_recording, file_names([i.uri for i in items])):
        error = next((row["error"] for row in rows if row["status"] != "ok"), None)
        duration_s = sum(row["duration_s"] for row in rows)
        parts = [Detection(**detection) for row in rows for detection in row["detections"]]
        detections = timeline(parts, threshold) if error is None else []
        lines += _rows(item.uri, detections, duration_s, error, uris, threshold)
        if error is None:
            spans = [
                (detection.start_s, detection.end_s, uris[detection.ordinal][0])
                for detection in detections
            ]
            sheets[name] = cue_sheet(item.uri, spans, duration_s)
    table = write_matches(out, lines)
    for name, text in sheets.items():
        storage.write(storage.join(out, name), text.encode())
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
    pointing_score: float,
    max_seconds: float,
    encoders: Encoders,
    search_actors: int | None,
    decode: bool,
) -> Iterator[Row]:
    """What may be detections in each chunk of the recordings, in no particular order."""
    connect()
    assert catalog.manifest is not None
    hop_s = catalog.manifest.query_hop_s
    search = SpreadSearch.for_queries(catalog, actors=search_actors, decode=decode)
    chunks = decoded_chunks(
        items,
        max_seconds,
        round(_CHUNK_SECONDS * SAMPLE_RATE),
        round(_OVERLAP_SECONDS * SAMPLE_RATE),
    )
    found = encoded(chunks, catalog.model_uri(), hop_s, encoders).map_batches(
        FindDetections(search, hop_s, pointing_score),
        batch_size=4,
        batch_format="pyarrow",
        num_cpus=0.3,
    )
    yield from finished_rows(found, None)


def _thresholds(
    catalog: Catalog, fpr: float | None, min_score: float | None
) -> tuple[Callable[[float], float], float]:
    """What a detection must reach by its length, and what a window must reach to point to one."""
    if min_score is not None:
        return lambda _: min_score, min_score
    assert catalog.manifest is not None
    threshold = catalog.threshold(fpr)
    if catalog.manifest.calibration is None:
        return threshold, threshold(WINDOW_SECONDS)
    return threshold, catalog.threshold(_POINTING_FPR)(WINDOW_SECONDS)


def _rows(
    uri: str,
    detections: list[Detection],
    duration_s: float,
    error: str | None,
    uris: dict[int, list[str]],
    threshold: Callable[[float], float],
) -> list[Row]:
    """The rows of one recording: its detections by time, or one row that says there is none.

    Of exact copies of a track the first is named.
    """
    empty = unmatched(uri, duration_s, threshold(duration_s), error)
    rows = [
        {
            **empty,
            "query_start_s": detection.start_s,
            "query_end_s": detection.end_s,
            "rank": rank,
            "track": uris[detection.ordinal][0],
            "track_start_s": detection.track_start_s,
            "score": detection.score,
            "matched": True,
            "threshold": threshold(detection.heard_s),
        }
        for rank, detection in enumerate(detections, 1)
    ]
    return rows or [empty]
