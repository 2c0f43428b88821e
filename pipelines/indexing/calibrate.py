"""What answers of a snapshot are worth, measured with the background's clips as unknown queries."""

import itertools
import logging
from dataclasses import replace

import numpy as np

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.catalog.opened import open_search
from grafp.catalog.tracks import LiveTracks
from grafp.index.calibration import Calibration, calibrate
from grafp.index.evidence import Beside, identify
from grafp.model.background import LENGTHS_S, Background
from grafp.model.bundle import ModelCard, read_background, shipped_background
from pipelines.common.opening import AnySearch, search_of
from pipelines.common.work import gather, is_here, share, start

logger = logging.getLogger(__name__)

_GROWN = 1.2  # measured again when the catalog grew by more
CLIPS = 200
"""Of the background, at most; most tests use none."""
_TELLING = 0.35
"""Evidence of 10 s that says: this music is in the catalog. Unknown music stays below 0.25."""
_LEAST_CLIPS = 30
_NOTHING = -1.0  # evidence of a clip that nothing is near to
_RATE = 0.001  # shown in the log


def calibrated(catalog: Catalog, manifest: Manifest, live: LiveTracks) -> Manifest:
    """The manifest with a calibration that suits its size; measured only where that changed much.

    None if the catalog is empty, its model has no background, or all of that is in the catalog.
    """
    if not live:
        return replace(manifest, calibration=None)
    count, old = live.fingerprints, manifest.calibration
    if old and old.fingerprints / _GROWN <= count <= old.fingerprints * _GROWN:
        return manifest
    background = Catalog(catalog.root, manifest).background()
    if background is None:
        logger.warning(
            f"{manifest.model_id} has no background: answers will have no false-positive rate; "
            "python -m grafp.training.background adds one to a model"
        )
        return replace(manifest, calibration=None)
    measured = _measured(catalog.root, manifest, background, count)
    return replace(manifest, calibration=measured)


def missing_background(catalog: Catalog, card: ModelCard) -> bytes | None:
    """The background of a shipped model, for a catalog made before there was one."""
    own = read_background(catalog.model_uri())
    return shipped_background(card) if own is None else None


def _measured(
    root: str, manifest: Manifest, background: Background, fingerprints: int
) -> Calibration | None:
    count = min(CLIPS, len(background.clips_NMD))
    if count < _LEAST_CLIPS:
        logger.warning(f"the model's background has {count} clips, fewer than {_LEAST_CLIPS}")
        return None
    spread = None if manifest.is_small or is_here() else search_of(root, manifest)
    shared = share(background)
    bounds = np.linspace(0, count, (8 if spread else 2) + 1).astype(int).tolist()
    work = [
        start(_search, spread, root, manifest.to_json(), shared, range(*edges), cpus=0.5)
        for edges in itertools.pairwise(bounds)
    ]
    found = [answer for part in gather(work) for answer in part]
    known = {track for s, track, e in found if s == LENGTHS_S[-1] and e >= _TELLING}
    unknown = [answer for answer in found if answer[1] not in known]
    clips_left = int((~np.isin(background.track_N[:count], list(known))).sum())
    if known:
        logger.info(f"{len(known)} tracks of the background are in the catalog, and left out")
    if clips_left < _LEAST_CLIPS:
        logger.warning("too little of the model's background is unknown to this catalog")
        return None
    by_length = {s: [(track, e) for one, track, e in unknown if one == s] for s in LENGTHS_S}
    measured = calibrate(by_length, fingerprints, count - clips_left)
    logger.info(f"calibrated with {len(unknown):,} queries: {_line(measured)}")
    return measured


def _search(
    spread: "AnySearch | None",
    root: str,
    manifest_json: bytes,
    background: Background,
    clips: range,
) -> list[tuple[float, int, float]]:
    """Length in seconds, track of the background, and evidence, of all queries from some clips."""
    manifest = Manifest.from_json(manifest_json, root)
    search = spread or open_search(root, manifest)
    hop_s = manifest.query_hop_s
    there = background.at_hop(hop_s)
    answers = []
    for seconds in LENGTHS_S:
        clip_Q, queries = there.queries(seconds, hop_s)
        mine = np.flatnonzero((clip_Q >= clips.start) & (clip_Q < clips.stop))
        beside = [Beside(score) for score in background.beside(seconds)[mine].tolist()]
        for q, found in zip(mine, identify([queries[q] for q in mine], search, beside)):
            evidence = found[0].evidence if found else _NOTHING
            answers.append((seconds, int(there.track_N[clip_Q[q]]), evidence))
    return answers


def _line(measured: Calibration) -> str:
    parts = (
        f"{length.law.evidence(_RATE):.2f} at {seconds} s"
        for seconds, length in measured.by_length.items()
    )
    return ", ".join(parts) + f" of evidence for a false-positive rate of {100 * _RATE:g} %"
