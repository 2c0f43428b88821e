"""Hit rates of a catalogue on degraded excerpts of its own tracks, over the flow of a query batch.

Clips are cut at any sample, not on the fingerprints' grid, and the signal-to-noise ratio is
measured on the clip itself. One cut serves all lengths, ratios and conditions; noise and room
are drawn anew for each.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import ray

from grafp import storage
from grafp.audio import MAX_SECONDS, SAMPLE_RATE, decode
from grafp.catalogue import Catalogue
from grafp.clips import cut_degraded
from grafp.collection import Item
from grafp.errors import OptionError
from grafp.metrics import Answer
from pipelines.query import answered, live_tracks
from pipelines.runtime import connect, finished_rows


@dataclass(frozen=True)
class Clip:
    """One query to make: where it is cut and what happens to it."""

    number: int
    track: str
    place: float
    """Where it begins, as a share of what the track allows, 0..1."""
    seconds: float
    snr_db: float
    reverb: bool
    seed: int


def draw_clips(
    tracks: list[str],
    *,
    seconds: list[float],
    snr_db: list[float],
    queries: int,
    seed: int,
) -> list[Clip]:
    """`queries` cuts, each at every length and ratio, with noise alone and with reverberation."""
    random = np.random.default_rng(seed)
    clips: list[Clip] = []
    for _ in range(queries):
        track, place = tracks[int(random.integers(len(tracks)))], float(random.random())
        for reverb in (False, True):
            for length in seconds:
                for ratio in snr_db:
                    noise_seed = int(random.integers(1 << 62))
                    clips.append(Clip(len(clips), track, place, length, ratio, reverb, noise_seed))
    return clips


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
    """The best answer to every clip, in their order.

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
    found = answered(dataset, catalogue, uris, workers, top_k=1)
    known = {uri for copies in uris.values() for uri in copies}
    for row in finished_rows(found, len(clips), say):
        clip = clips[row["number"]]
        answers[clip.number] = _answer(row, clip, uris, clip.track in known)
    return [answers[clip.number] for clip in clips]


def _cut_track(
    row: dict, noises: ray.ObjectRef, rooms: ray.ObjectRef, longest: float
) -> Iterator[dict]:
    """All clips of one track: it is decoded once."""
    all_noises, all_rooms = ray.get(noises), ray.get(rooms)
    track_S = decode(storage.read(row["location"]), min_seconds=longest, max_seconds=MAX_SECONDS)
    for clip in row["clips"]:
        random = np.random.default_rng(clip["seed"])
        # The longest clip must fit, so that all lengths begin at the same place.
        start = int(clip["place"] * (len(track_S) - longest * SAMPLE_RATE))
        noise_S = all_noises[int(random.integers(len(all_noises)))]
        noise_S = noise_S[
            int(random.integers(max(1, len(noise_S) - int(clip["seconds"] * SAMPLE_RATE)))) :
        ]
        room_S = all_rooms[int(random.integers(len(all_rooms)))] if clip["reverb"] else None
        pcm_S = cut_degraded(
            track_S, start, clip["seconds"], snr_db=clip["snr_db"], noise_S=noise_S, room_S=room_S
        )
        yield {
            "number": clip["number"],
            "status": "ok",
            "error": None,
            "duration_s": clip["seconds"],
            "cut_at_s": start / SAMPLE_RATE,
            "pcm": pcm_S.tobytes(),
        }


def _answer(row: dict, clip: Clip, uris: dict[int, list[str]], known: bool) -> Answer:
    best = row["matches"][0] if row["matches"] else None
    tracks = uris[best["ordinal"]] if best else [None]  # exact copies are all right answers
    return Answer(
        query=f"clip {clip.number}",
        track=clip.track if clip.track in tracks else tracks[0],
        start_s=best["track_start_s"] - best["query_start_s"] if best else None,
        score=best["score"] if best else None,
        matched=best is not None,
        error=row["error"],
        true_track=clip.track if known else None,
        true_start_s=row["cut_at_s"],
    )
