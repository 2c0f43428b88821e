#!/usr/bin/env python3
"""The timeline of a made-up radio program: which detections are found, and how exactly.

    python benchmarks/programme.py --corpus CORPUS --out out/programme

CORPUS is as for benchmarks/accuracy.py. The program has 30 excerpts of 10 to 90 s an hour, a
quarter of them of music that is kept out of the catalog, three played twice. Half of the
neighbors are cross-faded over 2 to 5 s; speech and noise fill the rest. Other noise lies over it
all, 15 to 25 dB below the music. A detection is right if its track and its offset there (within
0.5 s) are right and it covers half of the true one. True boundaries lie in the middle of
cross-fades.

--speed-change 5 plays every excerpt at a random speed of up to 5 % either way. --nothing-known
plays only music that is kept out of the catalog.

--split validation is for choices: the train split is indexed, and the tenth of it that
jobs/train.py sets apart is played, among the noise of the train split.
"""

import argparse
import json
import os
import sys
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipelines.common import cli

if TYPE_CHECKING:
    from grafp.storage.sources import Item

RATE = 16_000
LEVEL = 0.1  # RMS of music
FOUND_WITHIN_S = 0.5


@dataclass(frozen=True)
class Played:
    """One excerpt: what is played, where in the track, and where in the program, seconds."""

    track: str
    known: bool
    track_start_s: float
    seconds: float
    start_s: float = 0.0
    fade_in_s: float = 0.0
    fade_out_s: float = 0.0
    speed: float = 1.0

    @property
    def span(self) -> tuple[float, float]:
        """Between the middles of its cross-fades."""
        end_s = self.start_s + self.seconds
        return self.start_s + self.fade_in_s / 2, end_s - self.fade_out_s / 2


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--corpus", required=True, metavar="URI", help="folder with music.csv and noise.csv"
    )
    parser.add_argument(
        "--out", default="out/programme", metavar="URI", help="catalog, programme and results"
    )
    parser.add_argument(
        "--split", default="test", choices=("test", "validation"), help="part of the corpus"
    )
    parser.add_argument(
        "--hours", type=cli.positive_float, default=2.0, metavar="H", help="length, hours"
    )
    parser.add_argument(
        "--speed-change",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="of each excerpt, at most",
    )
    parser.add_argument("--nothing-known", action="store_true", help="play unknown music only")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the program")
    parser.add_argument(
        "--workers", type=cli.positive_int, metavar="N", help="encoders (default: one per CPU)"
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp import storage
    from grafp.audio import encode
    from grafp.storage.sources import list_items
    from pipelines.common.work import Encoders
    from pipelines.indexing.flow import index_catalog
    from pipelines.querying.timeline import timeline_batch

    indexed, known, unknown = _collection(chosen)
    known = [] if chosen.nothing_known else known
    catalog = storage.join(chosen.out, "catalog")
    index_catalog(indexed, catalog, encoders=Encoders(chosen.workers))
    random = np.random.default_rng(chosen.seed)
    played = arrange(known, unknown, chosen.hours, random)
    music = {item.uri: _samples(item) for item in {i.uri: i for i in known + unknown}.values()
             if item.uri in {p.track for p in played}}  # fmt: skip
    if chosen.speed_change:
        played = at_speeds(played, chosen.speed_change / 100, music, chosen.seed)
    programme_S = mix(played, music, _noises(chosen), chosen.hours, random)
    recording = storage.join(chosen.out, "programme.flac")
    storage.write(recording, encode(programme_S, "flac"))
    del music, programme_S
    with PeakMemory() as memory:
        summary, table = timeline_batch(
            catalog,
            list_items(recording),
            chosen.out,
            encoders=Encoders(chosen.workers),
        )
    repeating = {i.uri for i in known if float(i.row.get("self_repeat") or 0) > 0.45}
    found = [row for row in table.to_pylist() if row["matched"]]
    scored = score(played, found, repeating, chosen.hours * 3600)
    for name, value in scored.items():
        print(f"  {name:<24} {value}")
    result = {
        **scored,
        "real_time_factor": round(chosen.hours * 3600 / summary["seconds"], 1),
        "peak_mib": round(memory.peak),
    }
    truth = [asdict(p) | {"span": p.span} for p in played]
    storage.write(storage.join(chosen.out, "truth.json"), json.dumps(truth, indent=1).encode())
    return result, cli.DONE


def _collection(chosen: argparse.Namespace) -> tuple[list, list, list]:
    """What is indexed, the music to play of it, and a third of the music, by group, unknown."""
    from grafp import storage
    from grafp.storage.sources import held_out, list_items

    items = list_items(storage.join(chosen.corpus, "music.csv"))
    everything = [i for i in items if (i.row["split"] == "test") == (chosen.split == "test")]
    heard = [i for i in everything if chosen.split == "test" or held_out(i)]
    groups = sorted({item.row["group"] for item in heard})
    kept_out = set(groups[::3])
    unknown = [item for item in heard if item.row["group"] in kept_out]
    known = [item for item in heard if item.row["group"] not in kept_out]
    return [i for i in everything if i.row["group"] not in kept_out], known, unknown


def _noises(chosen: argparse.Namespace) -> list[np.ndarray]:
    from grafp import storage
    from grafp.storage.sources import list_items

    items = list_items(storage.join(chosen.corpus, "noise.csv"))
    split = "test" if chosen.split == "test" else "train"
    return [_samples(i) for i in items if i.row["split"] == split and float(i.row["seconds"]) > 3]


def _samples(item: "Item") -> np.ndarray:
    """A recording at the music's level."""
    from grafp import storage
    from grafp.audio import decode

    samples_S = decode(storage.read(item.location))
    return samples_S * (LEVEL / np.sqrt(np.mean(samples_S**2)))


def arrange(known: list, unknown: list, hours: float, random: np.random.Generator) -> list[Played]:
    """The excerpts in order: each track once if there are enough, then again elsewhere in it."""
    count = round(30 * hours)
    strangers, twice = (count // 4, 3) if known else (count, 0)
    played = [_cut(item, True, random) for item in _drawn(known, count - strangers - twice, random)]
    again = [replace(one) for one in _some(played, twice, random)]
    played += [_cut(item, False, random) for item in _drawn(unknown, strangers, random)]
    played = [played[i] for i in random.permutation(len(played))]
    for one in again:  # half the programme later, or earlier
        at = (played.index(one) + len(played) // 2) % len(played)
        played.insert(at, one)
    fade_J = np.where(random.random(count - 1) < 0.5, random.uniform(2, 5, count - 1), 0.0)
    sounding = sum(p.seconds for p in played) - fade_J.sum()
    share_J = random.uniform(0.3, 1.0, count + 1) * np.concatenate([[1], fade_J == 0, [1]])
    gap_J = share_J / share_J.sum() * max(0.0, hours * 3600 - sounding)
    at_s, placed = float(gap_J[0]), []
    for number, one in enumerate(played):
        fades = [float(fade_J[n]) if 0 <= n < count - 1 else 0.0 for n in (number - 1, number)]
        at_s -= fades[0]
        placed.append(replace(one, start_s=at_s, fade_in_s=fades[0], fade_out_s=fades[1]))
        at_s += one.seconds + float(gap_J[number + 1])
    return placed


def _some(played: list[Played], count: int, random: np.random.Generator) -> list[Played]:
    return [played[i] for i in random.choice(len(played), count, replace=False)] if count else []


def _drawn(items: list, count: int, random: np.random.Generator) -> list:
    rounds = -(-count // max(1, len(items)))
    order = [i for _ in range(rounds) for i in random.permutation(len(items))]
    return [items[i] for i in order[:count]]


def _cut(item: "Item", known: bool, random: np.random.Generator) -> Played:
    length = float(item.row["seconds"]) - 0.5
    seconds = float(random.uniform(10, min(90, length)))
    return Played(item.uri, known, float(random.uniform(0, length - seconds)), seconds)


def at_speeds(
    played: list[Played], change: float, music: dict[str, np.ndarray], seed: int
) -> list[Played]:
    """The excerpts, each at a random speed of at most `change` either way."""
    random = np.random.default_rng([seed, 1])
    turned = []
    for one in played:
        speed = round(1 + float(random.uniform(-change, change)), 3)
        latest = len(music[one.track]) / RATE - speed * one.seconds
        start_s = max(0.0, min(one.track_start_s, latest))
        turned.append(replace(one, speed=speed, track_start_s=start_s))
    return turned


def _played_back(track_S: np.ndarray, one: Played) -> np.ndarray:
    """The excerpt as it is heard."""
    from torch import from_numpy
    from torchaudio.functional import resample

    begin = round(one.track_start_s * RATE)
    sound_S = track_S[begin : begin + round(one.seconds * one.speed * RATE)]
    if one.speed == 1.0:
        return sound_S.copy()
    heard_S: np.ndarray = resample(from_numpy(sound_S), round(1000 * one.speed), 1000).numpy()
    return heard_S


def mix(
    played: list[Played],
    music: dict[str, np.ndarray],
    noises: list[np.ndarray],
    hours: float,
    random: np.random.Generator,
) -> np.ndarray:
    """The programme, float32 (samples,): noise everywhere, louder where no music is."""
    total = round(hours * 3600 * RATE)
    music_S, quiet_S = np.zeros(total, np.float32), np.ones(total, np.float32)
    for one in played:
        first = round(one.start_s * RATE)
        sound_S = _played_back(music[one.track], one)
        for fade_s, step in ((one.fade_in_s, 1), (one.fade_out_s, -1)):
            length = round(fade_s * RATE)
            if length:  # equal power
                sound_S[::step][:length] *= np.sqrt(np.linspace(0, 1, length, dtype=np.float32))
        sound_S = sound_S[: total - first]
        music_S[first : first + len(sound_S)] += sound_S
        quiet_S[first : first + len(sound_S)] = 0.0
    bed_S = _endless(noises, total, random, (-25, -15))
    between_S = _endless(noises, total, random, (-6, 0))
    return 0.7 * (music_S + bed_S + between_S * quiet_S)


def _endless(
    noises: list[np.ndarray], total: int, random: np.random.Generator, level_db: tuple[int, int]
) -> np.ndarray:
    parts, length = [], 0
    while length < total:
        noise_S = noises[int(random.integers(len(noises)))]
        parts.append(noise_S * 10 ** (random.uniform(*level_db) / 20))
        length += len(noise_S)
    return np.concatenate(parts)[:total].astype(np.float32)


def score(
    played: list[Played], found: list[dict], repeating: set[str], seconds: float
) -> dict[str, object]:
    """How well found detections (rows of matches.parquet) fit those that were played."""
    known = [one for one in played if one.known]
    pairs: dict[int, dict] = {}
    for row in found:
        for number, one in enumerate(known):
            there_s = one.track_start_s + one.speed * (row["query_start_s"] - one.start_s)
            moved = row["track_start_s"] - there_s
            in_place = abs(moved) <= FOUND_WITHIN_S or one.track in repeating
            start, end = one.span
            common = min(end, row["query_end_s"]) - max(start, row["query_start_s"])
            right = row["track"] == one.track and in_place and common >= (end - start) / 2
            if right and number not in pairs:
                pairs[number] = row
                break
    edges: dict[str, list[float]] = {"cut": [], "faded": []}
    for number, row in pairs.items():
        one = known[number]
        start, end = one.span
        edges["faded" if one.fade_in_s else "cut"].append(abs(row["query_start_s"] - start))
        edges["faded" if one.fade_out_s else "cut"].append(abs(row["query_end_s"] - end))
    tick_T = np.arange(0, seconds, 0.1)
    truth_T = _labels(tick_T, [(one.track, *one.span) for one in known])
    said_T = _labels(tick_T, [(r["track"], r["query_start_s"], r["query_end_s"]) for r in found])
    stranger_T = _labels(tick_T, [(one.track, *one.span) for one in played if not one.known])

    def mostly(label_T: np.ndarray, row: dict) -> bool:
        during_T = (tick_T >= row["query_start_s"]) & (tick_T < row["query_end_s"])
        return bool(np.mean(label_T[during_T] != "") > 0.5)

    false = [row for row in found if not mostly(truth_T, row)]
    strange = sum(mostly(stranger_T, row) for row in false)
    every = edges["cut"] + edges["faded"]
    return {
        "detections": len(known),
        "found": len(found),
        "right": len(pairs),
        "precision": round(len(pairs) / max(1, len(found)), 3),
        "recall": round(len(pairs) / max(1, len(known)), 3),
        "time_right": round(float(np.mean(truth_T == said_T)), 4),
        "speed_error_percent": _spread(
            [100 * abs(row["speed"] - known[number].speed) for number, row in pairs.items()]
        ),
        "boundary_error_s": _spread(every),
        "boundary_error_cut_s": _spread(edges["cut"]),
        "boundary_error_faded_s": _spread(edges["faded"]),
        "false_in_unknown_music": strange,
        "false_elsewhere": len(false) - strange,
    }


def _labels(tick_T: np.ndarray, spans: list[tuple[str, float, float]]) -> np.ndarray:
    """The track at each tick, or an empty string."""
    label_T = np.full(len(tick_T), "", object)
    for track, start, end in spans:
        label_T[(tick_T >= start) & (tick_T < end)] = track
    return label_T


def _spread(errors: list[float]) -> dict[str, float] | None:
    if not errors:
        return None
    median, p95 = np.percentile(errors, [50, 95])
    return {"median": round(float(median), 2), "p95": round(float(p95), 2)}


class PeakMemory:
    """Peak memory of this process and all below, MiB, looked at every two seconds."""

    def __enter__(self) -> "PeakMemory":
        self.peak, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        from memory import memory_by_kind

        while not self._stop.wait(2.0):
            self.peak = max(self.peak, memory_by_kind(os.getpid()).total())


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
