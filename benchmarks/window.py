#!/usr/bin/env python3
"""Fingerprints of two seconds against fingerprints of one, for clips of two seconds.

    python benchmarks/window.py --corpus CORPUS --out out/window

Both networks are `small`, trained as benchmarks/study.py does and with as many pairs. Spectrograms
have the same size: those of 2 s have their frames twice as far apart, so that a step costs about
the same. The score is the share of degraded clips of 2 s of the validation part, off the grid, that
are found within 50 ms, by one fingerprint of 2 s, or by the 11 of 1 s that fit into a clip (eq. 8).
A fingerprint of 2 s cannot answer a clip of 1 s.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
from study import Study

from pipelines.common import cli

_HOP = 1600


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="URI", help="folder of the tables")
    parser.add_argument("--out", default="out/window", help="a folder for decoded audio and clips")
    parser.add_argument("--steps", type=cli.positive_int, default=300, help="of --pairs pairs")
    parser.add_argument("--pairs", type=cli.positive_int, default=64, help="in a batch")
    parser.add_argument("--window", type=int, choices=(1, 2), help=argparse.SUPPRESS)
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    clips = os.path.join(chosen.out, "clips.npz")
    if chosen.window is None:  # each in a process: the length is a constant that modules take up
        for window in ("2", "1"):  # the first makes the clips
            subprocess.run([sys.executable, *sys.argv, "--window", window], check=True)
        return {}, cli.DONE
    if chosen.window == 2:
        _lengthen()
    import torch

    from grafp.evaluation.metrics import Rate

    torch.set_num_threads(1)
    study = Study(chosen.corpus, chosen.out, chosen.steps, chosen.pairs)
    if chosen.window == 2:
        held = study.validation
        np.savez(clips, queries=held.query_BS.numpy(), truth=held.truth_B.numpy())
    with np.load(clips) as kept:
        query_BS, truth_B = kept["queries"], kept["truth"]
    nearest_B = _nearest(study, query_BS)
    hits = int((np.abs(nearest_B - truth_B) <= 800).sum())
    rate = Rate(hits, len(truth_B)).to_dict()
    print(f"fingerprints of {chosen.window} s: {rate}")
    return {"window": chosen.window, **rate}, cli.DONE


def _lengthen() -> None:
    """Make segments 2 s long, before anything else takes up their length."""
    from grafp.model import fingerprint

    fingerprint.SEGMENT_SAMPLES *= 2
    from grafp.audio import mixing
    from grafp.model.spectrogram import DEFAULT, SPECTROGRAMS

    # 31 hops and a window are 31,993 samples.
    SPECTROGRAMS[DEFAULT.name] = replace(DEFAULT, hop=999)
    mixing._FFT_SAMPLES *= 2


def _nearest(study: Study, query_BS: np.ndarray) -> np.ndarray:
    """Start of the best alignment of each clip with the validation tracks, (clips,)."""
    import torch

    from grafp.model.inference import Fingerprinter

    fingerprint = Fingerprinter.from_encoder(study.train("small").encoder)
    assert study.data.validation
    best_B = np.full(len(query_BS), -np.inf)
    nearest_B = np.zeros(len(query_BS), np.int64)
    query_BMD = np.stack([fingerprint(query_S) for query_S in query_BS])
    for number, track in enumerate(study.data.validation.tracks):
        samples_S = track[: 30 * 16_000].to(torch.float32).numpy() / 32768
        reference_RD = fingerprint(samples_S)
        starts = len(reference_RD) - query_BMD.shape[1] + 1
        score_BR = sum(
            query_BMD[:, m] @ reference_RD[m : m + starts].T for m in range(query_BMD.shape[1])
        )
        better_B = score_BR.max(axis=1) > best_B
        best_B = np.maximum(best_B, score_BR.max(axis=1))
        nearest_B[better_B] = (number << 32) + _HOP * score_BR.argmax(axis=1)[better_B]
    return nearest_B


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
