"""What answers of a snapshot are worth, measured with the background's clips as unknown queries."""

import logging
from dataclasses import replace

import numpy as np
import ray

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.catalog.tracks import TrackRef
from grafp.index.calibration import Calibration, calibrate
from grafp.index.evidence import identify
from grafp.model.background import LENGTHS_S, Background
from grafp.model.bundle import ModelCard, read_background, shipped_background
from pipelines.common.search import SpreadSearch

logger = logging.getLogger(__name__)

_GROWN = 1.2  # measured again when the catalog grew by more
_AT_ONCE = 50  # clips of a task
_TELLING = 0.35
"""Evidence of 10 s that says: this music is in the catalog. Unknown music stays below 0.25."""
_LEAST_CLIPS = 30
_NOTHING = -1.0  # evidence of a clip that nothing is near to
_RATE = 0.001  # shown in the log


def calibrated(catalog: Catalog, manifest: Manifest, live: dict[int, TrackRef]) -> Manifest:
    """The manifest with a calibration that suits its size; measured only where that changed much.

    None if the catalog is empty, its model has no background, or all of that is in the catalog.
    """
    if not live:
        return replace(manifest, calibration=None)
    count, old = sum(ref.n_segments for ref in live.values()), manifest.calibration
    if old and old.fingerprints / _GROWN <= count <= old.fingerprints * _GROWN:
        return manifest
    background = Catalog(catalog.root, manifest).background()
    if background is None:
        logger.warning(
            f"{manifest.model_id} has no background: answers will have no false-positive rate; "
            "python -m grafp.training.background adds one to a model"
        )
        return replace(manifest, calibration=None)
    search = SpreadSearch(catalog.root, manifest)
    measured = _measured(search, background.at_hop(manifest.query_hop_s), manifest, count)
    return replace(manifest, calibration=measured)


def missing_background(catalog: Catalog, card: ModelCard) -> bytes | None:
    """The background of a shipped model, for a catalog made before there was one."""
    own = read_background(catalog.model_uri())
    return shipped_background(card) if own is None else None


def _measured(
    search: SpreadSearch, background: Background, manifest: Manifest, fingerprints: int
) -> Calibration | None:
    shared = ray.put(background)
    work = [
        _search.remote(search, shared, range(first, first + _AT_ONCE), manifest.query_hop_s)
        for first in range(0, len(background.clips_NMD), _AT_ONCE)
    ]
    evidence_LN = np.concatenate(ray.get(work), axis=1)
    known = set(background.track_N[evidence_LN[-1] >= _TELLING].tolist())
    kept_N = ~np.isin(background.track_N, list(known))
    if known:
        logger.info(f"{len(known)} tracks of the background are in the catalog, and left out")
    if kept_N.sum() < _LEAST_CLIPS:
        logger.warning("too little of the model's background is unknown to this catalog")
        return None
    measured = calibrate(
        {
            seconds: list(zip(background.track_N[kept_N].tolist(), evidence_N[kept_N].tolist()))
            for seconds, evidence_N in zip(LENGTHS_S, evidence_LN, strict=True)
        },
        fingerprints,
        len(background.track_N) - int(kept_N.sum()),
    )
    logger.info(f"calibrated with {int(kept_N.sum())} unknown clips: {_line(measured)}")
    return measured


@ray.remote(num_cpus=0.5)
def _search(search: SpreadSearch, background: Background, clips: range, hop_s: float) -> np.ndarray:
    """The evidence of some clips at every length, (lengths, clips)."""
    some = slice(clips.start, clips.stop)
    evidence = []
    for number, seconds in enumerate(LENGTHS_S):
        queries = background.queries(seconds, hop_s)[some]
        beside = background.beside_LN[number][some].tolist()
        found = identify(queries, search, beside)
        evidence.append([answers[0].evidence if answers else _NOTHING for answers in found])
    return np.array(evidence)


def _line(measured: Calibration) -> str:
    parts = (
        f"{length.law.evidence(_RATE):.2f} at {seconds} s"
        for seconds, length in measured.by_length.items()
    )
    return ", ".join(parts) + f" of evidence for a false-positive rate of {100 * _RATE:g} %"
