#!/usr/bin/env python3
"""Which answers are accepted: target false-positive rates against measured ones.

    python benchmarks/acceptance.py --corpus CORPUS --out out/acceptance

CORPUS holds music.csv, noise.csv and rir.csv with columns path and split. Every third track of the
split is unknown, the others are the catalog. Clips of 10 s are cut at random samples and degraded
with noise at 0 to 20 dB; half of them are reverberant. Up to five shorter clips are cut out of
each. Each table says `unknown clips accepted (of these not for a track of their own album) / known
clips accepted with the right track`, in %, for target rates of 1 %, 0.1 % and 0.01 %.

--split validation is for choices: the train split is the catalog, and the tenth of it that
jobs/train.py holds out gives the clips; without that tenth in the catalog they are unknown. It
prints parts of the score elsewhere (grafp.index.evidence), each with thresholds from the unknown
clips themselves.

Fingerprints of the clips are kept under OUT and used again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import ray
from acceptance_clips import (
    Clips,
    degraded,
    embedded,
    first_of,
    hum,
    of,
    speech,
    synthesized,
    tones,
)
from accuracy import part

from pipelines.common import cli

LENGTHS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
RATES = (0.01, 0.001, 0.0001)
_AT_ONCE = 1024
_PARTS = (0.01, 0.35, 0.5, 0.65, 0.8, 1.0)
_SIZES = (1, 5, 20)
_ENCODINGS = (("mp3", 0.0), ("ogg", 7.3), ("m4a", 0.0), ("mp3", 3.1))
"""Of the copies: format and how much of the beginning is cut off, s."""


@dataclass(frozen=True)
class Outcome:
    """The best answer to each clip, at one length."""

    track_N: list[str | None]
    reached_N: np.ndarray
    """Less what the clip is too steady."""
    elsewhere_N: np.ndarray
    """See grafp.index.evidence.Answer."""

    def evidence(self, part: float | None = None) -> np.ndarray:
        from grafp.index.evidence import FREE, PART

        most_N = np.maximum((part or PART) * self.elsewhere_N, self.elsewhere_N - FREE)
        evidence_N: np.ndarray = self.reached_N - most_N
        return evidence_N


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="URI", help="folder of the tables")
    parser.add_argument("--out", default="out/acceptance", metavar="DIR", help="work and results")
    parser.add_argument("--model", default="small", metavar="NAME|URI", help="the model")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument(
        "--unknown", type=cli.positive_int, default=4_000, help="unknown clips of 10 s"
    )
    parser.add_argument("--known", type=cli.positive_int, default=2_000, help="known clips of 10 s")
    parser.add_argument("--few", type=cli.positive_int, default=600, help="clips of other tables")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    from pipelines.common.runtime import connect

    connect()
    summary = _validation(chosen) if chosen.split == "validation" else _test(chosen)
    with open(f"{chosen.out}/acceptance.json", "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
    return summary, cli.DONE


def _test(chosen: argparse.Namespace) -> dict:
    from grafp.storage.sources import held_out

    music = [item for item in part(chosen.corpus, "test", "music") if _seconds(item) >= 11]
    unknown, known = music[::3], [item for n, item in enumerate(music) if n % 3]
    make = partial(degraded, chosen)
    strange = make("unknown", unknown, chosen.unknown, snr=(0, 20), reverb=0.5)
    familiar = make("known", known, chosen.known, snr=(0, 20), reverb=0.5)
    loud = make("known-0db", known, chosen.few, snr=(0, 0), reverb=0.0)
    few = first_of(strange, chosen.few)
    catalog = _indexed(chosen, "all", known)
    print(f"\n{len(known)} tracks in the catalog, {len(unknown)} unknown tracks")
    summary = {"all": _table(catalog, familiar, strange, known)}
    print("\nThe same, known clips in noise at 0 dB without impulse response")
    summary["0 dB"] = _table(catalog, loud, few, known)
    print("\nUnknown clips that are no such music, accepted, %")
    summary["other"] = _other(chosen, catalog)
    for size in _SIZES:
        some = known[3 : 3 + size]
        mine = of(familiar, some) if size > 5 else make(f"known-{size}", some, 500, (0, 20), 0.5)
        print(f"\nA catalog of {size} tracks")
        summary[f"{size} tracks"] = _table(_indexed(chosen, f"{size}", some), mine, few, some)
    train = [item for item in _training_music(chosen.corpus) if _seconds(item) >= 11]
    train = [item for item in train if not held_out(item)]  # of the rest the background is made
    print(f"\nA catalog of {len(known) + len(train)} tracks")
    large = _indexed(chosen, "large", [*known, *train])
    summary["large"] = _table(large, first_of(familiar, chosen.few), few, known)
    for times in (2, 5):
        some = known[3:23]
        print(f"\nA catalog of 20 tracks, each {times} times in other encodings and edits")
        all_of_them = [*some, *_copies(chosen, some, times - 1)]
        copies = _indexed(chosen, f"copies-{times}", all_of_them)
        summary[f"{times} copies"] = _table(copies, of(familiar, some), few, all_of_them)
    return summary


def _seconds(item: object) -> float:
    return float(item.row.get("seconds") or 60)  # type: ignore[attr-defined]


def _training_music(corpus: str) -> list:
    from grafp import storage
    from grafp.storage.sources import list_items

    table = storage.join(corpus, "music.csv")
    return [item for item in list_items(table) if item.row.get("split") == "train"]


def _indexed(chosen: argparse.Namespace, name: str, items: Sequence) -> str:
    """The URI of a catalog of these recordings."""
    from pipelines.indexing.flow import index_catalog

    uri = f"{chosen.out}/catalogs/{name}"
    index_catalog(list(items), uri, model=chosen.model)
    return uri


def _copies(chosen: argparse.Namespace, items: Sequence, times: int) -> list:
    """Other encodings and edits of recordings, in their groups."""
    import os

    from grafp import storage
    from grafp.audio import decode, encode
    from grafp.storage.sources import list_items

    folder = f"{chosen.out}/copies-{times}"
    os.makedirs(folder, exist_ok=True)
    for number, item in enumerate(items):
        track_S = decode(storage.read(item.location))
        for suffix, cut_s in _ENCODINGS[:times]:
            path = f"{folder}/{number:03d}-{cut_s:g}.{suffix}"
            if not os.path.exists(path):
                with open(path, "wb") as file:
                    file.write(encode(0.8 * track_S[round(cut_s * 16_000) :], suffix))
    groups = [item.group for item in items]
    found = list_items(folder)
    names = [copy.uri.rsplit("/", 1)[1] for copy in found]
    return [
        replace(copy, row={"group": groups[int(name[:3])]})
        for copy, name in zip(found, names, strict=True)
    ]


def _validation(chosen: argparse.Namespace) -> dict:
    """Print what each part of the score elsewhere would accept; returns the shares."""
    from grafp.index.calibration import fit_law
    from grafp.storage.sources import held_out

    music = [item for item in _training_music(chosen.corpus) if _seconds(item) >= 11]
    held = [item for item in music if held_out(item)]
    clips = degraded(chosen, "validation", held, chosen.known, (0, 20), 0.5, "validation")
    known = _indexed(chosen, "train", music)
    unknown = _indexed(chosen, "train-without", [item for item in music if not held_out(item)])
    shares: dict[str, dict] = {f"{counted:g}": {} for counted in _PARTS}
    for seconds in LENGTHS_S:
        cut = clips.cut(seconds)
        familiar, strange = _asked(known, cut), _asked(unknown, cut)
        right_N = _right(familiar, cut, {})
        for counted in _PARTS:
            law = fit_law(strange.evidence(counted))
            for rate in RATES:
                accepted_N = familiar.evidence(counted) >= law.evidence(rate)
                name = f"{seconds:g} s, {100 * rate:g} %"
                shares[f"{counted:g}"][name] = float((accepted_N & right_N).mean())
    print(
        f"\nKnown clips accepted with the right track, %; cut out of {len(clips.track_N):,} clips"
    )
    for counted, cells in shares.items():
        print(f"part {counted}: " + "; ".join(f"{name} {100 * v:.1f}" for name, v in cells.items()))
    return shares


def _other(chosen: argparse.Namespace, catalog: str) -> dict:
    """Print the shares accepted of clips of speech, of synthesized music, of tones and of hum."""
    babble = ("babble", "babble_reverb")
    talk = [n for n in part(chosen.corpus, "test", "noise") if n.row.get("kind") in babble]
    result = {}
    for name, make in {
        "speech": partial(speech, talk),
        "synthesized music": synthesized,
        "tones": tones,
        "silence with hum": hum,
    }.items():
        clips = Clips(embedded(make, chosen.few, chosen.model), [""] * chosen.few)
        result[name] = {
            f"{s:g} s": _accepted(catalog, s, _asked(catalog, clips.cut(s)).evidence())
            for s in LENGTHS_S
        }
        shown = (
            f"{length}: " + " ".join(f"{100 * share:.2f}" for share in shares)
            for length, shares in result[name].items()
        )
        print(f"{name}, at 1, 0.1 and 0.01 %: " + "; ".join(shown))
    return result


def _table(catalog: str, known: Clips, unknown: Clips, items: Sequence) -> dict:
    """Print and return the shares accepted, of unknown clips and of known ones."""
    groups = {item.uri: item.group for item in items}
    rows: dict[str, dict] = {f"{rate:g}": {} for rate in RATES}
    rights = []
    for seconds in LENGTHS_S:
        mine, others = known.cut(seconds), unknown.cut(seconds)
        familiar, strange = _asked(catalog, mine), _asked(catalog, others)
        right_N = _right(familiar, mine, groups)
        rights.append(f"{100 * right_N.mean():.1f}")
        evidence_N = strange.evidence()
        wrongly = _accepted(catalog, seconds, evidence_N)
        rightly = _accepted(catalog, seconds, np.where(right_N, familiar.evidence(), -9))
        mates_N = np.array(
            [_album(a) == _album(t) for a, t in zip(strange.track_N, others.track_N)]
        )
        elsewhere = _accepted(catalog, seconds, np.where(mates_N, -9, evidence_N))
        for rate, *shares in zip(RATES, wrongly, elsewhere, rightly, strict=True):
            names = ("unknown_accepted", "of_other_albums", "known_accepted")
            rows[f"{rate:g}"][f"{seconds:g} s"] = dict(zip(names, shares, strict=True))
    print("| target | " + " | ".join(f"{seconds:g} s" for seconds in LENGTHS_S) + " |")
    print("|---" * (len(LENGTHS_S) + 1) + "|")
    for rate, cells in rows.items():
        shown = (
            f"{100 * c['unknown_accepted']:.3f} ({100 * c['of_other_albums']:.3f}) / "
            f"{100 * c['known_accepted']:.1f}"
            for c in cells.values()
        )
        print(f"| {100 * float(rate):g} % | " + " | ".join(shown) + " |")
    print("| right track | " + " | ".join(rights) + " |")
    print(f"cut out of {len(unknown.track_N):,} unknown and {len(known.track_N):,} known clips")
    return rows


def _right(found: Outcome, clips: Clips, groups: dict[str, str]) -> np.ndarray:
    """Whether the answer is the clip's track, or a copy of it."""
    return np.array(
        [
            answer is not None and groups.get(answer, answer) == groups.get(true, true)
            for answer, true in zip(found.track_N, clips.track_N, strict=True)
        ]
    )


def _album(uri: str | None) -> str:
    return (uri or "").rsplit("/", 1)[0]


def _accepted(catalog: str, seconds: float, evidence_N: np.ndarray) -> list[float]:
    """The share of answers with at least the evidence of each target rate."""
    from grafp.catalog.catalog import Catalog

    manifest = Catalog.open_published(catalog).manifest
    assert manifest
    assert manifest.calibration
    law = manifest.calibration.law(seconds)
    return [float((evidence_N >= law.evidence(rate)).mean()) for rate in RATES]


def _asked(catalog: str, clips: Clips) -> Outcome:
    queries = [vectors_MD.astype(np.float32) for vectors_MD in clips.vectors_NMD]
    work = [
        _identify.remote(catalog, queries[first : first + _AT_ONCE])
        for first in range(0, len(queries), _AT_ONCE)
    ]
    tracks, reached, elsewhere = zip(*(answer for part in ray.get(work) for answer in part))
    return Outcome(list(tracks), np.array(reached), np.array(elsewhere))


@ray.remote(num_cpus=1)
def _identify(root: str, queries: list[np.ndarray]) -> list[tuple[str | None, float, float]]:
    """The track of the best answer to each query, and what makes its evidence."""
    import faiss

    from grafp.catalog.catalog import Catalog
    from grafp.catalog.identify import background_of
    from grafp.catalog.opened import open_search
    from grafp.index.evidence import identify, reached

    faiss.omp_set_num_threads(1)
    catalog = Catalog.open_published(root)
    assert catalog.manifest
    search, beside = open_search(root, catalog.manifest), background_of(catalog)
    uris = catalog.live_tracks()
    answers: list[tuple[str | None, float, float]] = []
    for first in range(0, len(queries), 64):
        some = queries[first : first + 64]
        for found in identify(some, search, reached(some, beside)):
            best = found[0] if found else None
            track = uris[best.match.ordinal][0] if best else None
            reached_it = best.reached - best.too_steady if best else -1.0
            answers.append((track, reached_it, best.elsewhere if best else 0.0))
    return answers


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
