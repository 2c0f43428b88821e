#!/usr/bin/env python3
"""Hit rates on a corpus's test split, with noise and with noise and reverb, by length and SNR.

    python benchmarks/accuracy.py --corpus CORPUS --out out/accuracy

CORPUS holds music.csv, noise.csv and rir.csv with columns path and split (music.csv may have
self_repeat: tracks that repeat themselves exactly for more than 45 % are scored by track only).
The test music is indexed whole; clips are cut at random samples, off the fingerprint grid, and
degraded with test noise and test impulse responses at a ratio measured on the clip. Every cell is
`right track / within 50 ms` in %, with 95 % intervals in OUT/accuracy.json.

--split validation is for choices: the train split is indexed, and the queries come from the tenth
of it that jobs/train.py sets apart. --keep-out 3 leaves every third of the queried tracks out of
the catalog and compares target false-positive rates with measured ones; OUT/unknown.csv names
these tracks for jobs/evaluate.py.
"""

import argparse
import csv
import io
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING

from pipelines.common import cli

if TYPE_CHECKING:
    from grafp.evaluation.hit_rates import ClipAnswer


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--corpus", required=True, metavar="URI", help="folder with the three tables"
    )
    parser.add_argument("--out", default="out/accuracy", metavar="URI", help="catalog and results")
    parser.add_argument("--model", default="small", metavar="NAME|URI", help="model to evaluate")
    parser.add_argument(
        "--hop", type=cli.positive_float, metavar="S", help="the catalog's, s; default: 0.1"
    )
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument(
        "--queries", type=cli.positive_int, default=1000, help="cuts; clips per cell"
    )
    parser.add_argument(
        "--keep-out", type=cli.positive_int, metavar="N", help="every N-th track is unknown"
    )
    parser.add_argument(
        "--seconds", type=cli.numbers(1.0, 60.0), default="1,2,3,5", help="clip lengths, s"
    )
    parser.add_argument(
        "--snr", type=cli.numbers(-60.0, 120.0), default="0,5,10,20", help="ratios, dB"
    )
    parser.add_argument("--seed", type=int, default=0, help="of cuts, noise and impulse responses")
    parser.add_argument(
        "--workers", type=cli.positive_int, help="encoders; default: one for each CPU"
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp import storage
    from grafp.datasets import waveforms
    from grafp.evaluation.hit_rates import grid, markdown
    from grafp.evaluation.hit_rates import summary as grid_summary
    from grafp.evaluation.protocol import draw_clips
    from grafp.storage.sources import list_items
    from pipelines.common.work import Encoders
    from pipelines.evaluating.flow import evaluate
    from pipelines.evaluating.material import Material
    from pipelines.indexing.flow import index_catalog

    items = part(chosen.corpus, chosen.split, "music")
    unknown = {item.uri for item in items[:: chosen.keep_out]} if chosen.keep_out else set()
    indexed = items
    if chosen.split == "validation":  # what was trained on stands in for a larger catalog
        music = list_items(storage.join(chosen.corpus, "music.csv"))
        indexed = [item for item in music if item.row["split"] == "train"]
    indexed = [item for item in indexed if item.uri not in unknown]
    catalog = storage.join(chosen.out, "catalog")
    index_catalog(
        indexed,
        catalog,
        model=chosen.model,
        hop_s=chosen.hop,
        encoders=Encoders(chosen.workers),
    )
    if unknown:
        table = io.StringIO()
        left_out = [[item.location] for item in items if item.uri in unknown]
        csv.writer(table).writerows([["path"], *left_out])
        storage.write(storage.join(chosen.out, "unknown.csv"), table.getvalue().encode())
    usable = [item for item in items if float(item.row.get("seconds") or 60) >= 6.0]
    clips = draw_clips(
        [item.uri for item in usable],
        seconds=chosen.seconds,
        snr_db=chosen.snr,
        queries=chosen.queries,
        seed=chosen.seed,
    )
    noises, rirs = (waveforms(part(chosen.corpus, chosen.split, name)) for name in ("noise", "rir"))
    material = Material(usable, [], noises, rirs)
    answers = evaluate(catalog, material, clips, encoders=Encoders(chosen.workers))
    summary = grid_summary(clips, answers)
    print(markdown(grid(clips, answers)))
    print(f"\nOffset error of right tracks, ms: {summary['offset_error_ms']}")
    if unknown:
        summary["refusals"] = _refusals(clips, answers, chosen.seconds)
        summary["accepted_from"] = _false_sources(clips, answers)
    storage.write(storage.join(chosen.out, "accuracy.json"), json.dumps(summary, indent=1).encode())
    return {"queries": len(clips), **summary}, cli.DONE


def part(corpus: str, split: str, name: str) -> list:
    """The rows of one table that belong to the split, "test" or "validation"."""
    from grafp import storage
    from grafp.storage.sources import held_out, list_items

    table = storage.join(corpus, f"{name}.csv")
    if split == "test":
        return [item for item in list_items(table) if item.row.get("split") == "test"]
    return [i for i in list_items(table) if i.row.get("split") == "train" and held_out(i)]


def _refusals(clips: list, answers: list, seconds: list[float]) -> dict:
    """Print the shares of unknown and known clips accepted at each target false-positive rate."""
    from grafp.evaluation.metrics import Rate

    rows: dict[str, dict] = {}
    print("\nUnknown clips accepted / known clips accepted with the right track, %")
    print("| target | " + " | ".join(f"{length:g} s" for length in seconds) + " |")
    print("|---" * (len(seconds) + 1) + "|")
    for rate in (0.1, 0.01, 0.001):
        cells = []
        for length in seconds:
            group = [a for clip, a in zip(clips, answers, strict=True) if clip.seconds == length]
            unknown = [_is_accepted(a, rate) for a in group if a.true_track is None]
            known = [
                _is_accepted(a, rate) and a.right_track for a in group if a.true_track is not None
            ]
            accepted, kept = Rate(sum(unknown), len(unknown)), Rate(sum(known), len(known))
            cells.append(f"{100 * accepted.value:.2f} / {100 * kept.value:.1f}")
            rows.setdefault(f"{rate:g}", {})[f"{length:g} s"] = {
                "unknown_accepted": accepted.to_dict(),
                "known_kept": kept.to_dict(),
            }
        print(f"| {100 * rate:g} % | " + " | ".join(cells) + " |")
    return rows


def _is_accepted(answer: "ClipAnswer", rate: float) -> bool:
    return answer.false_positive_rate is not None and answer.false_positive_rate <= rate


def _false_sources(clips: list, answers: list) -> dict[str, int]:
    """The unknown tracks most like the catalog: how many of the lowest 1 % of rates are theirs."""
    unknown = [
        (-(answer.false_positive_rate or 0.0), clip.track)
        for clip, answer in zip(clips, answers, strict=True)
        if answer.true_track is None and clip.seconds == max(c.seconds for c in clips)
    ]
    highest = sorted(unknown, reverse=True)[: max(1, len(unknown) // 100)]
    return dict(Counter(track for _, track in highest).most_common(5))


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
