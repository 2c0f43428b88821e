"""Thresholds of a catalog from its own fingerprints, measured after its index was built."""

import logging
from dataclasses import replace

import numpy as np
import ray

from grafp.audio import SAMPLE_RATE
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import by_file, read_fingerprints
from grafp.catalog.manifest import Manifest
from grafp.catalog.tracks import TrackRef
from grafp.index.alignment import find_matches
from grafp.index.calibration import LENGTHS_S, Calibration, calibrate
from grafp.model.fingerprint import segment_count
from pipelines.common.search import SpreadSearch
from pipelines.indexing.duplicates import NEAR

logger = logging.getLogger(__name__)

MIN_TRACKS = 30
"""With fewer, the best wrong answer says little; what the model's card says counts instead."""
_EXCERPTS, _EXCERPTS_A_TRACK = 1_000, 10
_GROWN = 1.2  # measured again when the catalog grew by more
_NEIGHBORS = 60  # most of the nearest are of the excerpt's own track, which does not count
_AT_ONCE = 64
_TELLING_S = 5.0  # from this length on, a score of NEAR means the same recording


def calibrated(catalog: Catalog, manifest: Manifest, live: dict[int, TrackRef]) -> Manifest:
    """The manifest with thresholds that suit its size; measured only where that changed much."""
    if len(live) < MIN_TRACKS:
        return replace(manifest, calibration=None)
    count, old = sum(ref.n_segments for ref in live.values()), manifest.calibration
    if old and old.fingerprints / _GROWN <= count <= old.fingerprints * _GROWN:
        return manifest
    search = SpreadSearch(catalog.root, manifest, stride=1)
    work = [
        _search.remote(search, catalog.root, manifest.hop_s, key, group)
        for key, group in by_file(_sample(list(live.values()))).items()
    ]
    found = [scores for part in ray.get(work) for scores in part]
    measured = _thresholds(found, count)
    logger.info(f"thresholds measured with {len(found)} excerpts: {_line(measured)}")
    return replace(manifest, calibration=measured)


def _sample(tracks: list[TrackRef]) -> list[TrackRef]:
    """Tracks at random, the same for the same catalog; several times where there are few."""
    rng = np.random.default_rng(len(tracks))
    times = min(_EXCERPTS_A_TRACK, -(-_EXCERPTS // len(tracks)))
    chosen = rng.permutation(np.repeat(np.arange(len(tracks)), times))[:_EXCERPTS]
    return [tracks[number] for number in sorted(chosen)]


@ray.remote(num_cpus=0.5)
def _search(
    search: SpreadSearch, root: str, hop_s: float, key: str, tracks: list[TrackRef]
) -> list[dict[float, float]]:
    """The best wrong score by length, of a random excerpt for each time that a track is listed."""
    times: dict[int, int] = {}
    for track in tracks:
        times[track.ordinal] = times.get(track.ordinal, 0) + 1
    excerpts, own = [], []
    for track, vectors_ND in read_fingerprints(root, key, tracks):
        rng = np.random.default_rng(int(track.content_sha256[:16], 16))
        length = min(len(vectors_ND), _segments(LENGTHS_S[-1], hop_s))
        for first in rng.integers(len(vectors_ND) - length + 1, size=times[track.ordinal]):
            excerpts.append(vectors_ND[first : first + length].astype(np.float32))
            own.append(track.ordinal)
    found: list[dict[float, float]] = [{} for _ in excerpts]
    for seconds in LENGTHS_S:
        length = _segments(seconds, hop_s)
        fit = [n for n, excerpt_MD in enumerate(excerpts) if len(excerpt_MD) >= length]
        for first in range(0, len(fit), _AT_ONCE):
            some = fit[first : first + _AT_ONCE]
            answers = find_matches(
                [excerpts[n][:length] for n in some],
                search,
                neighbors=_NEIGHBORS,
                without=[own[n] for n in some],
            )
            for n, matches in zip(some, answers, strict=True):
                found[n][seconds] = matches[0].score if matches else 0.0
    return found


def _segments(seconds: float, hop_s: float) -> int:
    return segment_count(round(seconds * SAMPLE_RATE), round(hop_s * SAMPLE_RATE))


def _thresholds(found: list[dict[float, float]], fingerprints: int) -> Calibration:
    # The same music under another name is no wrong answer.
    different = [s for s in found if s and not (max(s) >= _TELLING_S and s[max(s)] >= NEAR)]
    by_length = {s: [scores[s] for scores in different if s in scores] for s in LENGTHS_S}
    return calibrate({s: scores for s, scores in by_length.items() if scores}, fingerprints)


def _line(measured: Calibration) -> str:
    shown = (f"{score['0.001']:.2f} at {s} s" for s, score in measured.thresholds.items())
    return ", ".join(shown) + " for a false-positive rate of 0.1 %"
