#!/usr/bin/env python3
"""What the index's codes, nprobe and the number of neighbors cost in hit rate and in time.

    python benchmarks/accuracy.py --corpus CORPUS --split validation --out out/validation
    python benchmarks/codecs.py --corpus CORPUS --catalog out/validation/catalog

Clips of validation tracks, degraded with validation noise and impulse responses, are fingerprinted
once and searched in indexes of the same fingerprints. The table shows `right track / within 50 ms`
in %, by length, as the mean over ratios and conditions, and the time that FAISS takes for all.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
from accuracy import part
from query import timed

from pipelines.common import cli

CODECS = ("SQfp16", "PQ64", "PQ64x4fs")


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="URI", help="see accuracy.py")
    parser.add_argument(
        "--catalog", required=True, metavar="URI", help="of one shard, with the validation tracks"
    )
    parser.add_argument("--queries", type=cli.positive_int, default=200, help="cuts")
    parser.add_argument("--seconds", type=cli.numbers(1.0, 60.0), default="1,2", help="lengths, s")
    parser.add_argument("--snr", type=cli.numbers(-60.0, 120.0), default="0,5,10", help="dB")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp.catalog.catalog import Catalog
    from grafp.catalog.opened import open_search
    from grafp.index.alignment import Effort
    from grafp.index.ids import fingerprint_ids
    from grafp.index.ivfpq import encode, parse_index, quantizer_of, train_index
    from grafp.index.lists import Lists

    catalog = Catalog.open_published(chosen.catalog)
    assert catalog.manifest is not None
    assert catalog.manifest.parameters is not None
    search = open_search(catalog.root, catalog.manifest)
    [stored] = search.tracks
    vectors_ND = stored.vectors_ND[np.arange(stored.counts_T.sum())]
    clips, queries, starts = _queries(chosen)
    tracks = catalog.tracks(["uri", "ordinal"])
    ordinals = dict(zip(tracks["uri"].to_pylist(), tracks["ordinal"].to_pylist(), strict=True))
    print(f"{len(queries)} clips in {len(vectors_ND):,} fingerprints")
    print("| codes | lists | neighbors | " + " | ".join(f"{s:g} s" for s in chosen.seconds))
    pairs = zip(stored.ordinals_T, stored.counts_T, strict=True)
    ids = np.concatenate([fingerprint_ids(ordinal, np.arange(count)) for ordinal, count in pairs])
    audible = np.flatnonzero(np.any(vectors_ND, axis=1))
    points = min(len(audible), catalog.manifest.parameters.training_points)
    sample = np.random.default_rng(0).choice(audible, points, replace=False)
    results = []
    for codec in CODECS:
        parameters = replace(catalog.manifest.parameters, codec=codec)
        trained = train_index(vectors_ND[np.sort(sample)], parameters)
        index = parse_index(trained)
        lists = Lists.filled(index, encode(trained, vectors_ND, ids), range(index.nlist))
        for share, neighbors in ((32, 20), (16, 20), (32, 40)):
            search = replace(
                search,
                quantizer=quantizer_of(index),
                lists=[lists],
                effort=Effort(None, max(1, index.nlist // share)),
            )
            spent = {"nearest": 0.0}
            search.nearest = timed(search.nearest, spent, "nearest")
            right = _right(search, queries, starts, [ordinals[c.track] for c in clips], neighbors)
            cells = {
                f"{length:g} s": [
                    round(100 * float(np.mean(r)), 2)
                    for r in zip(
                        *(r for r, c in zip(right, clips, strict=True) if c.seconds == length),
                        strict=True,
                    )
                ]
                for length in chosen.seconds
            }
            row = f"| {codec} | 1/{share} | {neighbors} | "
            row += " | ".join(f"{track} / {offset}" for track, offset in cells.values())
            print(f"{row} | FAISS {spent['nearest']:.1f} s |")
            results.append(
                {"codec": codec, "lists": 1 / share, "neighbors": neighbors, **cells}
                | {"faiss_s": round(spent["nearest"], 2)}
            )
    return {"clips": len(clips), "results": results}, cli.DONE


def _queries(chosen: argparse.Namespace) -> tuple[list, list[np.ndarray], list[float]]:
    """Clips, their fingerprints, and their offsets in their tracks, in hops."""
    import grafp
    from grafp import storage
    from grafp.audio import SAMPLE_RATE, decode
    from grafp.datasets import waveforms
    from grafp.evaluation.protocol import draw_clips, make_clip
    from grafp.model.fingerprint import HOP_SECONDS

    model = grafp.load_model()
    music = part(chosen.corpus, "validation", "music")
    items = {i.uri: i for i in music if float(i.row.get("seconds") or 60) >= 6}
    noises, rirs = (waveforms(part(chosen.corpus, "validation", n)) for n in ("noise", "rir"))
    clips = draw_clips(
        list(items), seconds=chosen.seconds, snr_db=chosen.snr, queries=chosen.queries, seed=5
    )
    clips.sort(key=lambda clip: clip.track)
    queries, starts, decoded = [], [], ("", np.zeros(0))
    for clip in clips:
        if decoded[0] != clip.track:
            decoded = clip.track, decode(storage.read(items[clip.track].location))
        start, clip_S = make_clip(clip, decoded[1], noises, rirs)
        queries.append(model.fingerprint(clip_S))
        starts.append(start / SAMPLE_RATE / HOP_SECONDS)
    return clips, queries, starts


def _right(
    search,
    queries: list[np.ndarray],
    starts: list[float],
    ordinals: list[int],
    neighbors: int,
) -> list[tuple[bool, bool]]:
    """Whether each query found its track, and its offset within 50 ms."""
    from grafp.index.alignment import find_matches

    right = []
    for first in range(0, len(queries), 64):
        batch = slice(first, first + 64)
        found = find_matches(queries[batch], search, neighbors=neighbors)
        for matches, start, ordinal in zip(found, starts[batch], ordinals[batch], strict=True):
            track = bool(matches) and matches[0].ordinal == ordinal
            right.append((track, track and abs(matches[0].start - start) <= 0.5))
    return right


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
