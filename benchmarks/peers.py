#!/usr/bin/env python3
"""grafp beside other systems on the same queries: hit rates raw and at one false-positive rate.

    python benchmarks/peers.py --corpus CORPUS --out out/peers --queries 100

CORPUS is as in benchmarks/accuracy.py, on local disk. Of its test music every --keep-out-th track
is left out of the catalog; clips of all tracks, the unknown ones included, are written as WAV
files. OUT, a new folder, gets references.csv and queries.csv (a column path), truth.csv, the
clips, each program's output, and peers.json.

grafp answers through its own jobs. Chromaprint takes part where `fpcalc` is installed (Debian:
libchromaprint-tools), through benchmarks/fpcalc_match.py, a comparison by brute force. --system
adds any program; it runs without a shell, and {references} and {queries} are the two tables. It
prints `query<TAB>track<TAB>offset<TAB>score`: two paths of the tables, the offset in the track at
which the query begins, in s, and a score (higher is better). It may print a line `#indexed`
(flushed) when it begins with the queries; otherwise all its time counts as query time. For
example, after `pip install audfprint2`, which needs ffmpeg, as audfprint.sh:

    cd "$(mktemp -d)"; tail -n +2 "$1" > references; tail -n +2 "$2" > queries
    audfprint new references -l -C -d db.hdf >&2; echo '#indexed'
    audfprint match queries -l -C -d db.hdf -N 1 -v 2>&1 | sed -nE \\
      's/.*:Matched (.*) [0-9.]+ sec .* as (.*) at +(.*) s with +([0-9]+).*/\\1\\t\\2\\t\\3\\t\\4/p'

    --system 'audfprint=sh audfprint.sh {references} {queries}'

Each system's threshold is set on its own scores of the unknown clips of one length: at most --fpr
of them exceed it. The table says how many clips that is; they are cut from far fewer tracks. A
system that fails has no rates, and the exit code is 1 then.
"""

import argparse
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.common import cli

if TYPE_CHECKING:
    from peer_systems.answers import Query
    from peer_systems.run import Outcome

    from grafp.storage.sources import Item

OURS, CHROMAPRINT = "grafp", "chromaprint"


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--corpus", required=True, metavar="FOLDER", help="folder with the three tables"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--model", default="small", metavar="NAME|URI", help="grafp's model")
    parser.add_argument(
        "--queries", type=cli.positive_int, default=100, help="cuts; clips per cell"
    )
    parser.add_argument(
        "--seconds", type=cli.numbers(1.0, 60.0), default="1,2,5", help="clip lengths, s"
    )
    parser.add_argument(
        "--snr", type=cli.numbers(-60.0, 120.0), default="0,10,20", help="ratios, dB"
    )
    parser.add_argument(
        "--keep-out", type=cli.positive_int, default=3, metavar="N", help="every N-th is unknown"
    )
    parser.add_argument("--fpr", type=_rate, default=0.01, help="false-positive rate, 0..1")
    parser.add_argument(
        "--system",
        type=_system,
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another program, with {references} and {queries}; may be given again",
    )
    parser.add_argument("--seed", type=int, default=0, help="of cuts, noise and impulse responses")
    parser.add_argument(
        "--workers", type=cli.positive_int, help="grafp's encoders; default: one for each CPU"
    )
    chosen = parser.parse_args(arguments)
    names = [name for name, _ in chosen.system]
    if twice := {name for name in names if names.count(name) > 1}:
        parser.error(f"argument --system: {twice.pop()} is named twice")
    return chosen


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share of 0 or more and below 1")
    return value


def _system(text: str) -> tuple[str, list[str]]:
    name, _, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    if not re.fullmatch(r"\w[\w.-]*", name) or name in (OURS, CHROMAPRINT) or not words:
        raise argparse.ArgumentTypeError(f"{text!r} is not a new NAME=COMMAND")
    for table in ("{references}", "{queries}"):
        if table not in command:
            raise argparse.ArgumentTypeError(f"{text!r}: the command lacks {table}")
    return name, words


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from peer_systems.run import answer_with_grafp, answer_with_program

    from grafp import storage
    from grafp.errors import OptionError
    from pipelines.common.work import Encoders

    out = storage.absolute(chosen.out)
    if "://" in out or "://" in chosen.corpus:
        raise OptionError("--corpus and --out: other programs need files on local disk")
    if storage.list_files(out, may_be_missing=True):
        raise OptionError(f"--out {chosen.out}: holds files; name a new folder")
    music, queries = _write_files(chosen, out)
    outcomes = {OURS: answer_with_grafp(out, chosen.model, Encoders(chosen.workers))}
    outcomes[CHROMAPRINT] = _chromaprint(out)
    for name, command in chosen.system:
        print(f"{name}: {shlex.join(command)}")
        outcomes[name] = answer_with_program(name, command, out)
    result = _tables(queries, music, outcomes, chosen.fpr)
    storage.write(f"{out}/peers.json", json.dumps(result, indent=1).encode())
    failed = any(outcomes[name].missing for name, _ in chosen.system)
    return result, cli.FAILED if failed else cli.DONE


def _write_files(chosen: argparse.Namespace, out: str) -> "tuple[list[Item], list[Query]]":
    """Draw and write the queries; returns the test music too."""
    from peer_systems.run import write_files

    from grafp import storage
    from grafp.datasets import Kind, list_part, waveforms
    from grafp.errors import OptionError
    from grafp.evaluation.protocol import draw_clips

    def of_test(kind: Kind) -> "list[Item]":
        return list_part(kind, storage.join(chosen.corpus, f"{kind}.csv"), "test")

    listed = of_test("music")
    music = [replace(item, uri=item.location) for item in listed]  # the path that all are given
    unknown = {item.uri for item in music[:: chosen.keep_out]}
    least = max(chosen.seconds) + 1
    usable = [item.uri for item in music if float(item.row.get("seconds") or least) >= least]
    if not usable:
        raise OptionError(f"--seconds: no music for testing lasts {least:g} s")
    noises, rirs = waveforms(of_test("noise")), waveforms(of_test("rir"))
    if not noises or not rirs:
        raise OptionError(
            f"--corpus {chosen.corpus}: needs noise and impulse responses for testing"
        )
    clips = draw_clips(
        usable,
        seconds=chosen.seconds,
        snr_db=chosen.snr,
        queries=chosen.queries,
        seed=chosen.seed,
    )
    queries = write_files(music, unknown, clips, noises, rirs, out)
    from_unknown = sum(query.track is None for query in queries)
    print(
        f"{len(music) - len(unknown)} references; {len(queries)} queries, "
        f"{from_unknown} of them of unknown tracks"
    )
    return music, queries


def _chromaprint(out: str) -> "Outcome":
    from peer_systems.run import Outcome, answer_with_program

    if shutil.which("fpcalc") is None:
        return Outcome({}, missing="not there: fpcalc is not installed (libchromaprint-tools)")
    program = str(Path(__file__).with_name("fpcalc_match.py"))
    tables = ["--references", "{references}", "--queries", "{queries}"]
    print(f"{CHROMAPRINT}: fpcalc, compared by brute force")
    return answer_with_program(CHROMAPRINT, [sys.executable, program, *tables], out)


def _tables(
    queries: "list[Query]", music: "list[Item]", outcomes: "dict[str, Outcome]", fpr: float
) -> dict:
    """Print everything; returns it for JSON."""
    from peer_systems.answers import as_json, cells, markdown, match_at_fpr

    from pipelines.evaluating.material import self_repeating

    loops = self_repeating(music)  # scored by track only
    done, tables, systems = {}, {}, {}
    for name, outcome in outcomes.items():
        systems[name] = {"missing": outcome.missing}
        if outcome.missing is None:
            answers, done[name] = match_at_fpr(queries, outcome.found, fpr)
            answers = [
                replace(a, true_start_s=None) if a.true_track in loops else a for a in answers
            ]
            tables[name] = cells(queries, answers)
            systems[name] = {
                "index_s": outcome.index_s and round(outcome.index_s, 2),
                "query_s": outcome.query_s and round(outcome.query_s, 2),
                "answered": len(outcome.found),
                "thresholds": {f"{s:g} s": vars(limit) for s, limit in done[name].items()},
                "cells": as_json(tables[name]),
            }
    print(markdown(tables, fpr))
    lengths = sorted({query.clip.seconds for query in queries})
    head = ["system", "indexing, s", "queries, s", "answered"]
    head += [f"threshold at {length:g} s (unknown accepted)" for length in lengths]
    print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for name, outcome in outcomes.items():
        row = [outcome.missing or "", "", ""]
        if name in done:
            row = ["-" if s is None else f"{s:.1f}" for s in (outcome.index_s, outcome.query_s)]
            row.append(f"{len(outcome.found)} of {len(queries)}")
        for limit in done.get(name, {}).values():
            least = "none" if limit.score is None else f"{limit.score:.4g}"
            row.append(f"{least} ({limit.accepted} of {limit.unknown})")
        row += [""] * (len(head) - 1 - len(row))
        print("| " + " | ".join([name, *row]) + " |")
    known = {query.track for query in queries} - {None}
    sources = {query.clip.track for query in queries}
    return {
        "queries": len(queries),
        "unknown": sum(query.track is None for query in queries),
        "tracks": len(known),
        "unknown_tracks": len(sources - known),
        "fpr": fpr,
        "systems": systems,
    }


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
