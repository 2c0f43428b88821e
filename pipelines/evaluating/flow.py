"""Hit rates of a catalog on degraded excerpts of its own tracks, over the flow of a query batch.

One cut serves all lengths, ratios and conditions; noise and room are drawn anew for each. See
grafp.evaluation.protocol.Clip for the two protocols.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import ray

from grafp import storage
from grafp.audio import MAX_SECONDS, SAMPLE_RATE, decode
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.errors import AudioError, OptionError, StorageError
from grafp.evaluation.failures import show, worst
from grafp.evaluation.hashing import HASH_BITS, HashSearch
from grafp.evaluation.hit_rates import ClipAnswer, Scale, clip_table, grid, markdown, summary
from grafp.evaluation.protocol import Clip, draw_clips, make_clip
from grafp.index.shards import ShardSearch
from grafp.reports.evaluation import grid_page
from grafp.storage.sources import Item, list_items
from pipelines.common.placement import ENCODERS, Encoders
from pipelines.common.runtime import connect, finished_rows
from pipelines.evaluating.distractors import is_distractor, with_distractors
from pipelines.querying.flow import answered

logger = logging.getLogger(__name__)

PROTOCOLS = ("field", "paper")
SEARCHES: dict[str, type[ShardSearch]] = {"index": ShardSearch, "lsh": HashSearch}


@dataclass(frozen=True)
class Material:
    """What an evaluation is made of."""

    known: list[Item]
    """Recordings of the catalog, long enough for every clip."""
    unknown: list[Item]
    noises: list[np.ndarray]
    rooms: list[np.ndarray]
    """int16 waveforms, like `noises`; may be empty if no clip is reverberant."""


def evaluate_catalog(
    catalog_uri: str,
    audio: str,
    noise: str,
    rooms: str,
    out: str,
    *,
    seconds: list[float],
    snr_db: list[float],
    queries: int,
    seed: int,
    protocol: str = "field",
    search: str = "index",
    unknown: str | None = None,
    distractors: Sequence[int] = (),
    encoders: Encoders = ENCODERS,
) -> dict:
    """Evaluate a catalog on its own audio, write the report under OUT, return the summary.

    Args:
        protocol: of the clips, one of PROTOCOLS.
        search: by what fingerprints are looked up, one of SEARCHES.
        unknown: recordings that are not in the catalog; a quarter as many clips are theirs.
        distractors: for each number a copy of the catalog with so many invented tracks, under
            OUT, is asked for the shortest clips in rooms (the paper's Table III).

    Raises OptionError when the audio and the catalog do not fit.
    """
    started = time.monotonic()
    catalog = Catalog.open_published(catalog_uri)
    assert catalog.manifest is not None
    recordings = list_items(audio)
    material = _material(catalog, recordings, noise, rooms, unknown, max(seconds))
    grid_s = catalog.manifest.hop_s if protocol == "paper" else None
    clips: list[Clip] = []
    for items, count in ((material.known, queries), (material.unknown, max(1, queries // 4))):
        drawn = draw_clips(
            [item.uri for item in items],
            seconds=seconds,
            snr_db=snr_db,
            queries=count if items else 0,
            seed=seed + len(clips),
            grid_s=grid_s,
        )
        clips += [replace(clip, number=len(clips) + clip.number) for clip in drawn]

    def ask(uri: str, clips: Sequence[Clip]) -> list[ClipAnswer]:
        return evaluate(uri, material, clips, method=SEARCHES[search], encoders=encoders)

    answers = ask(catalog_uri, clips)
    made = [n for n, answer in enumerate(answers) if answer.error is None]
    if not made:
        raise OptionError(f"no clip could be made: {answers[0].error}")
    clips, answers = [clips[n] for n in made], [answers[n] for n in made]
    logger.info(markdown(grid(clips, answers)))
    scales = _scales(catalog, distractors, out, clips, answers, ask)
    facts = {
        "catalog": catalog_uri,
        "snapshot": catalog.manifest.snapshot,
        "model": catalog.manifest.model_id,
        **catalog.manifest.counts,
        "protocol": protocol,
        "search": f"LSH, {HASH_BITS} bits" if search == "lsh" else "the catalog's index",
        "recordings with clips": len(material.known),
        "unknown recordings": len(material.unknown),
        "clips": len(clips),
        "seed": seed,
    }
    result = summary(clips, answers)
    if scales:
        result["scales"] = [scale.to_dict() for scale in scales]
    sources = {item.uri: item for item in [*recordings, *material.unknown]}
    cases = [
        show(clip, answer, material.noises, material.rooms, lambda uri: _recording(sources, uri))
        for clip, answer in worst(clips, answers)
    ]
    page = grid_page(clips, answers, facts, scales, cases)
    for name, data in {
        "report.json": json.dumps({**facts, **result}, indent=1).encode(),
        "clips.parquet": clip_table(clips, answers),
        "report.html": page.encode(),
    }.items():
        storage.write(storage.join(out, name), data)
    return {"queries": len(clips), "seconds": round(time.monotonic() - started, 2), **result}


def _material(
    catalog: Catalog,
    recordings: Sequence[Item],
    noise: str,
    rooms: str,
    unknown: str | None,
    longest: float,
) -> Material:
    durations = {
        r["uri"]: r["duration_s"] for r in catalog.tracks().to_pylist() if r["status"] == "ok"
    }
    known = [item for item in _test_part(recordings) if item.uri in durations]
    if not known:
        raise OptionError("--audio: none of it is in the catalog")
    strangers = for_testing(unknown) if unknown else []
    if both := [item.uri for item in strangers if item.uri in durations]:
        raise OptionError(f"--unknown {unknown}: {both[0]} is in the catalog")
    usable = [item for item in known if durations[item.uri] >= longest + 1]
    if not usable:
        raise OptionError(f"--seconds: no recording is longer than {longest:g} s")
    noises, impulses = (waveforms(for_testing(uri)) for uri in (noise, rooms))
    return Material(usable, strangers, noises, impulses)


def _scales(
    catalog: Catalog,
    sizes: Sequence[int],
    out: str,
    clips: Sequence[Clip],
    answers: Sequence[ClipAnswer],
    ask: Callable[[str, Sequence[Clip]], list[ClipAnswer]],
) -> list[Scale]:
    """The shortest clips in rooms, against the catalog and against each scaled copy of it."""
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
        # A place of its own for each snapshot: what an earlier model left must not be used again.
        root = storage.join(out, f"scaled-{count}", catalog.manifest.snapshot)
        manifest = with_distractors(catalog, root, count)
        found = ask(root, few)
        scales.append(scale(count, manifest, found))
        logger.info(f"{count:,} distractors:{markdown(scales[-1].cells)}")
    return scales


def evaluate(
    catalog_uri: str,
    material: Material,
    clips: Sequence[Clip],
    *,
    method: type[ShardSearch] = ShardSearch,
    encoders: Encoders = ENCODERS,
) -> list[ClipAnswer]:
    """The best answer to every clip, in their order; matched if it reaches the model's threshold.

    A track that repeats itself exactly is judged without the second, see `self_repeating`.
    """
    noises, rooms = material.noises, material.rooms
    if not noises or (not rooms and any(clip.reverb for clip in clips)):
        raise OptionError("the evaluation needs noises, and rooms for reverberant clips")
    connect()
    catalog = Catalog.open_published(catalog_uri)
    uris = catalog.live_tracks()
    threshold = catalog.threshold()
    by_track: dict[str, list[dict]] = {}
    for clip in clips:
        by_track.setdefault(clip.track, []).append(asdict(clip))
    rows = [
        {"location": item.location, "clips": by_track[item.uri]}
        for item in [*material.known, *material.unknown]
        if item.uri in by_track
    ]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
        _cut_track,
        fn_kwargs={"noises": ray.put(noises), "rooms": ray.put(rooms)},
        num_cpus=0.25,
    )
    asked = {clip.number: clip for clip in clips}
    answers: dict[int, ClipAnswer] = {}
    # The second may be the best wrong.
    found = answered(dataset, catalog, encoders, top_k=2, method=method)
    known = {uri for copies in uris.values() for uri in copies}
    repeating = self_repeating(material.known)
    for row in finished_rows(found, len(clips)):
        clip = asked[row["number"]]
        answer = _answer(row, clip, uris, clip.track in known, threshold(clip.seconds))
        if clip.track in repeating:
            answer = replace(answer, true_start_s=None)
        answers[clip.number] = answer
    return [answers[clip.number] for clip in clips]


def self_repeating(items: Sequence[Item]) -> set[str]:
    """URIs of recordings with a `self_repeat` above 0.45: the same music at several places."""
    return {item.uri for item in items if float(item.row.get("self_repeat") or 0) > 0.45}


def for_testing(uri: str) -> list[Item]:
    """The recordings of a folder or table; of a table with a column `split` the test part."""
    return _test_part(list_items(uri))


def _test_part(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if item.row.get("split") in (None, "", "test")]


def waveforms(
    items: list[Item],
) -> list[np.ndarray]:
    """Decoded noises or rooms as int16, the form in which workers share them."""
    decoded = []
    for item in items:
        try:
            samples_S = decode(storage.read(item.location), min_seconds=0.0)
        except (AudioError, StorageError) as error:
            logger.info(f"  left out: {item.uri}: {error}")
            continue
        decoded.append((samples_S.clip(-1, 1) * 32767).astype(np.int16))
    return decoded


def _recording(items: dict[str, Item], uri: str) -> np.ndarray | None:
    """A recording decoded, None if it is not at hand any more."""
    try:
        return decode(storage.read(items[uri].location), max_seconds=MAX_SECONDS)
    except (KeyError, AudioError, StorageError):
        return None


def _cut_track(row: dict, noises: ray.ObjectRef, rooms: ray.ObjectRef) -> Iterator[dict]:
    """All clips of one track: it is decoded once."""
    all_noises, all_rooms = ray.get(noises), ray.get(rooms)
    clips = [Clip(**values) for values in row["clips"]]
    # Not None, which Arrow takes for a string when a block has nothing else.
    empty = {"status": "failed", "duration_s": 0.0, "cut_at_s": np.nan, "pcm": b""}
    try:
        data = storage.read(row["location"])
        longest = max(clip.longest for clip in clips)
        track_S = decode(data, min_seconds=longest, max_seconds=MAX_SECONDS)
    except (AudioError, StorageError) as error:
        for clip in clips:
            yield {**empty, "number": clip.number, "error": str(error)}
        return
    for clip in clips:
        start, clip_S = make_clip(clip, track_S, all_noises, all_rooms)
        yield {
            "number": clip.number,
            "status": "ok",
            "error": None,
            "duration_s": clip.seconds,
            "cut_at_s": start / SAMPLE_RATE,
            "pcm": clip_S.tobytes(),
        }


def _answer(
    row: dict, clip: Clip, uris: dict[int, list[str]], known: bool, min_score: float
) -> ClipAnswer:
    best = row["matches"][0] if row["matches"] else None
    tracks = uris[best["ordinal"]] if best else [None]  # exact copies are all right answers
    wrong = next((m for m in row["matches"] if clip.track not in uris[m["ordinal"]]), None)
    return ClipAnswer(
        query=f"clip {clip.number}",
        track=clip.track if clip.track in tracks else tracks[0],
        start_s=best["track_start_s"] - best["query_start_s"] if best else None,
        score=best["score"] if best else None,
        matched=best is not None and best["score"] >= min_score,
        error=row["error"],
        true_track=clip.track if known else None,
        true_start_s=row["cut_at_s"],
        threshold=min_score,
        best_wrong=uris[wrong["ordinal"]][0] if wrong else None,
        best_wrong_score=wrong["score"] if wrong else None,
    )
