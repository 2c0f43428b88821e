"""Hit rates of a catalog on degraded excerpts of its own tracks, over the flow of a query batch.

One cut serves all lengths, ratios and conditions; noise and impulse response are drawn anew for
each. See grafp.evaluation.protocol.Clip for the two protocols.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from grafp import storage
from grafp.audio import MAX_SECONDS, decode
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.datasets import list_recordings
from grafp.errors import AudioError, OptionError, StorageError
from grafp.evaluation.clips_table import clips_to_bytes
from grafp.evaluation.failures import Case, make_case, worst
from grafp.evaluation.hashing import HASH_BITS, HashSearch
from grafp.evaluation.hit_rates import ClipAnswer, Scale, grid, markdown, summary
from grafp.evaluation.protocol import Clip
from grafp.index.acceptance import Acceptance
from grafp.index.search import IndexSearch
from grafp.model.bundle import ModelCard
from grafp.reports.evaluation import evaluation_report
from grafp.storage.sources import Item
from pipelines.common.finished import finished_rows
from pipelines.common.work import ENCODERS, Encoders, at_work, connect
from pipelines.evaluating.catalog_hop import answered_at_catalog_hop
from pipelines.evaluating.distractors import is_distractor, with_distractors
from pipelines.evaluating.material import Material, self_repeating
from pipelines.querying.flow import answered

logger = logging.getLogger(__name__)

PROTOCOLS = ("field", "paper")
QUERY_HOPS = ("fine", "catalog")
_FEW_CLIPS = 200
"""So many are answered in less time than Ray takes to start."""
SEARCHES: dict[str, type[IndexSearch]] = {"index": IndexSearch, "lsh": HashSearch}


def evaluate_catalog(
    catalog_uri: str,
    audio: str,
    noise: str,
    rir: str,
    out: str,
    *,
    seconds: list[float],
    snr_db: list[float],
    queries: int,
    seed: int,
    protocol: str = "field",
    search: str = "index",
    query_hop: str = "fine",
    unknown: str | None = None,
    distractors: Sequence[int] = (),
    encoders: Encoders = ENCODERS,
) -> dict[str, Any]:
    """Evaluate a catalog on its own audio, write the report under OUT, return the summary.

    Args:
        protocol: how clips are cut, one of PROTOCOLS.
        search: how fingerprints are looked up, one of SEARCHES.
        query_hop: how often a clip has a fingerprint, one of QUERY_HOPS: every 0.1 s or oftener,
            or as seldom as the catalog's tracks have one.
        unknown: recordings that are not in the catalog; they give a quarter as many clips.
        distractors: for each number, the shortest reverberant clips are also searched in a copy
            of the catalog with so many invented tracks, under OUT (the paper's Table III).

    Raises OptionError when the audio and the catalog do not fit.
    """
    started = time.monotonic()
    catalog = Catalog.open_published(catalog_uri)
    assert catalog.manifest is not None
    recordings = list_recordings("music", audio)
    storage.check_writable(out)
    material = Material.collect(catalog, recordings, noise, rir, unknown, max(seconds))
    grid_s = catalog.manifest.hop_s if protocol == "paper" else None
    drawn = material.draw(queries, seed, seconds=seconds, snr_db=snr_db, grid_s=grid_s)
    ask = partial(
        evaluate,
        material=material,
        method=SEARCHES[search],
        coarse=query_hop == "catalog",
        encoders=encoders,
    )
    few = len(drawn) <= _FEW_CLIPS and not distractors
    with at_work(encoders.if_small(few and catalog.manifest.is_small)):
        clips, answers = _without_errors(drawn, ask(catalog_uri, clips=drawn))
        logger.info(markdown(grid(clips, answers)))
        scales = in_larger_catalogs(catalog, distractors, out, clips, answers, ask, catalog.model())
    facts = _facts(catalog_uri, catalog.manifest, material)
    facts |= {"protocol": protocol, "clips": len(clips), "seed": seed}
    facts["search"] = search_name(search)
    facts |= {"hop_s": catalog.manifest.hop_s, "query_hop": query_hop}
    cases = _cases(clips, answers, material, recordings)
    result = write_report(out, clips, answers, facts, scales, cases)
    return {"queries": len(clips), "seconds": round(time.monotonic() - started, 2), **result}


def write_report(
    out: str,
    clips: Sequence[Clip],
    answers: Sequence[ClipAnswer],
    facts: dict[str, Any],
    scales: Sequence[Scale],
    cases: Sequence[Case],
) -> dict[str, Any]:
    """Write report.json, clips.parquet and report.html; returns the numbers of the summary."""
    result = summary(clips, answers)
    if scales:
        result["scales"] = [scale.to_dict() for scale in scales]
    for name, data in {
        "report.json": json.dumps({**facts, **result}, indent=1).encode(),
        "clips.parquet": clips_to_bytes(clips, answers),
        "report.html": evaluation_report(clips, answers, facts, scales, cases).encode(),
    }.items():
        storage.write(storage.join(out, name), data)
    return result


def search_name(search: str) -> str:
    """One of SEARCHES, for a report."""
    return f"LSH, {HASH_BITS} bits" if search == "lsh" else "the catalog's index"


def evaluate(
    catalog_uri: str,
    material: Material,
    clips: Sequence[Clip],
    *,
    method: type[IndexSearch] = IndexSearch,
    coarse: bool = False,
    encoders: Encoders = ENCODERS,
) -> list[ClipAnswer]:
    """The best answer to every clip, in their order; matched if it reaches the model's threshold.

    `coarse`: clips have fingerprints as seldom as the catalog's tracks.

    Of a track that repeats itself exactly only the track is scored, see `self_repeating`.
    """
    connect()
    catalog = Catalog.open_published(catalog_uri)
    uris = catalog.live_tracks()
    acceptance = catalog.acceptance()
    asked = {clip.number: clip for clip in clips}
    answers: dict[int, ClipAnswer] = {}
    # The second match may be the best wrong one.
    how = answered_at_catalog_hop if coarse else answered
    found = how(material.cut(clips), catalog, encoders, acceptance, top_k=2, method=method)
    known = {uri for copies in uris.values() for uri in copies}
    repeating = self_repeating(material.known)
    for row in finished_rows(found, len(clips)):
        clip = asked[row["number"]]
        answer = clip_answer(row, clip, uris, clip.track in known, acceptance)
        if clip.track in repeating:
            answer = replace(answer, true_start_s=None)
        answers[clip.number] = answer
    return [answers[clip.number] for clip in clips]


def clip_answer(
    row: dict[str, Any],
    clip: Clip,
    uris: dict[int, list[str]],
    known: bool,
    acceptance: Acceptance,
) -> ClipAnswer:
    """The answer in a row of `MatchBatch`; `uris` are those of the tracks by their ordinals."""
    best = row["matches"][0] if row["matches"] else None
    threshold = best["threshold"] if best else acceptance.threshold(0.0, clip.seconds)
    tracks = uris[best["ordinal"]] if best else [None]  # exact copies are all right answers
    wrong = next((m for m in row["matches"] if clip.track not in uris[m["ordinal"]]), None)
    return ClipAnswer(
        query=f"clip {clip.number}",
        track=clip.track if clip.track in tracks else tracks[0],
        start_s=best["track_start_s"] - best["speed"] * best["query_start_s"] if best else None,
        score=best["score"] if best else None,
        matched=best is not None and best["score"] >= threshold,
        error=row["error"],
        true_track=clip.track if known else None,
        true_start_s=row["cut_at_s"],
        threshold=threshold,
        false_positive_rate=best["false_positive_rate"] if best else None,
        best_wrong=uris[wrong["ordinal"]][0] if wrong else None,
        best_wrong_score=wrong["score"] if wrong else None,
    )


def _without_errors(
    clips: Sequence[Clip], answers: Sequence[ClipAnswer]
) -> tuple[list[Clip], list[ClipAnswer]]:
    """The clips that could be made, with their answers; OptionError if there are none."""
    made = [n for n, answer in enumerate(answers) if answer.error is None]
    if not made:
        raise OptionError(f"no clip could be made: {answers[0].error}")
    return [clips[n] for n in made], [answers[n] for n in made]


def in_larger_catalogs(
    catalog: Catalog,
    sizes: Sequence[int],
    out: str,
    clips: Sequence[Clip],
    answers: Sequence[ClipAnswer],
    ask: Callable[..., list[ClipAnswer]],
    model: ModelCard | None,
) -> list[Scale]:
    """The shortest reverberant clips, against the catalog and against each larger copy of it.

    `ask` takes a catalog's URI and clips; `model` is the catalog's, see `with_distractors`.
    """
    shortest = min(clip.seconds for clip in clips)
    asked = [n for n, clip in enumerate(clips) if clip.reverb and clip.seconds == shortest]
    if not sizes or not asked:
        return []
    few = [clips[n] for n in asked]

    def scale(count: int, manifest: Manifest, found: Sequence[ClipAnswer]) -> Scale:
        real = manifest.counts["tracks"] - manifest.counts["copies"] - count
        return Scale.of(count, real, manifest.counts["fingerprints"], few, found, is_distractor)

    assert catalog.manifest is not None
    scales = [scale(0, catalog.manifest, [answers[n] for n in asked])]
    for count in sizes:
        # Each snapshot has its own folder: files of an earlier model must not be used again.
        root = storage.join(out, f"scaled-{count}", catalog.manifest.snapshot)
        manifest = with_distractors(
            catalog, root, count, model=model, without={clip.track for clip in few}
        )
        scales.append(scale(count, manifest, ask(root, clips=few)))
        logger.info(f"{count:,} distractors:{markdown(scales[-1].cells)}")
    return scales


def _facts(catalog_uri: str, manifest: Manifest, material: Material) -> dict[str, Any]:
    """What was evaluated, for the report."""
    return {
        "catalog": catalog_uri,
        "snapshot": manifest.snapshot,
        "model": manifest.model_id,
        **manifest.counts,
        "recordings with clips": len(material.known),
        "unknown recordings": len(material.unknown),
    }


def _cases(
    clips: Sequence[Clip],
    answers: Sequence[ClipAnswer],
    material: Material,
    recordings: Sequence[Item],
) -> list[Case]:
    """The worst answers with their spectrograms, as far as the recordings are still there."""
    locations = {item.uri: item.location for item in [*recordings, *material.unknown]}

    def recording(uri: str) -> np.ndarray | None:
        try:
            return decode(storage.read(locations[uri]), max_seconds=MAX_SECONDS)
        except (KeyError, AudioError, StorageError):
            return None

    return [
        make_case(clip, answer, material.noises, material.rirs, recording)
        for clip, answer in worst(clips, answers)
    ]
