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
_TASKS = 2  # for the queries of one length
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
        _search.remote(search, shared, seconds, manifest.query_hop_s, part)
        for seconds in reversed(LENGTHS_S)
        for part in range(_TASKS)
    ]
    done = dict(zip(reversed(LENGTHS_S), np.array_split(np.array(work), len(LENGTHS_S))))
    evidence = {seconds: np.concatenate(ray.get(done[seconds].tolist())) for seconds in LENGTHS_S}
    clips = {s: background.queries(s, manifest.query_hop_s)[0] for s in LENGTHS_S}
    longest = LENGTHS_S[-1]
    known = set(background.track_N[clips[longest][evidence[longest] >= _TELLING]].tolist())
    kept_N = ~np.isin(background.track_N, list(known))
    if known:
        logger.info(f"{len(known)} tracks of the background are in the catalog, and left out")
    if kept_N.sum() < _LEAST_CLIPS:
        logger.warning("too little of the model's background is unknown to this catalog")
        return None
    found = {
        s: [
            (int(background.track_N[clip]), float(value))
            for clip, value in zip(clips[s], evidence[s], strict=True)
            if kept_N[clip]
        ]
        for s in LENGTHS_S
    }
    measured = calibrate(found, fingerprints, len(kept_N) - int(kept_N.sum()))
    logger.info(f"calibrated with {sum(map(len, found.values())):,} queries: {_line(measured)}")
    return measured


@ray.remote(num_cpus=0.5)
def _search(
    search: SpreadSearch, background: Background, seconds: float, hop_s: float, part: int
) -> np.ndarray:
    """The evidence of a part of the queries of one length, (queries,)."""
    _, queries = background.queries(seconds, hop_s)
    mine = np.array_split(np.arange(len(queries)), _TASKS)[part]
    beside = background.beside(seconds)[mine].tolist()
    found = identify([queries[q] for q in mine], search, beside)
    return np.array([answers[0].evidence if answers else _NOTHING for answers in found])


def _line(measured: Calibration) -> str:
    parts = (
        f"{length.law.evidence(_RATE):.2f} at {seconds} s"
        for seconds, length in measured.by_length.items()
    )
    return ", ".join(parts) + f" of evidence for a false-positive rate of {100 * _RATE:g} %"
