"""Hit rates of fingerprints that another program computed: the same index, search and report.

No audio is decoded and no model is loaded. The fingerprints become a catalog under OUT, which an
evaluation like any other then asks.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import EMBEDDING_SCHEMA, write_embeddings
from grafp.catalog.tracks import Row, live_refs
from grafp.errors import OptionError
from grafp.evaluation.exported.common import Export, Query, Settings, placed, seconds_of
from grafp.evaluation.exported.reader import open_export
from grafp.evaluation.failures import Case, worst
from grafp.evaluation.hit_rates import ClipAnswer, grid, markdown
from grafp.evaluation.protocol import Clip
from grafp.index.acceptance import Acceptance
from grafp.index.alignment import MAX_SPEED_CHANGE
from grafp.index.ids import SEGMENT_BITS
from grafp.index.search import IndexSearch
from grafp.index.size import SMALL_CATALOG
from grafp.model.bundle import DEFAULT_MIN_SCORE
from pipelines.common.finished import finished_rows
from pipelines.common.opening import search_of
from pipelines.common.work import ENCODERS, at_work, connect, dataset
from pipelines.evaluating.flow import (
    SEARCHES,
    clip_answer,
    in_larger_catalogs,
    search_name,
    write_report,
)
from pipelines.indexing.run import Run
from pipelines.indexing.upkeep import IndexState, extend
from pipelines.querying.flow import MatchBatch

logger = logging.getLogger(__name__)

_FILE_FINGERPRINTS = 100_000  # of an embedding file, about
_QUERIES_AT_ONCE = 256
_FEW_QUERIES = 1000
"""So many are answered in less time than Ray takes to start."""


def evaluate_embeddings(
    folder: str,
    out: str,
    *,
    seconds: list[float],
    queries: int,
    seed: int,
    search: str = "index",
    distractors: Sequence[int] = (),
) -> dict[str, Any]:
    """Evaluate exported fingerprints, write the report under OUT, return the summary.

    Args:
        folder: the fingerprints, in a layout of docs/reference/embeddings.md.
        seconds, queries, seed: lengths, number and draw of the queries that are cut out of arrays;
            those of a table are asked as they are.
        search, distractors: see `evaluate_catalog`.

    Raises OptionError when a file is missing or wrong.
    """
    started = time.monotonic()
    export = open_export(folder)
    asked = export.queries(seconds, queries, seed)
    logger.info(f"{len(asked):,} queries of {folder}")
    catalog = Catalog.open(storage.join(out, "catalog"))
    rows = _stored(export, catalog.root, folder)
    sizes = {row["uri"]: row["n_segments"] for row in rows}
    asked = placed(folder, asked, sizes, export.settings.hop_s)
    few = len(asked) <= _FEW_QUERIES and sum(sizes.values()) < SMALL_CATALOG and not distractors
    by_number = {query.clip.number: query for query in asked}
    ask = partial(_ask, asked=by_number, settings=export.settings, method=SEARCHES[search])
    clips = [query.clip for query in asked]
    with at_work(ENCODERS.if_small(few)):
        connect()
        _index(catalog, rows, export.settings.hop_s)
        answers = ask(catalog.root, clips=clips)
        logger.info(markdown(grid(clips, answers)))
        scales = in_larger_catalogs(catalog, distractors, out, clips, answers, ask, None)
    manifest = catalog.manifest
    assert manifest is not None
    facts = {
        "embeddings": folder,
        "method": export.settings.method or "not named",
        "hop_s": export.settings.hop_s,
        "tracks": manifest.counts["tracks"],
        "copies": manifest.counts["copies"],
        "fingerprints": manifest.counts["fingerprints"],
        "protocol": "exported",
        "clips": len(clips),
        "seed": seed,
        "search": search_name(search),
    }
    cases = [Case(clip, answer, []) for clip, answer in worst(clips, answers)]
    result = write_report(out, clips, answers, facts, scales, cases)
    return {"queries": len(clips), "seconds": round(time.monotonic() - started, 2), **result}


def _index(catalog: Catalog, rows: list[Row], hop_s: float) -> None:
    """Publish the stored tracks with an index."""
    logger.info(f"indexing {len(rows):,} tracks")
    digest = hashlib.sha256("\n".join(row["content_sha256"] for row in rows).encode()).hexdigest()
    run = Run.begin(catalog, f"exported-{digest[:12]}", digest, hop_s)
    live = live_refs(rows)
    state = extend(catalog, IndexState(), live)
    # No background of its method is known, and what was in this folder before says nothing.
    manifest = replace(run.manifest(rows, state, next_ordinal=len(rows)), calibration=None)
    catalog.publish(manifest)


def _stored(export: Export, root: str, folder: str) -> list[Row]:
    """Write the embedding files; the rows of the track table. Equal tracks share fingerprints."""
    rows: list[Row] = []
    first: dict[str, Row] = {}
    waiting: list[Row] = []
    heard = False
    for name, vectors_ND in export.tracks():
        heard = heard or bool(vectors_ND.any())
        row = _row(name, vectors_ND, export.settings, folder)
        rows.append(row)
        if first.setdefault(row["content_sha256"], row) is not row:
            del row["embeddings"]
            continue
        waiting.append(row)
        if sum(one["n_segments"] for one in waiting) >= _FILE_FINGERPRINTS:
            _flush(root, waiting)
            waiting = []
    if not heard:
        raise OptionError(f"--embeddings {folder}: no track has a fingerprint that is not silence")
    if waiting:
        _flush(root, waiting)
    numbers = {digest: number for number, digest in enumerate(first)}
    for row in rows:
        stored = first[row["content_sha256"]]
        row |= {name: stored[name] for name in ("embedding_file", "embeddings_at")}
        row |= {"ordinal": numbers[row["content_sha256"]], "stored_as": stored["track_id"]}
        row["source"] = None
    return rows


def _row(name: str, vectors_ND: np.ndarray, settings: Settings, folder: str) -> Row:
    if len(vectors_ND) > 1 << SEGMENT_BITS:
        raise OptionError(
            f"--embeddings {folder}: track {name} has {len(vectors_ND):,} fingerprints; a track "
            f"has at most {1 << SEGMENT_BITS:,}"
        )
    return {
        **dict.fromkeys(EMBEDDING_SCHEMA.names),
        "track_id": hashlib.sha256(name.encode()).hexdigest()[:32],
        "uri": name,
        "content_sha256": hashlib.sha256(vectors_ND.tobytes()).hexdigest(),
        "duration_s": seconds_of(len(vectors_ND), settings.hop_s),
        "status": "ok",
        "model_id": "exported",
        "hop_s": settings.hop_s,
        "n_segments": len(vectors_ND),
        "embeddings": vectors_ND,
    }


def _flush(root: str, waiting: list[Row]) -> None:
    """Write some tracks to an embedding file, and let go of their fingerprints."""
    file, positions = write_embeddings(root, "embeddings/exported", waiting)
    for row, position in zip(waiting, positions, strict=True):
        del row["embeddings"]
        row |= {"embedding_file": file, "embeddings_at": position}


def _ask(
    root: str,
    clips: Sequence[Clip],
    *,
    asked: dict[int, Query],
    settings: Settings,
    method: type[IndexSearch],
) -> list[ClipAnswer]:
    """The best answer to the query of every clip, in their order."""
    catalog = Catalog.open_published(root)
    manifest = catalog.manifest
    assert manifest is not None
    search = search_of(
        catalog.root,
        manifest,
        stride=settings.stride,
        offset_correction=settings.offset_correction,
        method=method,
    )
    # A model's card would say which scores to accept where there is no calibration.
    acceptance = Acceptance(None, min_score=lambda _: DEFAULT_MIN_SCORE)
    rows = [_question(asked[clip.number]) for clip in clips]
    questions = dataset(rows, blocks=-(-len(rows) // _QUERIES_AT_ONCE))
    found = questions.map_batches(
        MatchBatch(search, None, acceptance, settings.finer_hop_s, 2, MAX_SPEED_CHANGE),
        batch_size=32,
        batch_format="pyarrow",
        num_cpus=0.3,
    )
    uris = catalog.live_tracks()
    answers: dict[int, ClipAnswer] = {}
    for row in finished_rows(found, len(clips)):
        query = asked[row["number"]]
        known = query.track is not None
        answer = clip_answer(row, query.clip, uris, known, acceptance)
        answers[query.clip.number] = replace(answer, query=query.name)
    return [answers[clip.number] for clip in clips]


def _question(query: Query) -> Row:
    """A row that `MatchBatch` takes."""
    return {
        "number": query.clip.number,
        "status": "ok",
        "error": None,
        "duration_s": query.clip.seconds,
        "cut_at_s": query.start_s,
        "embeddings": query.vectors_MD.tobytes(),
    }
