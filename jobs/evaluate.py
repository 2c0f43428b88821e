#!/usr/bin/env python3
"""Evaluate a catalog on degraded excerpts of its own recordings: the paper's grid.

    python jobs/evaluate.py --catalog catalog/ --audio music/ \\
        --noise noise/ --rir rooms/ --out evaluation/

A cut is tried at every length and ratio, with noise alone and in a room. With --protocol field,
clips are cut at random samples, off the fingerprint grid, and the ratio is measured on the clip;
with `paper` they begin on the grid and the ratio is that to the whole track, as in the literature.
Recordings of --unknown, which are not in the catalog, show how many clips are accepted wrongly.
--distractors asks the shortest clips in rooms again, of copies of the catalog with so many
invented tracks; they stay in OUT/scaled-N, to delete at will. Of tables with a column `split`, only
rows marked `test` are used. Writes report.html, report.json and clips.parquet. Choose nothing by
what you report: for that, training sets a validation part apart.

Exit code: 0 done, 1 failed, 2 bad arguments.
"""

import argparse
import sys

from pipelines.common import cli


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--catalog", required=True, metavar="URI", help="the catalog")
    parser.add_argument(
        "--audio", required=True, metavar="URI", help="what was indexed, as it was indexed"
    )
    parser.add_argument(
        "--noise", required=True, metavar="URI", help="background noise, folder or table"
    )
    parser.add_argument(
        "--rir", required=True, metavar="URI", help="room impulse responses, folder or table"
    )
    parser.add_argument(
        "--out", required=True, metavar="URI", help="folder or prefix for the report"
    )
    parser.add_argument(
        "--seconds", type=cli.numbers(1.0, 3600.0), default="1,2,3,5", help="clip lengths, s"
    )
    parser.add_argument(
        "--snr",
        type=cli.numbers(-60.0, 120.0),
        default="0,5,10,15,20",
        help="signal-to-noise ratios, dB",
    )
    parser.add_argument(
        "--queries", type=cli.positive_int, default=2000, metavar="N", help="clips in each cell"
    )
    parser.add_argument(
        "--protocol", choices=("field", "paper"), default="field", help="how clips are cut, above"
    )
    parser.add_argument(
        "--search",
        choices=("index", "lsh"),
        default="index",
        help="how fingerprints are looked up: the catalog's index, or random-hyperplane hashes "
        "like the paper's TE + LSH, made in memory for this evaluation",
    )
    parser.add_argument("--seed", type=int, default=0, help="of cuts, noise and rooms")
    parser.add_argument(
        "--unknown", metavar="URI", help="recordings that are not in the catalog, if you have any"
    )
    parser.add_argument(
        "--distractors",
        type=cli.numbers(1.0, 1e9),
        default=[],
        metavar="N[,N...]",
        help="invented tracks to add to copies of the catalog",
    )
    cli.add_encoder_options(parser)
    return parser.parse_args(arguments)


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from pipelines.common.placement import Encoders
    from pipelines.evaluating.flow import (
        evaluate_catalog,  # after the options: importing Ray is slow
    )

    summary = evaluate_catalog(
        chosen.catalog,
        chosen.audio,
        chosen.noise,
        chosen.rir,
        chosen.out,
        seconds=chosen.seconds,
        snr_db=chosen.snr,
        queries=chosen.queries,
        seed=chosen.seed,
        protocol=chosen.protocol,
        search=chosen.search,
        unknown=chosen.unknown,
        distractors=[int(number) for number in chosen.distractors],
        encoders=Encoders(chosen.workers, chosen.gpu),
    )
    return summary, cli.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
