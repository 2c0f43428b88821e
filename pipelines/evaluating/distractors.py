"""A larger catalog without more audio: invented tracks, mixed from the fingerprints of real ones.

A distractor is the sum of three tracks' fingerprints, of which two begin anywhere, made unit
vectors again. So it lies where fingerprints of music do and moves in time as they do, and it is
none of the three: its mean inner product with each is near 0.58. Distractors in the latent space
reproduce scaling curves (arXiv:2509.18620). These are confused with a track almost as often as
other music is, which benchmarks/distractors.py measures. So hit rates in a catalog with
distractors are still an upper bound; `Scale.distractor_wins` shows how loose it is.

A clip of a track reaches a high score in the distractors that are mixed from it. So tracks that
clips are cut from should be left out, and so should the music of the model's background.
"""

import hashlib
import logging
from collections.abc import Collection, Sequence

import numpy as np

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import (
    EMBEDDING_SCHEMA,
    by_file,
    read_fingerprints,
    write_embeddings,
)
from grafp.catalog.manifest import Manifest
from grafp.catalog.tracks import Row, TrackRef, live_refs
from grafp.errors import CatalogError
from grafp.model.bundle import ModelCard, read_background
from pipelines.common.work import connect, gather, share, start
from pipelines.indexing.calibrate import calibrated
from pipelines.indexing.run import Run
from pipelines.indexing.upkeep import IndexState, extend

logger = logging.getLogger(__name__)

_NAME = "distractor "
_MIXED = 3  # with two, a distractor resembles its tracks; with more, it deceives less
_MATERIAL = 1_000_000  # fingerprints to mix, which each machine holds: 256 MB
_TRACKS_A_FILE = 64


def is_distractor(uri: str) -> bool:
    return uri.startswith(_NAME)


def distractor(material: Sequence[np.ndarray], number: int, seed: int = 0) -> np.ndarray:
    """Fingerprints of an invented track, float16 (segments, 128), unit vectors.

    `material`: fingerprints of real tracks, (segments, 128). The invented one is as long as one of
    them, each in turn, and silent (zeros) where that is.
    """
    random = np.random.default_rng([seed, number])
    first = number % len(material)
    sum_ND = material[first].astype(np.float32)
    heard_N1 = sum_ND.any(axis=1, keepdims=True)
    for step in random.integers(1, max(2, len(material)), _MIXED - 1):
        other_ND = material[(first + step) % len(material)]
        rows = int(random.integers(len(other_ND))) + np.arange(len(sum_ND))
        sum_ND += other_ND[rows % len(other_ND)]
    length_N1 = np.linalg.norm(sum_ND, axis=1, keepdims=True)
    unit_ND = np.divide(sum_ND, length_N1, where=length_N1 > 0, out=np.zeros_like(sum_ND))
    return np.where(heard_N1, unit_ND, 0.0).astype(np.float16)


def with_distractors(
    source: Catalog,
    root: str,
    count: int,
    *,
    model: ModelCard | None,
    music: Catalog | None = None,
    without: Collection[str] = (),
    seed: int = 0,
) -> Manifest:
    """Publish a catalog with the source's tracks and `count` distractors under `root`.

    A larger count begins with the distractors of a smaller one. Nothing in `root` refers to the
    source, so `root` can be deleted.

    Args:
        model: the source's, or None if its fingerprints come from another program.
        music: whose tracks are mixed; default: the source's.
        without: URIs of tracks that are not mixed, unless there are no others.

    Raises CatalogError when there is no music to mix.
    """
    connect()
    manifest = source.manifest
    assert manifest is not None
    rows = [row for row in source.tracks().to_pylist() if row["status"] == "ok"]
    catalog = Catalog.open(root)
    if model:
        catalog.put_model(model, read_background(source.model_uri()))
    copied = [
        start(_copy, source.root, root, key, cpus=0.25) for key in by_file(live_refs(rows).values())
    ]
    gather(copied)
    material = material_of(music or source, without, seed)
    logger.info(f"mixing {count:,} distractors from {len(material):,} tracks")
    shared = share(material)
    files = (range(n, min(n + _TRACKS_A_FILE, count)) for n in range(0, count, _TRACKS_A_FILE))
    work = [start(_draw, manifest, root, numbers, shared, seed, cpus=1) for numbers in files]
    rows += [row for part in gather(work) for row in part]
    live = live_refs(rows)
    state = extend(catalog, IndexState(options=manifest.index_options), live)
    run = Run.begin(catalog, manifest.model_id, manifest.model_sha256, manifest.hop_s)
    scaled = run.manifest(rows, state, next_ordinal=manifest.next_ordinal + count)
    if model:
        scaled = calibrated(catalog, scaled, live)
    catalog.publish(scaled)
    return scaled


def material_of(music: Catalog, without: Collection[str] = (), seed: int = 0) -> list[np.ndarray]:
    """Fingerprints of tracks to mix, float16 (segments, 128), from all over a catalog.

    `without`: see `with_distractors`. Raises CatalogError when the catalog has no tracks.
    """
    every = live_refs(music.tracks()).values()
    uris = music.live_tracks()
    left = [ref for ref in every if not set(uris[ref.ordinal]).intersection(without)]
    refs = left or every
    chosen: list[TrackRef] = []
    held = 0
    for n in np.random.default_rng(seed).permutation(len(refs)):
        if not chosen or held + refs[n].n_segments <= _MATERIAL:
            chosen.append(refs[n])
            held += refs[n].n_segments
    if not held:
        raise CatalogError(f"{music.root}: no tracks to make distractors of")
    read = [
        found
        for key, group in by_file(chosen).items()
        for found in read_fingerprints(music.root, key, group)
    ]
    position = {ref.ordinal: n for n, ref in enumerate(chosen)}
    read.sort(key=lambda found: position[found[0].ordinal])
    return [vectors_ND for _, vectors_ND in read]


def _copy(source: str, root: str, key: str) -> None:
    storage.write(storage.join(root, key), storage.read(storage.join(source, key)))


def _draw(
    manifest: Manifest, root: str, numbers: range, material: list[np.ndarray], seed: int
) -> list[Row]:
    """Write one embedding file of distractors; returns the rows of their tracks."""
    rows: list[Row] = []
    for number in numbers:
        vectors_ND = distractor(material, number, seed)
        digest = hashlib.sha256(vectors_ND.tobytes()).hexdigest()
        rows.append(
            {
                **dict.fromkeys(EMBEDDING_SCHEMA.names),
                "track_id": digest[:32],
                "uri": f"{_NAME}{number:09d}",
                "content_sha256": digest,
                "duration_s": len(vectors_ND) * manifest.hop_s,
                "status": "ok",
                "model_id": manifest.model_id,
                "hop_s": manifest.hop_s,
                "n_segments": len(vectors_ND),
                "embeddings": vectors_ND,
            }
        )
    file, positions = write_embeddings(root, "embeddings/distractors", rows)
    for row, number, position in zip(rows, numbers, positions, strict=True):
        del row["embeddings"]
        row |= {"ordinal": manifest.next_ordinal + number, "stored_as": row["track_id"]}
        row |= {"source": None, "embedding_file": file, "embeddings_at": position}
    return rows
