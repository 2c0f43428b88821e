#!/usr/bin/env python3
"""Hit rates on a corpus's test split: noise alone and noise in a room, by length and SNR.

    python benchmarks/accuracy.py --corpus CORPUS --out out/accuracy

CORPUS holds music.csv, noise.csv and rir.csv with columns path and split (music.csv may have
self_repeat: tracks that repeat themselves exactly for more than 45 % are scored by track only).
The test music is indexed whole; clips are cut at random samples, off the fingerprint grid, and
degraded with test noise and test rooms at a ratio measured on the clip. Every cell is
`right track / within 50 ms` in %, with 95 % intervals in OUT/accuracy.json.

--split validation is for choices: the train split is indexed, and the tenth of it that
jobs/train.py sets apart makes the queries. --keep-out 3 leaves every third of the queried tracks
out of the catalogue and shows which --min-score would refuse how many of their clips.
"""

import argparse
import json
import sys

from pipelines import cli


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--corpus", required=True, metavar="URI", help="folder with the three tables"
    )
    parser.add_argument(
        "--out", default="out/accuracy", metavar="URI", help="catalogue and results"
    )
    parser.add_argument("--model", default="small", metavar="NAME|URI", help="model to judge")
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
    parser.add_argument("--seed", type=int, default=0, help="of cuts, noise and rooms")
    parser.add_argument(
        "--workers", type=cli.positive_int, help="encoders; default: one a processor"
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp import storage
    from grafp.clips import draw_clips
    from grafp.collection import list_items
    from grafp.grid import grid, markdown
    from grafp.grid import summary as grid_summary
    from pipelines.evaluate import Material, evaluate, waveforms
    from pipelines.index import index_catalogue

    items = _items(chosen, "music")
    unknown = {item.uri for item in items[:: chosen.keep_out]} if chosen.keep_out else set()
    indexed = items
    if chosen.split == "validation":  # what was trained on stands in for a larger catalogue
        music = list_items(storage.join(chosen.corpus, "music.csv"))
        indexed = [item for item in music if item.row["split"] == "train"]
    indexed = [item for item in indexed if item.uri not in unknown]
    catalogue = storage.join(chosen.out, "catalogue")
    index_catalogue(indexed, catalogue, model=chosen.model, workers=chosen.workers, say=cli.say)
    usable = [item for item in items if float(item.row.get("seconds") or 60) >= 6.0]
    clips = draw_clips(
        [item.uri for item in usable],
        seconds=chosen.seconds,
        snr_db=chosen.snr,
        queries=chosen.queries,
        seed=chosen.seed,
    )
    noises, rooms = (waveforms(_items(chosen, name), cli.say) for name in ("noise", "rir"))
    material = Material(usable, [], noises, rooms)
    answers = evaluate(catalogue, material, clips, workers=chosen.workers, say=cli.say)
    summary = grid_summary(clips, answers)
    cli.say(markdown(grid(clips, answers)))
    cli.say(f"\nOffset error of right tracks, ms: {summary['offset_error_ms']}")
    if unknown:
        summary["min_score"] = _thresholds(clips, answers, chosen.seconds)
    storage.write(storage.join(chosen.out, "accuracy.json"), json.dumps(summary, indent=1).encode())
    return {"queries": len(clips), **summary}, cli.DONE


def _items(chosen: argparse.Namespace, name: str) -> list:
    """The rows of one table that belong to the split."""
    from grafp import storage
    from grafp.collection import list_items
    from grafp.data import held_out

    table = storage.join(chosen.corpus, f"{name}.csv")
    if chosen.split == "test":
        return [item for item in list_items(table) if item.row.get("split") == "test"]
    return [i for i in list_items(table) if i.row.get("split") == "train" and held_out(i)]


def _thresholds(clips: list, answers: list, seconds: list[float]) -> dict:
    """Print what each threshold lets pass of unknown music and keeps of known music."""
    cli.say("\nUnknown clips accepted / known clips accepted and right, %")
    cli.say("| min score | " + " | ".join(f"{length:g} s" for length in seconds) + " |")
    cli.say("|---" * (len(seconds) + 1) + "|")
    rows: dict[str, dict] = {}
    for threshold in (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85):
        row = {}
        for length in seconds:
            group = [a for c, a in zip(clips, answers) if c.seconds == length]
            known = [a for a in group if a.true_track is not None]
            wrong = sum((a.score or 0.0) >= threshold for a in group if a.true_track is None)
            right = sum((a.score or 0.0) >= threshold and a.right_track for a in known)
            shares = 100 * wrong / (len(group) - len(known)), 100 * right / len(known)
            row[f"{length:g} s"] = [round(share, 2) for share in shares]
        cells = (f"{wrong:.1f} / {right:.1f}" for wrong, right in row.values())
        cli.say(f"| {threshold:g} | " + " | ".join(cells) + " |")
        rows[f"{threshold:g}"] = row
    return rows


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
