#!/usr/bin/env python3
"""Train an encoder on a music collection and leave a model bundle under OUT/model.

    python jobs/train.py --music music/ --noise noise/ --rir rooms/ --out runs/first --minutes 60
    python jobs/train.py --out runs/first --resume

Exit code: 0 done, 1 failed, 2 bad arguments.
"""

import argparse
import sys

from pipelines.common import cli


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--music",
        metavar="URI",
        help="folder or prefix, or CSV / Parquet with path and optional split, group columns",
    )
    parser.add_argument("--out", required=True, metavar="URI", help="folder or prefix of this run")
    parser.add_argument(
        "--noise", metavar="URI", help="background noise, like --music; default: none"
    )
    parser.add_argument(
        "--rir", metavar="URI", help="room impulse responses, like --music; default: none"
    )
    parser.add_argument(
        "--data",
        metavar="URI",
        help="where the decoded music, noise and rooms are kept; other runs on the same can "
        "share it; default: data under --out",
    )
    parser.add_argument(
        "--memory-gb",
        type=cli.positive_float,
        metavar="X",
        help="music that a worker may hold, GB; what does not fit is streamed; default: half of "
        "what is free, divided by the workers on a machine",
    )
    parser.add_argument(
        "--preset",
        choices=("small", "grafprint", "nafp", "ast", "ast-small"),
        default="small",
        help="architecture: the graph network of the paper (grafprint) or a smaller one for "
        "processors (small); to compare with, the paper's baselines: a convolutional network "
        "(nafp), a transformer (ast) and a smaller one (ast-small), which learn at lower rates: "
        "about 2e-4 for ast, 3e-4 for the others",
    )
    parser.add_argument(
        "--start-from",
        metavar="NAME|URI",
        help="model whose weights to begin with, to refine it; default: random weights",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=cli.positive_float,
        metavar="M",
        help="time to train for, minutes; default: 60, unless --steps is given",
    )
    length.add_argument(
        "--steps", type=cli.positive_int, metavar="N", help="optimizer steps to train for"
    )
    parser.add_argument(
        "--pairs",
        type=cli.positive_int,
        default=128,
        metavar="N",
        help="positive pairs in a batch, per worker",
    )
    parser.add_argument(
        "--per-track",
        type=cli.positive_int,
        default=2,
        metavar="N",
        help="neighboring segments of one track in a batch; the others are of other tracks",
    )
    parser.add_argument(
        "--accumulate",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="parts in which a worker embeds its batch, to save memory: one more forward pass",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="train with torch.compile: minutes of compiling first; slower on processors",
    )
    parser.add_argument(
        "--learning-rate",
        type=cli.positive_float,
        default=1e-3,
        metavar="X",
        help="peak of AdamW's learning rate",
    )
    parser.add_argument(
        "--offset-ms",
        type=float,
        default=50.0,
        metavar="MS",
        help="largest shift in time between the two views of a pair, up to 250 ms",
    )
    parser.add_argument(
        "--augment",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of AugmentConfig, such as codec=0.2 (a probability), snr_db=0:20 "
        "(a range) or order=noise-room; repeatable",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and augmentation")
    parser.add_argument(
        "--num-workers",
        type=int,
        default=1,
        metavar="N",
        help="Ray Train workers; 0 trains in this process, without Ray",
    )
    parser.add_argument(
        "--gpu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a GPU for each worker; default: if there",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run under --out, with the options that it was started with",
    )
    chosen = parser.parse_args(arguments)
    chosen.given = cli.given(parser, arguments)
    if chosen.num_workers < 0:
        parser.error(f"argument --num-workers: {chosen.num_workers} is below 0")
    if not 0 <= chosen.offset_ms <= 250:
        parser.error(f"argument --offset-ms: {chosen.offset_ms:g} is not between 0 and 250")
    if chosen.music is None and not chosen.resume:
        parser.error("the following arguments are required: --music")
    return chosen


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp.training.config import (
        AugmentConfig,
        TrainConfig,  # after the options: importing PyTorch takes seconds
    )
    from pipelines.training import run_file
    from pipelines.training.flow import train_model

    if chosen.resume:
        _as_started(chosen, run_file.read(chosen.out))
    elif chosen.minutes is None and chosen.steps is None:
        chosen.minutes = 60.0
    config = TrainConfig(
        preset=chosen.preset,
        steps=chosen.steps,
        minutes=chosen.minutes,
        pairs=chosen.pairs,
        per_track=chosen.per_track,
        accumulate=chosen.accumulate,
        compile=chosen.compile,
        learning_rate=chosen.learning_rate,
        offset_ms=chosen.offset_ms,
        augment=AugmentConfig.from_settings(chosen.augment),
        seed=chosen.seed,
    )
    summary = train_model(
        chosen.music,
        chosen.out,
        config,
        noise=chosen.noise,
        rirs=chosen.rir,
        start_from=chosen.start_from,
        data=chosen.data,
        memory_gb=chosen.memory_gb,
        num_workers=chosen.num_workers,
        gpu=chosen.gpu,
        resume=chosen.resume,
    )
    return summary, cli.DONE


def _as_started(chosen: argparse.Namespace, started: dict) -> None:
    """Where no option is given, a resumed run has the one that it was started with."""
    length = {"steps", "minutes"}
    given = chosen.given | (length if chosen.given & length else set())
    for name in vars(chosen).keys() & started.keys() - given:
        setattr(chosen, name, started[name])
    if "augment" not in given:
        chosen.augment = [
            f"{name}={':'.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in started.get("augment", {}).items()
        ]


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
