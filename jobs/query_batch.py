#!/usr/bin/env python3
"""Identify a batch of recordings: which track, from which second, or not in the catalog.

    python jobs/query_batch.py --catalog catalog/ --queries clips/ --out answers/
    python jobs/query_batch.py --catalog s3://bucket/catalog --queries clips.csv --out s3://bucket/answers

    python jobs/query_batch.py --timeline --catalog catalog/ --queries radio/ --out answers/

Writes OUT/matches.parquet, one row per query and rank. With --truth (CSV: query, track, start_s;
an empty track means not in the catalog) also OUT/report.json and OUT/report.html. With --timeline
one row per play, and a cue sheet for each recording.

Exit code: 0 done, 1 failed, 2 bad arguments, 3 done but more failed than --max-failures.
"""

import argparse
import sys
from functools import partial

from pipelines.common import cli


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--catalog", required=True, metavar="URI", help="a catalog made by index_catalog.py"
    )
    parser.add_argument(
        "--queries",
        required=True,
        metavar="URI",
        help="folder or prefix, searched recursively, or CSV / Parquet with a path column",
    )
    parser.add_argument(
        "--out", required=True, metavar="URI", help="folder or prefix for the answers"
    )
    parser.add_argument(
        "--top-k", type=cli.positive_int, default=1, metavar="N", help="tracks per query"
    )
    accept = parser.add_mutually_exclusive_group()
    accept.add_argument(
        "--fpr",
        type=float,
        metavar="RATE",
        help="accept so many matches of recordings that are not in the catalog, as a share of "
        "them: 0.0001 to 0.1; default: 0.001",
    )
    accept.add_argument(
        "--min-score",
        type=float,
        metavar="X",
        help="accept matches from this mean inner product on, -1..1, instead",
    )
    parser.add_argument(
        "--rerank",
        choices=("exact", "pq"),
        default="exact",
        help="score with the exact fingerprints, 256 bytes each, or with the index's codes",
    )
    parser.add_argument(
        "--search-actors",
        type=cli.positive_int,
        metavar="N",
        help="share the catalog's shards among so many; default: as their size asks for",
    )
    parser.add_argument(
        "--timeline",
        action="store_true",
        help="long recordings: all plays with their times; --max-seconds is then 86400 unless "
        "given, else 10800",
    )
    parser.add_argument("--truth", metavar="CSV", help="right answers, to score the answers with")
    cli.add_work_options(parser, "queries", max_failures="100%")
    parser.set_defaults(max_seconds=None)
    chosen = parser.parse_args(arguments)
    if chosen.timeline and (chosen.truth or chosen.top_k != 1):
        parser.error("argument --timeline: not with --truth or --top-k")
    if chosen.max_seconds is None:
        chosen.max_seconds = 86_400.0 if chosen.timeline else 10_800.0
    if chosen.min_score is not None and not -1 <= chosen.min_score <= 1:
        parser.error(f"argument --min-score: {chosen.min_score} is not between -1 and 1")
    if chosen.fpr is not None and not 0.0001 <= chosen.fpr <= 0.1:
        parser.error(f"argument --fpr: {chosen.fpr} is not between 0.0001 and 0.1")
    return chosen


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp.evaluation.truth import read_truth
    from grafp.reports.answers import write_report
    from pipelines.common.placement import (
        Encoders,  # after the options: importing Ray takes seconds
    )
    from pipelines.querying.flow import query_batch
    from pipelines.querying.timeline import timeline_batch

    truth = read_truth(chosen.truth) if chosen.truth else None
    answer = timeline_batch if chosen.timeline else partial(query_batch, top_k=chosen.top_k)
    summary, matches = answer(
        chosen.catalog,
        chosen.queries,
        chosen.out,
        fpr=chosen.fpr,
        min_score=chosen.min_score,
        decode=chosen.rerank == "pq",
        search_actors=chosen.search_actors,
        encoders=Encoders(chosen.workers, chosen.gpu),
        max_seconds=chosen.max_seconds,
    )
    if truth is not None:
        summary |= write_report(chosen.out, matches, truth)
    over = cli.too_many(summary["errors"], summary["queries"], chosen.max_failures)
    return summary, cli.TOO_MANY_FAILURES if over else cli.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
