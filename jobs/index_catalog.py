#!/usr/bin/env python3
"""Bring a catalog up to date with a collection of audio.

    python jobs/index_catalog.py --audio music/ --catalog catalog/
    python jobs/index_catalog.py --audio s3://bucket/music --catalog s3://bucket/catalog

Run it again, say nightly: only new and changed recordings are fingerprinted, and recordings
that are gone from --audio are withdrawn. A recording that cannot be used gets its own row with
a reason. What was published stays in force until the new snapshot is complete.

Exit code: 0 done, 1 failed, 2 bad arguments, 3 done but more failed than --max-failures.
"""

import argparse
import sys

from pipelines.common import cli


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--audio",
        required=True,
        metavar="URI",
        help="folder or prefix, searched recursively, or CSV / Parquet with a path column",
    )
    parser.add_argument(
        "--catalog", required=True, metavar="URI", help="where the catalog is or will be"
    )
    parser.add_argument(
        "--model",
        metavar="NAME|URI",
        help="shipped model or bundle; default: the catalog's own, or `small` for a new one",
    )
    parser.add_argument(
        "--hop",
        type=cli.positive_float,
        metavar="S",
        help="seconds between two fingerprints of a new catalog: 0.5 makes it five times "
        "smaller, and short queries harder to find; default: 0.1",
    )
    cli.add_work_options(parser, "recordings", max_failures="1%")
    parser.add_argument(
        "--allow-empty",
        action="store_true",
        help="let an empty --audio withdraw everything that came from there",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return parser.parse_args(arguments)


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from pipelines.common.placement import Encoders
    from pipelines.indexing.flow import (
        index_catalog,  # after the options: importing Ray takes seconds
    )

    summary = index_catalog(
        chosen.audio,
        chosen.catalog,
        model=chosen.model,
        hop_s=chosen.hop,
        encoders=Encoders(chosen.workers, chosen.gpu),
        max_seconds=chosen.max_seconds,
        allow_empty=chosen.allow_empty,
        dry_run=chosen.dry_run,
    )
    for failure in summary["failures"]:
        print(f"  failed: {failure['uri']}: {failure['reason']}")
    tried = summary["failed"] + summary["embedded"]
    over = cli.too_many(summary["failed"], tried, chosen.max_failures)
    return summary, cli.TOO_MANY_FAILURES if over else cli.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
