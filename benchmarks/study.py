#!/usr/bin/env python3
"""What each choice of the training recipe is worth: one change at a time, one budget.

    python benchmarks/study.py --corpus CORPUS --out out/study

CORPUS holds music.csv, noise.csv and rir.csv. Every variant is trained from random weights on the
train split, with the same number of pairs and the same seed, and validated on the tenth of it that
jobs/train.py holds out: the share of degraded 1 s clips whose nearest fingerprint of all lies
within 50 ms of the truth. One thread each. The baselines and the reference recipe are variants
too, with learning rates of their own. OUT/study.json keeps what is done: a run that was
stopped goes on, and --only chooses variants. For what the models are worth on the test split:

    python benchmarks/accuracy.py --corpus CORPUS --model OUT/models/nafp --out out/nafp
"""

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.common import cli

if TYPE_CHECKING:
    from grafp.training.trainer import Trainer

# name: changes of TrainConfig, of AugmentConfig, of EncoderConfig
VARIANTS: dict[str, tuple[dict, dict, dict]] = {
    "small": ({}, {}, {}),
    "another seed": ({"seed": 1}, {}, {}),
    "no graph: k 1": ({}, {}, {"neighbors": 1}),
    "k 2": ({}, {}, {"neighbors": 2}),
    "k 8": ({}, {}, {"neighbors": 8}),
    "mean of nodes": ({}, {}, {"readout": 0}),
    "three stages": ({}, {}, {"channels": (64, 128, 256), "blocks": (2, 2, 4), "readout": 64}),
    "three stages, mean of nodes": (
        {},
        {},
        {"channels": (64, 128, 256), "blocks": (2, 2, 4), "readout": 0},
    ),
    "one stage": ({}, {}, {"channels": (96,), "blocks": (6,), "readout": 8}),
    "grid 16 x 16": ({}, {}, {"stem": ((24, 5, 2, 2), (48, 3, 2, 1)), "readout": 16}),
    "grid 8 x 16": ({}, {}, {"stem": ((24, 5, 4, 2), (48, 3, 2, 1))}),
    "widths 48, 128": ({}, {}, {"channels": (48, 128)}),
    "widths 96, 288": ({}, {}, {"channels": (96, 288)}),
    "depth 2, 2": ({}, {}, {"blocks": (2, 2)}),
    "head 256": ({}, {}, {"head": (256,)}),
    "head 1024, 4096": ({}, {}, {"head": (1024, 4096)}),
    "batch 32": ({"pairs": 0.5}, {}, {}),
    "batch 128": ({"pairs": 2.0}, {}, {}),
    "tau 0.025": ({"temperature": 0.025}, {}, {}),
    "tau 0.1": ({"temperature": 0.1}, {}, {}),
    "one segment a track": ({"per_track": 1}, {}, {}),
    "four segments a track": ({"per_track": 4}, {}, {}),
    "noise 0 to 20 dB": ({}, {"snr_db": (0.0, 20.0)}, {}),
    "noise -8 to 12 dB": ({}, {"snr_db": (-8.0, 12.0)}, {}),
    "impulse responses for half": ({}, {"reverb": 0.5}, {}),
    "no past in reverb": ({}, {"dry_past": 1.0}, {}),
    "noise before reverb": ({}, {"order": "noise-room"}, {}),
    "devices": ({}, {"loudspeaker": 0.3, "microphone": 0.3, "drive": 0.2}, {}),
    "codecs": ({}, {"codec": 0.1}, {}),
    "speed": ({}, {"speed": 0.2}, {}),
    "masks": ({}, {"time_mask": 0.3, "frequency_mask": 0.3}, {}),
    "reference recipe": (
        {"learning_rate": 8e-5, "per_track": 1, "weight_decay": 0.0, "warm_up": 0.0},
        {
            "reverb": 1.0,
            "dry_past": 1.0,
            "noise": 1.0,
            "second_noise": 0.0,
            "music_noise": 0.0,
            "snr_db": (0.0, 20.0),
        },
        {},
    ),
    "ast": ({"preset": "ast", "learning_rate": 2e-4}, {}, {}),
    "nafp": ({"preset": "nafp", "learning_rate": 3e-4}, {}, {}),
    "ast-small": ({"preset": "ast-small", "learning_rate": 3e-4}, {}, {}),
}


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="URI", help="folder of the tables")
    parser.add_argument("--out", default="out/study", metavar="URI", help="results")
    parser.add_argument("--steps", type=cli.positive_int, default=300, help="of --pairs pairs")
    parser.add_argument("--pairs", type=cli.positive_int, default=64, help="in a batch")
    parser.add_argument("--keep", action="store_true", help="keep every model, in OUT/models")
    parser.add_argument("--only", metavar="NAME;...", help="these variants; default: all")
    chosen = parser.parse_args()
    chosen.only = chosen.only.split(";") if chosen.only else list(VARIANTS)
    if unknown := set(chosen.only) - set(VARIANTS):
        parser.error(f"--only: no variant {unknown.pop()!r}; there are {'; '.join(VARIANTS)}")
    return chosen


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    import torch

    from grafp import storage

    torch.set_num_threads(1)
    kept = storage.join(chosen.out, "study.json")
    done = json.loads(storage.read(kept)) if storage.stat(kept) else {}
    study = None
    for name in chosen.only:
        if name in done:
            continue
        study = study or Study(
            chosen.corpus, chosen.out, chosen.steps, chosen.pairs, keep=chosen.keep
        )
        done[name] = study.run(name)
        storage.write(kept, json.dumps(done, indent=1).encode())
        print(f"{name}: {done[name]}")
    _table(done)
    return {"variants": len(done), "results": done}, cli.DONE


class Study:
    """The corpus in memory, and the clips that all variants are validated with."""

    def __init__(
        self, corpus: str, out: str, steps: int, pairs: int, *, keep: bool = False
    ) -> None:
        import torch

        from grafp import storage
        from grafp.training.augment import Augmenter
        from grafp.training.data.partition import Budget
        from grafp.training.data.sampler import TrainingSet
        from grafp.training.validation import Validation
        from pipelines.training.prepare import collect_all, list_sources
        from pipelines.training.worker import VALIDATION_AUGMENT

        tables = {"music": "music.csv", "noise": "noise.csv", "rir": "rir.csv"}
        sources = list_sources({k: storage.join(corpus, v) for k, v in tables.items()})
        out = storage.absolute(out)
        store = storage.join(out, "data")
        collected = collect_all(sources, store, out, resume=False, on_ray=False)
        device = torch.device("cpu")
        everything = Budget.given(1000.0, device)
        self.data = TrainingSet.open(collected, everything, device, 0, 0, 1)
        self.steps, self.pairs = steps, pairs
        self.models = storage.join(out, "models") if keep else None
        held = self.data.validation
        assert held is not None
        augmenter = Augmenter(held.noises, held.rirs, VALIDATION_AUGMENT, device)
        self.validation = Validation.build(held.tracks, augmenter, queries=2000)

    def run(self, name: str) -> dict:
        """Train a variant; what it is worth."""
        from grafp import storage
        from grafp.evaluation.metrics import Rate
        from grafp.model.bundle import save_bundle

        started = time.process_time()
        trainer = self.train(name)
        if self.models:
            folder = "".join(c if c.isalnum() else "-" for c in name)
            card = {"preset": trainer.config.preset, "variant": name}
            card["training"] = trainer.config.to_dict()
            correction_s = self.validation.offset_correction(trainer.encoder, trainer.device)
            card["offset_correction_s"] = round(correction_s, 4)
            save_bundle(storage.join(self.models, folder), trainer.encoder, card)
        rate = self.validation.hit_rate(trainer.encoder, trainer.device)
        hits = round(rate * len(self.validation.truth_B))
        return {
            "hit_rate": Rate(hits, len(self.validation.truth_B)).to_dict(),
            "parameters": trainer.encoder.parameter_count(),
            "loss": round(trainer.progress.loss, 3),
            "cpu_seconds": round(time.process_time() - started),
        }

    def train(self, name: str) -> "Trainer":
        import torch

        from grafp.model.presets import PRESETS
        from grafp.training.augment import Augmenter
        from grafp.training.config import AugmentConfig, TrainConfig
        from grafp.training.data.sampler import PairSampler
        from grafp.training.trainer import Trainer

        recipe, augment, encoder = VARIANTS[name]
        share = recipe.get("pairs", 1.0)  # a batch twice as large has half as many steps
        recipe = {**recipe, "pairs": round(self.pairs * share)}
        config = TrainConfig(
            steps=round(self.steps / share),
            augment=AugmentConfig(**augment),
            **recipe,
        )
        sampler = PairSampler(self.data.music, config.pairs, config.per_track)
        device = torch.device("cpu")
        augmenter = Augmenter(self.data.noises, self.data.rirs, config.augment, device)
        trainer = Trainer(
            config,
            sampler,
            augmenter,
            None,
            device,
            architecture=replace(PRESETS["small"], **encoder) if encoder else None,
        )
        trainer.run(lambda *_: None)
        return trainer


def _table(done: dict) -> None:
    base = done.get("small", {}).get("hit_rate", {}).get("rate", math.nan)
    print("| variant | within 50 ms, % | against small | parameters, M | CPU seconds |")
    print("|---|---|---|---|---|")
    for name in (name for name in VARIANTS if name in done):
        row = done[name]
        rate = row["hit_rate"]
        print(
            f"| {name} | {100 * rate['rate']:.1f} ({100 * rate['low']:.1f} to "
            f"{100 * rate['high']:.1f}) | {100 * (rate['rate'] - base):+.1f} | "
            f"{row['parameters'] / 1e6:.1f} | {row['cpu_seconds']} |"
        )


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
