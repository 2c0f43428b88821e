"""Hit rates of a catalogue on degraded excerpts of its own tracks, over the flow of a query batch.

Clips are cut at any sample, not on the fingerprints' grid, and the signal-to-noise ratio is
measured on the clip itself. One cut serves all lengths, ratios and conditions; noise and room
are drawn anew for each.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import numpy as np
import ray

from grafp import storage
from grafp.audio import MAX_SECONDS, decode
from grafp.catalogue import Catalogue
from grafp.clips import Clip, draw_clips, make_clip
from grafp.collection import Item, list_items
from grafp.errors import AudioError, OptionError, StorageError
from grafp.grid import grid, markdown, write_grid
from grafp.metrics import Answer
from pipelines.query import answered, live_tracks
from pipelines.runtime import connect, finished_rows


def evaluate_catalogue(
    catalogue_uri: str,
    audio: str,
    noise: str,
    rooms: str,
    out: str,
    *,
    seconds: list[float],
    snr_db: list[float],
    queries: int,
    seed: int,
    unknown: str | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Evaluate a catalogue on its own audio, write the report under OUT, return the summary.

    Args:
        unknown: recordings that are not in the catalogue; a quarter as many clips are theirs.

    Raises OptionError when the audio and the catalogue do not fit.
    """
    started = time.monotonic()
    catalogue = Catalogue.open_published(catalogue_uri)
    assert catalogue.manifest is not None
    durations = {
        r["uri"]: r["duration_s"] for r in catalogue.tracks().to_pylist() if r["status"] == "ok"
    }
    known = [item for item in for_testing(audio) if item.uri in durations]
    if not known:
        raise OptionError(f"--audio {audio}: none of it is in the catalogue")
    strangers = for_testing(unknown) if unknown else []
    if both := [item.uri for item in strangers if item.uri in durations]:
        raise OptionError(f"--unknown {unknown}: {both[0]} is in the catalogue")
    usable = [item for item in known if durations[item.uri] >= max(seconds) + 1]
    if not usable:
        raise OptionError(f"--seconds: no recording is longer than {max(seconds):g} s")
    clips: list[Clip] = []
    for items, count in ((usable, queries), (strangers, max(1, queries // 4))):
        drawn = draw_clips(
            [item.uri for item in items],
            seconds=seconds,
            snr_db=snr_db,
            queries=count if items else 0,
            seed=seed + len(clips),
        )
        clips += [replace(clip, number=len(clips) + clip.number) for clip in drawn]
    noises, impulses = (waveforms(for_testing(uri), say) for uri in (noise, rooms))
    answers = evaluate(
        catalogue_uri, [*usable, *strangers], clips, noises, impulses, workers=workers, say=say
    )
    made = [n for n, answer in enumerate(answers) if answer.error is None]
    if not made:
        raise OptionError(f"no clip could be made: {answers[0].error}")
    clips, answers = [clips[n] for n in made], self_repeating([answers[n] for n in made], known)
    facts = {
        "catalogue": catalogue_uri,
        "snapshot": catalogue.manifest.snapshot,
        "model": catalogue.manifest.model_id,
        **catalogue.manifest.counts,
        "recordings with clips": len(usable),
        "unknown recordings": len(strangers),
        "clips": len(clips),
        "seed": seed,
    }
    result = write_grid(out, clips, answers, facts)
    say(markdown(grid(clips, answers)))
    return {"queries": len(clips), "seconds": round(time.monotonic() - started, 2), **result}


def evaluate(
    catalogue_uri: str,
    items: list[Item],
    clips: list[Clip],
    noises: list[np.ndarray],
    rooms: list[np.ndarray],
    *,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> list[Answer]:
    """The best answer to every clip, in their order; matched if it reaches the model's threshold.

    Args:
        items: the recordings that clips name as their track; those that are not in the catalogue
            make unknown queries.
        noises, rooms: int16 waveforms; rooms may be empty if no clip is reverberant.
    """
    if not noises or (not rooms and any(clip.reverb for clip in clips)):
        raise OptionError("the evaluation needs noises, and rooms for reverberant clips")
    connect()
    catalogue = Catalogue.open_published(catalogue_uri)
    uris = live_tracks(catalogue)
    threshold = catalogue.threshold()
    by_track: dict[str, list[dict]] = {}
    for clip in clips:
        by_track.setdefault(clip.track, []).append(asdict(clip))
    rows = [
        {"location": item.location, "clips": by_track[item.uri]}
        for item in items
        if item.uri in by_track
    ]
    longest = max(clip.seconds for clip in clips)
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
        _cut_track,
        fn_kwargs={"noises": ray.put(noises), "rooms": ray.put(rooms), "longest": longest},
        num_cpus=0.25,
    )
    answers: dict[int, Answer] = {}
    found = answered(dataset, catalogue, workers, top_k=1)
    known = {uri for copies in uris.values() for uri in copies}
    for row in finished_rows(found, len(clips), say):
        clip = clips[row["number"]]
        least = threshold(clip.seconds)
        answers[clip.number] = _answer(row, clip, uris, clip.track in known, least)
    return [answers[clip.number] for clip in clips]


def for_testing(uri: str) -> list[Item]:
    """The recordings of a folder or table; of a table with a column `split` the test part."""
    return [item for item in list_items(uri) if item.row.get("split") in (None, "", "test")]


def waveforms(items: list[Item], say: Callable[[str], None]) -> list[np.ndarray]:
    """Decoded noises or rooms as int16, the form in which workers share them."""
    decoded = []
    for item in items:
        try:
            samples_S = decode(storage.read(item.location), min_seconds=0.0)
        except (AudioError, StorageError) as error:
            say(f"  left out: {item.uri}: {error}")
            continue
        decoded.append((samples_S.clip(-1, 1) * 32767).astype(np.int16))
    return decoded


def self_repeating(answers: list[Answer], items: list[Item]) -> list[Answer]:
    """Judge by track only where a recording's table says that it repeats itself exactly.

    That is a `self_repeat` above 0.45: the same second of music is at several places.
    """
    repeating = {item.uri for item in items if float(item.row.get("self_repeat") or 0) > 0.45}
    return [
        replace(answer, true_start_s=None) if answer.true_track in repeating else answer
        for answer in answers
    ]


def _cut_track(
    row: dict, noises: ray.ObjectRef, rooms: ray.ObjectRef, longest: float
) -> Iterator[dict]:
    """All clips of one track: it is decoded once."""
    all_noises, all_rooms = ray.get(noises), ray.get(rooms)
    # Not None, which Arrow takes for a string when a block has nothing else.
    empty = {"status": "failed", "duration_s": 0.0, "cut_at_s": np.nan, "pcm": b""}
    try:
        data = storage.read(row["location"])
        track_S = decode(data, min_seconds=longest, max_seconds=MAX_SECONDS)
    except (AudioError, StorageError) as error:
        for clip in row["clips"]:
            yield {**empty, "number": clip["number"], "error": str(error)}
        return
    for clip in row["clips"]:
        pcm_S, cut_at_s = make_clip(Clip(**clip), track_S, all_noises, all_rooms, longest)
        yield {
            "number": clip["number"],
            "status": "ok",
            "error": None,
            "duration_s": clip["seconds"],
            "cut_at_s": cut_at_s,
            "pcm": pcm_S.tobytes(),
        }


def _answer(
    row: dict, clip: Clip, uris: dict[int, list[str]], known: bool, min_score: float
) -> Answer:
    best = row["matches"][0] if row["matches"] else None
    tracks = uris[best["ordinal"]] if best else [None]  # exact copies are all right answers
    return Answer(
        query=f"clip {clip.number}",
        track=clip.track if clip.track in tracks else tracks[0],
        start_s=best["track_start_s"] - best["query_start_s"] if best else None,
        score=best["score"] if best else None,
        matched=best is not None and best["score"] >= min_score,
        error=row["error"],
        true_track=clip.track if known else None,
        true_start_s=row["cut_at_s"],
    )
