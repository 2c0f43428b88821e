#!/usr/bin/env python3
"""Music that plays faster or slower than cataloged: what is found, accepted and placed.

    python benchmarks/speeds.py --corpus CORPUS --out out/speeds

The test music of CORPUS is indexed whole. Clips are cut at random samples, played at another speed
(tempo and pitch together), and degraded with test noise at 10 dB, half of them with a test impulse
response too. Then tempo alone and pitch alone. Each row is, in %: right track; accepted and right
at the default rate; right within 100 ms; and the median and 90 % quantile of the error of the
speed in percent. Under each table is the CPU time of a query, search and evidence, after encoding.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import ray

from pipelines.common import cli

RATE = 16_000
CHANGES = (0, 1, -1, 2, -2, 4, -4, 6, -6, 8, -8)
KINDS = (*(("speed", c) for c in CHANGES), *((k, c) for k in ("tempo", "pitch") for c in (4, -4)))
SECONDS = (5.0, 10.0)


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="URI", help="folder of the tables")
    parser.add_argument("--out", default="out/speeds", metavar="DIR", help="catalog and results")
    parser.add_argument("--clips", type=cli.positive_int, default=250, help="in each row")
    parser.add_argument(
        "--max-speed-change", type=float, default=[0.0, 0.05, 0.08], nargs="+", metavar="SHARE",
        help="as of query_batch.py; a table for each",
    )  # fmt: skip
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from accuracy import part

    from grafp import storage
    from grafp.datasets import waveforms
    from pipelines.common.runtime import connect
    from pipelines.indexing.flow import index_catalog

    connect()
    music = part(chosen.corpus, "test", "music")
    catalog = storage.join(chosen.out, "catalog")
    index_catalog(music, catalog)
    usable = [
        item
        for item in music
        if float(item.row.get("seconds") or 60) >= 14
        and float(item.row.get("self_repeat") or 0) <= 0.45
    ]
    material = ray.put({n: waveforms(part(chosen.corpus, "test", n)) for n in ("noise", "rir")})
    per = -(-chosen.clips // len(usable))
    work = [_clips.remote(item.location, n, per, material) for n, item in enumerate(usable)]
    made = ray.get(work)
    summary = {}
    for change in chosen.max_speed_change:
        print(f"\n--max-speed-change {change:g}, {per * len(usable)} clips a row")
        asked = [
            _ask.remote(catalog, item.uri, clips, change)
            for item, clips in zip(usable, made, strict=True)
        ]
        answers = ray.get(asked)
        summary[f"{change:g}"] = _table([row for rows, _ in answers for row in rows])
        for seconds in SECONDS:
            spent_s = sum(spent[seconds] for _, spent in answers)
            each_ms = 1000 * spent_s / (len(KINDS) * per * len(usable))
            print(f"{seconds:g} s: {each_ms:.2f} ms of CPU time a query")
            summary[f"{change:g}"][f"ms, {seconds:g} s"] = each_ms
    storage.write(storage.join(chosen.out, "speeds.json"), json.dumps(summary, indent=1).encode())
    return summary, cli.DONE


def _played(sound_S: np.ndarray, kind: str, change: int) -> np.ndarray:
    """The sound as it is heard; its middle stays in place."""
    import torch

    from grafp.audio.speed import change_pitch, change_speed

    speed = 1 + change / 100
    sound_1S = torch.from_numpy(sound_S)[None]
    if kind in ("speed", "tempo") and change:
        rate_11 = torch.tensor([[speed]], dtype=torch.float64)
        sound_1S = change_speed(sound_1S, rate_11, sound_1S.shape[1] / 2)
    if kind in ("pitch", "tempo") and change:
        ratio = speed if kind == "pitch" else 1 / speed
        sound_1S = change_pitch(sound_1S, 12 * math.log2(ratio))
    heard_S: np.ndarray = sound_1S[0].numpy()
    return heard_S


@ray.remote(num_cpus=1)
def _clips(location: str, seed: int, count: int, material: dict) -> list[tuple]:
    """Kind, change, whether reverberant, middle in the track (s), and fingerprints, of each."""
    from grafp import load_model, storage
    from grafp.audio import decode
    from grafp.audio.degrade import cut_degraded, noise_excerpt

    fingerprint, random = load_model().fingerprint, np.random.default_rng(seed)
    track_S = decode(storage.read(location))
    length, spare = 10 * RATE, RATE  # 8 % faster hears 10.8 s; a second comes before
    clips = []
    for kind, change in KINDS:
        for number in range(count):
            middle = int(random.integers(length // 2 + spare, len(track_S) - length // 2 - spare))
            around_S = track_S[middle - length // 2 - spare : middle + length // 2 + spare]
            noise_S = material["noise"][int(random.integers(len(material["noise"])))]
            rir_S = material["rir"][int(random.integers(len(material["rir"])))]
            clip_S = cut_degraded(
                _played(around_S, kind, change),
                spare,
                10.0,
                snr_db=10.0,
                noise_S=noise_excerpt(noise_S, length, random),
                rir_S=rir_S if number % 2 else None,
            )
            clips.append((kind, change, bool(number % 2), middle / RATE, fingerprint(clip_S)))
    return clips


@ray.remote(num_cpus=1)
def _ask(root: str, track: str, clips: Sequence[tuple], change: float) -> tuple[list, dict]:
    """Kind, change, length; right, accepted, within 100 ms; error of the speed in percent.

    And the CPU time of all queries by length, seconds.
    """
    import faiss

    from grafp.catalog.catalog import Catalog
    from grafp.catalog.identify import background_of
    from grafp.catalog.opened import open_search
    from grafp.index.evidence import identify, reached

    catalog = Catalog.open_published(root)
    manifest = catalog.manifest
    assert manifest
    correction = catalog.model().offset_correction_s / manifest.query_hop_s
    search = replace(open_search(root, manifest), offset_correction=correction)
    faiss.omp_set_num_threads(1)
    beside, uris = background_of(catalog), catalog.live_tracks()
    acceptance, rows, spent = catalog.acceptance(), [], {}
    for seconds in SECONDS:
        count = round((seconds - 1) * 10) + 1
        first = 91 // 2 - count // 2  # the middle stays in place
        queries = [vectors_MD[first : first + count] for *_, vectors_MD in clips]
        started = time.process_time()
        scores = reached(queries, beside, change=change)
        found = identify(queries, search, scores, change=change)
        spent[seconds] = time.process_time() - started
        for (kind, wanted, _, middle_s, _), answers in zip(clips, found, strict=True):
            best = answers[0] if answers else None
            right = best is not None and track in uris[best.match.ordinal]
            if best is None or not right:
                rows.append((kind, wanted, seconds, False, False, False, np.nan))
                continue
            match = best.match
            # The middle of the clip, half a second after its middle fingerprint begins.
            there = match.start + match.speed * ((count - 1) / 2 + 5.0)
            accepted = match.score >= acceptance.threshold(best.beside, seconds)
            off_s = abs(there * 0.1 - middle_s)
            speed = 1 + (wanted / 100 if kind != "pitch" else 0.0)
            error = 100 * abs(match.speed - speed)
            rows.append((kind, wanted, seconds, True, accepted, off_s <= 0.1, error))
    return rows, spent


def _table(rows: Sequence[tuple]) -> dict:
    table = {}
    lengths = " | ".join(f"{s:g} s: right / accepted / 100 ms, speed error" for s in SECONDS)
    print(f"| | {lengths} |")
    print("|---" * (len(SECONDS) + 1) + "|")
    for kind, change in KINDS:
        cells = []
        for seconds in SECONDS:
            mine = [row[3:] for row in rows if row[:3] == (kind, change, seconds)]
            right, accepted, near = (100 * float(np.mean([r[n] for r in mine])) for n in range(3))
            errors = [r[3] for r in mine if r[0]]
            median, most = np.percentile(errors, [50, 90]) if errors else (np.nan, np.nan)
            table[f"{kind} {change:+d} %, {seconds:g} s"] = {
                "right": right, "accepted": accepted, "within_100ms": near,
                "speed_error_median": float(median), "speed_error_p90": float(most),
            }  # fmt: skip
            cells.append(f"{right:.1f} / {accepted:.1f} / {near:.1f}, {median:.2f} ({most:.2f})")
        print(f"| {kind} {change:+d} % | " + " | ".join(cells) + " |")
    return table


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
