"""Long recordings to timelines: decoded, fingerprinted and searched in stretches, then joined.

A stretch overlaps the one before, so a play that the seam cuts is whole or longer on one side of
it. Nothing outlives a stretch but its plays.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from grafp import storage
from grafp.audio import SAMPLE_RATE
from grafp.catalog.catalog import Catalogue
from grafp.matches import write_matches
from grafp.model.fingerprint import DIMENSION
from grafp.storage.sources import Item, list_items
from grafp.timeline.cue import cue_sheet, file_names
from grafp.timeline.detection import WINDOW_SECONDS, Play, find_plays
from grafp.timeline.sequence import timeline
from pipelines.common.decode import decoded_stretches
from pipelines.common.encode import encoded
from pipelines.common.placement import ENCODERS, Encoders
from pipelines.common.runtime import connect, finished_rows
from pipelines.common.search import SpreadSearch
from pipelines.querying.flow import live_tracks, open_for_queries

MAX_SECONDS = 86_400.0
_STRETCH_SECONDS = 300.0
_OVERLAP_SECONDS = 20.0
_POINTING_FPR = 0.03  # of a window; the play that windows point to is judged by its own length
_PLAY = pa.struct(
    [("ordinal", pa.int64())]
    + [(name, pa.float64()) for name in ("start_s", "end_s", "track_start_s", "score", "heard_s")]
)
_FOUND_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("duration_s", pa.float64()),
        ("plays", pa.list_(_PLAY)),
    ]
)


@dataclass(frozen=True)
class FindPlays:
    """A Ray Data stage: fingerprints of stretches to what may be plays."""

    search: SpreadSearch
    hop_s: float
    min_score: float

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row in batch.to_pylist():
            vectors = np.frombuffer(row.pop("embeddings"), np.float16).astype(np.float32)
            plays = find_plays(
                vectors.reshape(-1, DIMENSION),
                self.search,
                self.hop_s,
                self.min_score,
                row["begin_s"],
            )
            rows.append({**row, "plays": [asdict(play) for play in plays]})
        return pa.Table.from_pylist(rows, schema=_FOUND_SCHEMA)


def timeline_batch(
    catalogue_uri: str,
    recordings: str | list[Item],
    out: str,
    *,
    fpr: float | None = None,
    min_score: float | None = None,
    decode: bool = False,
    search_actors: int | None = None,
    encoders: Encoders = ENCODERS,
    max_seconds: float = MAX_SECONDS,
    say: Callable[[str], None] = print,
) -> tuple[dict, pa.Table]:
    """All plays in long recordings; returns the summary and the table.

    Writes OUT/matches.parquet, a row per play, and a cue sheet per recording that could be read.
    `fpr` is the rate for plays of their length, not for a whole recording; see
    `Catalogue.threshold`. `min_score` overrides it.

    Raises StorageError or CatalogueError with nothing written.
    """
    started = time.monotonic()
    catalogue, manifest = open_for_queries(catalogue_uri)
    threshold, pointing_score = _thresholds(catalogue, fpr, min_score)
    items = list_items(recordings) if isinstance(recordings, str) else recordings
    uris = live_tracks(catalogue)
    say(f"{len(items)} recordings against {len(uris)} tracks, snapshot {manifest.snapshot}")
    connect()
    hop_s = manifest.query_hop_s
    search = SpreadSearch(catalogue.root, manifest, actors=search_actors, decode=decode)
    stretches = decoded_stretches(
        items,
        max_seconds,
        round(_STRETCH_SECONDS * SAMPLE_RATE),
        round(_OVERLAP_SECONDS * SAMPLE_RATE),
    )
    found = encoded(stretches, catalogue.model_uri(), hop_s, encoders).map_batches(
        FindPlays(search, hop_s, pointing_score),
        batch_size=4,
        batch_format="pyarrow",
        num_cpus=0.3,
    )
    by_recording: list[list[dict]] = [[] for _ in items]
    for row in finished_rows(found, None, say):
        by_recording[row["number"]].append(row)
    lines, sheets = [], {}
    for item, rows, name in zip(items, by_recording, file_names([i.uri for i in items])):
        error = next((row["error"] for row in rows if row["status"] != "ok"), None)
        duration_s = sum(row["duration_s"] for row in rows)
        parts = [Play(**play) for row in rows for play in row["plays"]]
        plays = timeline(parts, threshold) if error is None else []
        lines += _lines(item.uri, plays, duration_s, error, uris, threshold)
        if error is None:
            spans = [(play.start_s, play.end_s, uris[play.ordinal][0]) for play in plays]
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


def _thresholds(
    catalogue: Catalogue, fpr: float | None, min_score: float | None
) -> tuple[Callable[[float], float], float]:
    """What a play must reach by its length, and what a window must reach to point to one."""
    if min_score is not None:
        return lambda _: min_score, min_score
    assert catalogue.manifest is not None
    threshold = catalogue.threshold(fpr)
    if catalogue.manifest.calibration is None:
        return threshold, threshold(WINDOW_SECONDS)
    return threshold, catalogue.threshold(_POINTING_FPR)(WINDOW_SECONDS)


def _lines(
    uri: str,
    plays: list[Play],
    duration_s: float,
    error: str | None,
    uris: dict[int, list[str]],
    threshold: Callable[[float], float],
) -> list[dict]:
    """The rows of one recording: its plays in time order, or one row that says there is none.

    Of exact copies of a track the first is named.
    """
    row = {"query": uri, "rank": 1, "matched": False, "error": error}
    if not plays:
        empty = {"query_start_s": 0.0, "query_end_s": duration_s}
        return [{**row, **empty, "threshold": threshold(duration_s)}]
    return [
        {
            **row,
            "query_start_s": play.start_s,
            "query_end_s": play.end_s,
            "rank": rank,
            "track": uris[play.ordinal][0],
            "track_start_s": play.track_start_s,
            "score": play.score,
            "matched": True,
            "threshold": threshold(play.heard_s),
        }
        for rank, play in enumerate(plays, 1)
    ]
