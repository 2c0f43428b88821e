#!/usr/bin/env python3
"""Evaluate a catalogue on degraded excerpts of its own recordings: the paper's grid.

    python jobs/evaluate.py --catalog catalogue/ --audio music/ \\
        --noise noise/ --rir rooms/ --out evaluation/

Clips are cut at random samples, off the fingerprint grid; a cut is tried at every length and
ratio, with noise alone and in a room, at a ratio measured on the clip. Recordings of --unknown,
which are not in the catalogue, show how many clips are accepted wrongly. Of tables with a column
`split`, only rows marked `test` are used. Writes report.html, report.json and clips.parquet.
Choose nothing by what you report: for that, training sets a validation part apart.

Exit code: 0 done, 1 failed, 2 bad arguments.
"""

import argparse
import dataclasses
import sys
import time

from pipelines import cli


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--catalog", required=True, metavar="URI", help="the catalogue")
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
    parser.add_argument("--seed", type=int, default=0, help="of cuts, noise and rooms")
    parser.add_argument(
        "--unknown", metavar="URI", help="recordings that are not in the catalogue, if you have any"
    )
    parser.add_argument(
        "--workers", type=cli.positive_int, metavar="N", help="encoders; default: one a processor"
    )
    return parser.parse_args(arguments)


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp.catalogue import Catalogue
    from grafp.clips import draw_clips
    from grafp.errors import OptionError
    from grafp.grid import grid, markdown, write_grid
    from pipelines.evaluate import evaluate, for_testing, self_repeating, waveforms
    from pipelines.query import live_tracks

    started = time.monotonic()
    catalogue = Catalogue.open_published(chosen.catalog)
    indexed = {uri for copies in live_tracks(catalogue).values() for uri in copies}
    known = [item for item in for_testing(chosen.audio) if item.uri in indexed]
    if not known:
        raise OptionError(f"--audio {chosen.audio}: none of it is in the catalogue")
    unknown = for_testing(chosen.unknown) if chosen.unknown else []
    if both := [item.uri for item in unknown if item.uri in indexed]:
        raise OptionError(f"--unknown {chosen.unknown}: {both[0]} is in the catalogue")
    longest = max(chosen.seconds)
    durations = dict(zip(*(catalogue.tracks()[name].to_pylist() for name in ("uri", "duration_s"))))
    usable = [item for item in known if durations[item.uri] >= longest + 1]
    if not usable:
        raise OptionError(f"--seconds: no recording is longer than {longest:g} s")
    grids = {"seconds": chosen.seconds, "snr_db": chosen.snr}
    clips = draw_clips(
        [item.uri for item in usable], queries=chosen.queries, seed=chosen.seed, **grids
    )
    if unknown:
        strangers = draw_clips(
            [item.uri for item in unknown],
            queries=max(1, chosen.queries // 4),
            seed=chosen.seed + 1,
            **grids,
        )
        clips += [dataclasses.replace(c, number=len(clips) + c.number) for c in strangers]
    answers = evaluate(
        chosen.catalog,
        [*usable, *unknown],
        clips,
        waveforms(for_testing(chosen.noise), cli.say),
        waveforms(for_testing(chosen.rir), cli.say),
        workers=chosen.workers,
        say=cli.say,
    )
    made = [n for n, answer in enumerate(answers) if answer.error is None]
    if not made:
        raise OptionError(f"no clip could be made: {answers[0].error}")
    clips, answers = [clips[n] for n in made], self_repeating([answers[n] for n in made], known)
    assert catalogue.manifest
    facts = {
        "catalogue": chosen.catalog,
        "snapshot": catalogue.manifest.snapshot,
        "model": catalogue.manifest.model_id,
        **catalogue.manifest.counts,
        "recordings with clips": len(usable),
        "unknown recordings": len(unknown),
        "clips": len(clips),
        "seed": chosen.seed,
    }
    result = write_grid(chosen.out, clips, answers, facts)
    cli.say(markdown(grid(clips, answers)))
    seconds = round(time.monotonic() - started, 2)
    return {"queries": len(clips), "seconds": seconds, **result}, cli.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
