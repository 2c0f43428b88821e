#!/usr/bin/env python3
"""What the index's codes, the lists visited and the neighbours cost in hits and in time.

    python benchmarks/accuracy.py --corpus CORPUS --split validation --out out/validation
    python benchmarks/codecs.py --corpus CORPUS --catalog out/validation/catalogue

Clips of validation tracks, degraded with validation noise and rooms, are fingerprinted once and
looked for in indexes of the same fingerprints. `right track / within 50 ms` in %, by length, the
mean over ratios and conditions; and the time that FAISS takes for all of them.
"""

import argparse
import sys
import time

import numpy as np

from pipelines import cli

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
    from grafp.catalogue import Catalogue, open_shards
    from grafp.shards import Shard, ShardSearch

    catalogue = Catalogue.open_published(chosen.catalog)
    assert catalogue.manifest is not None
    [shard] = open_shards(catalogue.root, catalogue.manifest)
    clips, queries, starts = _queries(chosen)
    tracks = catalogue.tracks(["uri", "ordinal"])
    ordinals = dict(zip(tracks["uri"].to_pylist(), tracks["ordinal"].to_pylist(), strict=True))
    cli.say(f"{len(queries)} clips in {len(shard.vectors_ND):,} fingerprints")
    cli.say("| codes | lists | neighbours | " + " | ".join(f"{s:g} s" for s in chosen.seconds))
    results = []
    for codec in CODECS:
        index = _index(codec, shard)
        for share, neighbours in ((32, 20), (16, 20), (32, 40)):
            copy = Shard(
                index, shard.vectors_ND, shard.ordinals_T, shard.first_rows_T, shard.counts_T
            )
            search = _Timed(ShardSearch([copy], max(1, index.nlist // share)))
            right = _right(search, queries, starts, [ordinals[c.track] for c in clips], neighbours)
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
            row = f"| {codec} | 1/{share} | {neighbours} | "
            row += " | ".join(f"{track} / {place}" for track, place in cells.values())
            cli.say(f"{row} | FAISS {search.seconds:.1f} s |")
            results.append(
                {"codec": codec, "lists": 1 / share, "neighbours": neighbours, **cells}
                | {"faiss_s": round(search.seconds, 2)}
            )
    return {"clips": len(clips), "results": results}, cli.DONE


class _Timed:
    """A `Searcher` that knows how long it looked for neighbours."""

    def __init__(self, search) -> None:
        self.search, self.seconds = search, 0.0
        self.stride, self.products = search.stride, search.products

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        started = time.monotonic()
        found = self.search.nearest(queries_QD, k)
        self.seconds += time.monotonic() - started
        return found


def _queries(chosen: argparse.Namespace) -> tuple[list, list[np.ndarray], list[float]]:
    """Clips, their fingerprints, and where they begin in their tracks, in hops."""
    from accuracy import part

    import grafp
    from grafp import storage
    from grafp.audio import SAMPLE_RATE, decode
    from grafp.clips import draw_clips, make_clip
    from grafp.fingerprint import HOP_SECONDS
    from pipelines.evaluate import waveforms

    model = grafp.load_model()
    music = part(chosen.corpus, "validation", "music")
    items = {i.uri: i for i in music if float(i.row.get("seconds") or 60) >= 6}
    noises, rooms = (
        waveforms(part(chosen.corpus, "validation", n), cli.say) for n in ("noise", "rir")
    )
    clips = draw_clips(
        list(items), seconds=chosen.seconds, snr_db=chosen.snr, queries=chosen.queries, seed=5
    )
    clips.sort(key=lambda clip: clip.track)
    queries, starts, decoded = [], [], ("", np.zeros(0))
    for clip in clips:
        if decoded[0] != clip.track:
            decoded = clip.track, decode(storage.read(items[clip.track].location))
        start, clip_S = make_clip(clip, decoded[1], noises, rooms)
        queries.append(model.fingerprint(clip_S))
        starts.append(start / SAMPLE_RATE / HOP_SECONDS)
    return clips, queries, starts


def _index(codec: str, shard):
    """These fingerprints in as many lists as the catalogue has, in other codes."""
    import faiss

    from grafp.index import fingerprint_ids

    index = faiss.index_factory(128, f"IVF{shard.index.nlist},{codec}", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 10
    if codec.startswith("PQ"):
        index.pq.cp.niter = 10
    if codec == "PQ64":
        index.do_polysemous_training = False
    pairs = zip(shard.ordinals_T, shard.counts_T, strict=True)
    ids = np.concatenate([fingerprint_ids(ordinal, np.arange(count)) for ordinal, count in pairs])
    heard = np.flatnonzero(np.any(shard.vectors_ND, axis=1))
    sample = np.random.default_rng(0).choice(heard, min(len(heard), 80_000), replace=False)
    index.train(shard.vectors_ND[np.sort(sample)].astype(np.float32))
    index.add_with_ids(shard.vectors_ND[heard].astype(np.float32), ids[heard])
    return index


def _right(
    search: _Timed,
    queries: list[np.ndarray],
    starts: list[float],
    ordinals: list[int],
    neighbours: int,
) -> list[tuple[bool, bool]]:
    """Whether each query found its track, and its place within 50 ms."""
    from grafp.matching import find_matches

    right = []
    for first in range(0, len(queries), 64):
        part = slice(first, first + 64)
        found = find_matches(queries[part], search, neighbours=neighbours)
        for matches, start, ordinal in zip(found, starts[part], ordinals[part], strict=True):
            track = bool(matches) and matches[0].ordinal == ordinal
            right.append((track, track and abs(matches[0].start - start) <= 0.5))
    return right


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
