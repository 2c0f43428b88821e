#!/usr/bin/env python3
"""How well distractors deceive: beside as many real tracks, on validation music.

    python benchmarks/distractors.py --corpus CORPUS --out out/distractors

CORPUS holds music.csv, noise.csv and rir.csv with columns path and split. The tracks of the train
split that jobs/train.py holds out are asked; half of the others are real tracks to compare with,
and of the other half distractors are mixed. Each row says, in quantiles, how near clean
fingerprints of the held-out tracks come to one of the set (`nearest`), and the best score that
degraded clips of 1, 2 and 5 s reach in it, always a wrong one, all alignments tried. The tracks to
mix matter little if few of them deceive as well as many. The last row is the mean inner product of
each distractor with the first of its tracks.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from acceptance_clips import degraded

from pipelines.common import cli

LENGTHS_S = (1.0, 2.0, 5.0)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FEW = 30  # tracks
_EVERY = 40  # clean fingerprint of a track is asked
_AT_ONCE = 64


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="URI", help="folder of the tables")
    parser.add_argument("--out", default="out/distractors", metavar="DIR", help="catalog and clips")
    parser.add_argument("--model", default="small", metavar="NAME|URI", help="the model")
    parser.add_argument("--clips", type=cli.positive_int, default=340, help="of each length")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from grafp import storage
    from grafp.catalog.catalog import Catalog
    from grafp.storage.sources import held_out, list_items
    from pipelines.common.runtime import connect
    from pipelines.evaluating.distractors import distractor
    from pipelines.indexing.flow import index_catalog

    connect()
    every = list_items(storage.join(chosen.corpus, "music.csv"))
    train = [item for item in every if item.row.get("split") == "train"]
    index_catalog(train, f"{chosen.out}/catalog", model=chosen.model)
    held = [i for i in train if held_out(i) and float(i.row.get("seconds") or 60) >= 11]
    clips = degraded(chosen, "validation", held, chosen.clips, (0, 20), 0.5, "validation")
    tracks = _fingerprints(Catalog.open_published(f"{chosen.out}/catalog"))
    asked = [tracks[item.uri] for item in held]
    names = sorted(item.uri for item in train if not held_out(item))
    mixed = np.random.default_rng(0).permutation(len(names))
    real, material = ([tracks[names[n]] for n in half] for half in np.array_split(mixed, 2))
    count = sum(map(len, real))
    sets = {"real tracks": real, "real tracks, the other half": material}
    for few in (len(material), _FEW):
        some = material[:few]
        sets[f"distractors of {len(some)} tracks"] = [distractor(some, n) for n in range(len(real))]
    clean_QD = np.concatenate([track_ND[::_EVERY] for track_ND in asked])
    summary: dict[str, Any] = {}
    print(f"quantiles {', '.join(f'{q:g}' for q in _QUANTILES)}")
    for name, vectors in sets.items():
        vectors_ND = np.concatenate(vectors)[:count].astype(np.float32)
        found = {"nearest": _best(clean_QD[clean_QD.any(axis=1)][:, None], vectors_ND)}
        for seconds in LENGTHS_S:
            length = round((seconds - 1) * 10) + 1
            found[f"{seconds:g} s"] = _best(clips.vectors_NMD[:, :length], vectors_ND)
        summary[name] = {key: _quantiles(scores_Q) for key, scores_Q in found.items()}
        cells = (f"{key} {_shown(values)}" for key, values in summary[name].items())
        print(f"{name}, {len(vectors_ND):,} fingerprints: {'; '.join(cells)}")
    own = [
        np.einsum("nd,nd->n", invented_ND, track_ND.astype(np.float32)).mean()
        for invented_ND, track_ND in zip(sets[f"distractors of {len(material)} tracks"], material)
    ]
    summary["with its own track"] = _quantiles(np.array(own))
    print(f"with its own track: {_shown(summary['with its own track'])}")
    return summary, cli.DONE


def _fingerprints(catalog: Any) -> dict[str, np.ndarray]:
    """Of every track, by URI, float16."""
    from grafp.catalog.embeddings import by_file, read_fingerprints
    from grafp.catalog.tracks import live_refs

    uris = catalog.live_tracks()
    return {
        uris[ref.ordinal][0]: vectors_ND
        for key, refs in by_file(live_refs(catalog.tracks()).values()).items()
        for ref, vectors_ND in read_fingerprints(catalog.root, key, refs)
    }


def _best(queries_QMD: np.ndarray, vectors_ND: np.ndarray) -> np.ndarray:
    """The best score of each query at any start, (queries,); tracks lie end to end."""
    length = queries_QMD.shape[1]
    starts = len(vectors_ND) - length + 1
    best_Q = []
    for first in range(0, len(queries_QMD), max(1, _AT_ONCE // length)):
        part_QMD = queries_QMD[first : first + max(1, _AT_ONCE // length)].astype(np.float32)
        products_QMN = part_QMD @ vectors_ND.T
        sums_QN = sum(products_QMN[:, m, m : m + starts] for m in range(length))
        best_Q += (sums_QN.max(axis=1) / length).tolist()
    return np.array(best_Q)


def _quantiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(values, _QUANTILES)]


def _shown(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
