#!/usr/bin/env python3
"""Catalogs of 1, 10 and 100 million fingerprints: building them, and what a search costs and finds.

    python benchmarks/scale.py --corpus CORPUS --out out/scale
    python benchmarks/scale.py --corpus CORPUS --out out/scale --fingerprints 1e6,1e7

Every fingerprint is really indexed. A catalog has the test tracks of CORPUS and distractors, which
are mixed from the training tracks (pipelines.evaluating.distractors; benchmarks/distractors.py
measures how well they deceive), and is built as any other, by Ray tasks. The queries are the same
at each size: the beginnings of clips of the test tracks, cut at random samples, in test noise at 0
to 20 dB, half of them in rooms. Fingerprints of the clips and both small catalogs stay under OUT.

Times are of a core (user and system time), so other work on the machine changes them little. A
query is fingerprinted before, and then takes what a query job does with it: the background, the
search, and exact scores. The default search goes on only where a quick one leaves doubt; the full
one never stops early; the exhaustive one visits all lists, with all fingerprints of the query. That
takes long in a large catalog, so it is asked fewer clips there, and so is the default beside it.
Codes are those compared for a query, divided by its fingerprints, searched or not.

Disk: 350 bytes a fingerprint of the largest size. A catalog is deleted when it is measured.
"""

import argparse
import json
import os
import shutil
import sys
import time
from itertools import pairwise
from typing import Any

from accuracy import part
from scale_measures import Tasks, alone, plain_faiss, searched

from pipelines.common import cli

LENGTHS_S = (1.0, 2.0, 5.0)


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="URI", help="folder of the tables")
    parser.add_argument("--out", default="out/scale", metavar="DIR", help="catalogs and clips")
    parser.add_argument("--model", default="small", metavar="NAME|URI", help="the model")
    parser.add_argument(
        "--fingerprints", type=cli.numbers(10_000, 1e12), default="1e6,1e7,1e8", metavar="N,..",
        help="catalog sizes",
    )  # fmt: skip
    parser.add_argument("--clips", type=cli.positive_int, default=2_000, help="of each length")
    parser.add_argument(
        "--music", metavar="URI",
        help="catalog to mix distractors from; default: one is made of the training tracks",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=cli.positive_float, default=12.0, metavar="GIB",
        help="the most that the process that searches may allocate; mapped files are not counted",
    )  # fmt: skip
    parser.add_argument(
        "--exhaustive-codes", type=cli.positive_float, default=3e11, metavar="N",
        help="about so many codes are compared in the exhaustive search of each length",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="do not delete the catalogs")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from acceptance_clips import degraded

    from grafp import storage
    from grafp.catalog.catalog import Catalog
    from grafp.storage.sources import held_out, list_items
    from pipelines.common.runtime import connect
    from pipelines.indexing.flow import index_catalog

    connect()
    tracks = part(chosen.corpus, "test", "music")
    index_catalog(tracks, f"{chosen.out}/catalog", model=chosen.model)
    if not chosen.music:
        every = list_items(storage.join(chosen.corpus, "music.csv"))
        train = [item for item in every if item.row.get("split") == "train"]
        # Of those held out is the background that answers are calibrated with.
        train = [item for item in train if not held_out(item)]
        index_catalog(train, f"{chosen.out}/music", model=chosen.model)
    real = Catalog.open_published(f"{chosen.out}/catalog")
    music = Catalog.open_published(chosen.music or f"{chosen.out}/music")
    usable = [item for item in tracks if float(item.row.get("seconds") or 60) >= 11]
    clips = degraded(chosen, "clips", usable, chosen.clips, (0, 20), 0.5)
    rows = []
    for size in chosen.fingerprints:
        root = f"{chosen.out}/{size:.0f}"
        row = _built(real, music, root, int(size))
        _print_built(row)
        row |= alone(searched, root, clips, LENGTHS_S, chosen.memory, chosen.exhaustive_codes)
        _print_searched(row)
        rows.append(row)
        if not chosen.keep:
            shutil.rmtree(root)
    for smaller, larger in pairwise(rows):
        _print_growth(smaller, larger)
    return {"sizes": rows}, cli.DONE


def _built(real: Any, music: Any, root: str, size: int) -> dict[str, Any]:
    """Build a catalog under `root`, or take what is known of one that is there."""
    from grafp.catalog.manifest import index_health
    from pipelines.evaluating.distractors import with_distractors

    known = f"{root}/built.json"
    if os.path.exists(known):
        with open(known, encoding="utf-8") as file:
            return dict(json.load(file))
    counts = music.manifest.counts
    each = counts["fingerprints"] / (counts["tracks"] - counts["copies"])
    invented = round(max(0, size - real.manifest.counts["fingerprints"]) / each)
    began = time.monotonic()
    with Tasks() as tasks:
        manifest = with_distractors(real, root, invented, model=real.model(), music=music)
    count, cores = manifest.counts["fingerprints"], tasks.seconds
    populating = ("_encode", "_merge")
    stored = {
        "codes": sum(entry.codes.bytes for entry in manifest.shards),
        "trained": manifest.trained_index.bytes,
    }
    row = {
        "fingerprints": count,
        "distractors": invented,
        "nlist": manifest.parameters.nlist,
        "layers": len(manifest.layers),
        "shards": len(manifest.shards),
        **index_health(manifest.shards),
        "build_s": round(time.monotonic() - began),
        "train_core_s": round(cores["_train"] + cores["_sample"]),
        "core_s": {name: round(seconds, 1) for name, seconds in cores.most_common(8)},
        "populate_per_core_s": round(count / sum(cores[name] for name in populating)),
        "plain_faiss_per_core_s": round(alone(plain_faiss, root)),
        "index_bytes": {name: round(size / count, 2) for name, size in stored.items()},
        "task_peak_mib": {name: round(tasks.peak_mib[name]) for name in populating},
    }
    with open(known, "w", encoding="utf-8") as file:
        json.dump(row, file)
    return row


def _print_built(row: dict[str, Any]) -> None:
    print(
        f"\n{row['fingerprints']:,} fingerprints ({row['distractors']:,} distractors) in "
        f"{row['build_s']:,} s: {row['nlist']:,} lists, {row['layers']} layer in {row['shards']} "
        f"shards, imbalance {row['imbalance']:.2f}, recall of probes {100 * row['recall']:.1f} %"
    )
    print(
        f"training {row['train_core_s']:,} s of a core; populating "
        f"{row['populate_per_core_s']:,} fingerprints a second and core, plain FAISS "
        f"{row['plain_faiss_per_core_s']:,}; {row['index_bytes']['codes']:.1f} bytes of codes a "
        f"fingerprint and {row['index_bytes']['trained']:.1f} of the trained index"
    )
    shown = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in row["core_s"].items())
    print(f"core time by task: {shown}")
    peaks = ", ".join(f"{name} {mib:,} MiB" for name, mib in row["task_peak_mib"].items())
    print(f"largest task: {peaks}")


def _print_searched(row: dict[str, Any]) -> None:
    print(
        f"search process: {row['search_peak_gib']:.2f} GiB at its peak after opening in "
        f"{row['open_s']:.0f} s, then {row['allocated_gib']:.2f} GiB allocated (at most "
        f"{row['most_gib']:g}) and {row['mapped_gib']:.2f} GiB of mapped files"
    )
    print(
        "| clip | query, ms of a core | codes a fingerprint | hit rate, % | full effort | "
        "same clips: default / full / exhaustive | clips |"
    )
    print("|---" * 7 + "|")
    for seconds in LENGTHS_S:
        name = f"{seconds:g} s"
        same = " / ".join(f"{100 * row[f'{key}hit_rate_same'][name]:.1f}" for key in ("", "full_"))
        print(
            f"| {name} | {row['query_ms'][name]:.2f} | {row['codes_per_fingerprint'][name]:,} | "
            f"{100 * row['hit_rate'][name]:.1f} | {100 * row['full_hit_rate'][name]:.1f} | "
            f"{same} / {100 * row['exhaustive_hit_rate'][name]:.1f} | "
            f"{row['clips'][name]:,}, {row['same_clips'][name]:,} |"
        )


def _print_growth(smaller: dict[str, Any], larger: dict[str, Any]) -> None:
    times = larger["fingerprints"] / smaller["fingerprints"]
    shown = (
        f"{name} {larger['query_ms'][name] / ms:.2f} times the time and "
        f"{larger['codes_per_fingerprint'][name] / smaller['codes_per_fingerprint'][name]:.2f} "
        "times the codes"
        for name, ms in smaller["query_ms"].items()
    )
    print(f"{times:.1f} times the fingerprints: {'; '.join(shown)}")


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
