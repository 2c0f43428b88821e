#!/usr/bin/env python3
"""Peak memory of a query job by size of the catalog, with exact vectors and with codes alone.

    python benchmarks/query_memory.py --fingerprints 1000000,3000000

Invented tracks make a small synthetic catalog as large as wanted (pipelines/scale.py); 100 clips
of 5 s are looked for in it by jobs/query_batch.py, with --rerank exact and --rerank pq. Memory is
the proportional one (PSS) of the job and every Ray process it started, at its peak.
"""

import argparse
import sys
import tempfile
from collections import Counter

from memory import run_job, synthesize

from pipelines.common import cli

_TRACKS, _SECONDS = 30, 100.0


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--fingerprints",
        type=cli.numbers(50_000, 1e9),
        default="1000000,3000000",
        metavar="N,..",
        help="catalog sizes",
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    import ray

    from grafp.catalog.catalog import Catalog
    from pipelines.evaluating.distractors import with_distractors
    from pipelines.indexing.flow import index_catalog

    summary: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        synthesize(f"{folder}/music", _TRACKS, _SECONDS)
        synthesize(f"{folder}/queries", 100, 5.0)
        index_catalog(f"{folder}/music", f"{folder}/small")
        small = Catalog.open_published(f"{folder}/small")
        assert small.manifest is not None
        each = small.manifest.counts["fingerprints"] / _TRACKS
        for size in chosen.fingerprints:
            root = f"{folder}/{size:.0f}"
            manifest = with_distractors(small, root, round(size / each), model=small.model())
            ray.shutdown()  # the job starts its own
            count = manifest.counts["fingerprints"]
            print(f"{count:,} fingerprints in {len(manifest.shards)} shards")
            for rerank in ("exact", "pq"):
                uris = ["--catalog", root, "--queries", f"{folder}/queries"]
                peak, seconds = run_job(
                    "query_batch.py", *uris, "--out", f"{folder}/out", "--rerank", rerank,
                    "--min-score", "0.8",
                )  # fmt: skip
                total, held = sum(peak.values()), _of_search(peak)
                print(
                    f"  --rerank {rerank:5}  {total:6,.0f} MiB, of which search actors "
                    f"{held:6,.0f} MiB; {seconds:.0f} s"
                )
                summary.setdefault(str(count), {})[rerank] = {
                    "peak_mib": round(total),
                    "search_mib": round(held),
                    "seconds": round(seconds),
                }
    return summary, cli.DONE


def _of_search(peak: Counter[str]) -> float:
    return sum(size for name, size in peak.items() if "_Holder" in name)


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
