#!/usr/bin/env python3
"""Care for a published catalog: compact, withdraw, check, roll back, clean up.

    python jobs/merge_index.py --catalog s3://bucket/catalog
    python jobs/merge_index.py --catalog catalog/ --remove withdrawn.txt
    python jobs/merge_index.py --catalog catalog/ --verify
    python jobs/merge_index.py --catalog catalog/ --rollback 20261122T030000-1a2b3c
    python jobs/merge_index.py --catalog catalog/ --clean --dry-run

Without an option it compacts the index, or trains it anew, where that is due. Readers keep the
snapshot that they opened; every change is a new snapshot, and the old one can be rolled back to.

Exit code: 0 done, 1 failed or damage was found, 2 bad arguments.
"""

import argparse
import sys

from pipelines.common import cli


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--catalog", required=True, metavar="URI", help="the catalog")
    parser.add_argument(
        "--remove",
        metavar="FILE",
        help="withdraw the tracks that this file names: a URI a line, or a table with a column uri",
    )
    parser.add_argument(
        "--compact", action="store_true", help="join all small shards and drop what was withdrawn"
    )
    parser.add_argument("--retrain", action="store_true", help="train the index anew and refill it")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--rollback", metavar="SNAPSHOT", help="publish this older snapshot again")
    one.add_argument(
        "--verify", action="store_true", help="read all files of the snapshot and name damage"
    )
    one.add_argument(
        "--clean", action="store_true", help="remove old snapshots and files that none needs"
    )
    parser.add_argument(
        "--keep",
        type=cli.positive_int,
        default=14,
        metavar="N",
        help="with --clean: newest snapshots to keep",
    )
    parser.add_argument(
        "--grace-hours",
        type=float,
        default=336.0,
        metavar="H",
        help="with --clean: spare younger files; below 168 only while no run is at work",
    )
    parser.add_argument("--dry-run", action="store_true", help="with --clean: only say what")
    chosen = parser.parse_args(arguments)
    alone = chosen.rollback or chosen.verify or chosen.clean
    if alone and (chosen.remove or chosen.compact or chosen.retrain):
        parser.error("--rollback, --verify and --clean go with no other change")
    return chosen


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from pipelines.indexing import maintain

    if chosen.verify:
        summary = maintain.verify(chosen.catalog)
        return summary, cli.FAILED if summary["damaged"] else cli.DONE
    if chosen.rollback:
        return maintain.rollback(chosen.catalog, chosen.rollback), cli.DONE
    if chosen.clean:
        summary = maintain.clean_up(
            chosen.catalog,
            keep_snapshots=chosen.keep,
            grace_hours=chosen.grace_hours,
            dry_run=chosen.dry_run,
        )
        return summary, cli.DONE
    summary = maintain.maintain(
        chosen.catalog,
        remove=chosen.remove,
        compact=chosen.compact,
        retrain=chosen.retrain,
    )
    return summary, cli.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
