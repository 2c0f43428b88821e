"""A larger catalog without more audio: invented tracks from the distribution of real fingerprints.

A distractor is the sequence of fingerprints of a real track under one random transform: the sign
of each principal component of all fingerprints is kept or flipped, by one draw for the track. This
keeps the mean, the covariance and the movement in time of music. Distractors in the latent space
reproduce scaling curves (arXiv:2509.18620). They are confused with a track somewhat less often
than other music is, above all at high scores. So hit rates in a catalog with distractors are an
upper bound; `Scale.distractor_wins` shows how loose it is.
"""

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
import ray

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
from grafp.model.bundle import ModelCard, read_background
from grafp.model.fingerprint import DIMENSION
from pipelines.common.runtime import connect
from pipelines.indexing.calibrate import calibrated
from pipelines.indexing.run import Run
from pipelines.indexing.upkeep import IndexState, extend

logger = logging.getLogger(__name__)

_NAME = "distractor "


def is_distractor(uri: str) -> bool:
    return uri.startswith(_NAME)


@dataclass(frozen=True)
class Distribution:
    """The mean of fingerprints (128,) and their principal axes, the columns of (128, 128)."""

    mean_D: np.ndarray
    axes_DD: np.ndarray

    def distract(self, vectors_ND: np.ndarray, seed: list[int]) -> np.ndarray:
        """Another track's fingerprints, float16 unit vectors; silence (zeros) stays silence."""
        signs_D = np.random.default_rng(seed).choice([-1.0, 1.0], DIMENSION)
        flip_DD = (self.axes_DD * signs_D) @ self.axes_DD.T
        moved_ND = self.mean_D + (vectors_ND - self.mean_D) @ flip_DD
        moved_ND /= np.linalg.norm(moved_ND, axis=1, keepdims=True)
        return np.where(vectors_ND.any(axis=1, keepdims=True), moved_ND, 0.0).astype(np.float16)


def with_distractors(
    source: Catalog, root: str, count: int, *, model: ModelCard | None, seed: int = 0
) -> Manifest:
    """Publish a catalog with the source's tracks and `count` distractors under `root`.

    All tracks of the source are used equally often. A larger count begins with the distractors of
    a smaller one. Nothing in `root` refers to the source, so `root` can be deleted. `model` is the
    source's, or None if its fingerprints come from another program.
    """
    connect()
    manifest = source.manifest
    assert manifest is not None
    rows = [row for row in source.tracks().to_pylist() if row["status"] == "ok"]
    real = live_refs(rows)
    files = by_file(real.values())
    logger.info(f"drawing {count:,} distractors from {len(real):,} tracks")
    distribution = ray.put(_distribution(source, files))
    catalog = Catalog.open(root)
    if model:
        catalog.put_model(model, read_background(source.model_uri()))
    ray.get([_copy.remote(source.root, root, key) for key in files])
    # In another order, so that a few distractors come from all over the catalog.
    order = [sorted(real)[n] for n in np.random.default_rng(seed).permutation(len(real))]
    numbers = {ordinal: n for n, ordinal in enumerate(order)}
    work = []
    for first in range(0, count, len(real)):
        for key, tracks in files.items():
            named = [(first + numbers[ref.ordinal], ref) for ref in tracks]
            wanted = [(number, ref) for number, ref in named if number < count]
            if wanted:
                work.append(
                    _draw.remote(source.root, manifest, root, key, wanted, distribution, seed)
                )
    rows += [row for part in ray.get(work) for row in part]
    state = extend(catalog, IndexState(options=manifest.index_options), live_refs(rows))
    run = Run.begin(catalog, manifest.model_id, manifest.model_sha256, manifest.hop_s)
    scaled = run.manifest(rows, state, next_ordinal=manifest.next_ordinal + count)
    if model:
        scaled = calibrated(catalog, scaled, live_refs(rows))
    catalog.publish(scaled)
    return scaled


def _distribution(source: Catalog, files: dict[str, list[TrackRef]]) -> Distribution:
    parts = ray.get([_moments.remote(source.root, key, refs) for key, refs in files.items()])
    count, sum_D, square_DD = (sum(column) for column in zip(*parts, strict=True))
    mean_D = sum_D / count
    _, axes_DD = np.linalg.eigh(square_DD / count - np.outer(mean_D, mean_D))
    return Distribution(mean_D, axes_DD)


@ray.remote(num_cpus=0.5)
def _moments(root: str, key: str, tracks: list[TrackRef]) -> tuple[int, np.ndarray, np.ndarray]:
    """Count, sum and sum of outer products of the fingerprints that are not silence."""
    parts = [vectors_ND for _, vectors_ND in read_fingerprints(root, key, tracks)]
    all_ND = np.concatenate(parts).astype(np.float64)
    all_ND = all_ND[all_ND.any(axis=1)]
    return len(all_ND), all_ND.sum(axis=0), all_ND.T @ all_ND


@ray.remote(num_cpus=0.25)
def _copy(source: str, root: str, key: str) -> None:
    storage.write(storage.join(root, key), storage.read(storage.join(source, key)))


@ray.remote(num_cpus=0.5)
def _draw(
    source: str,
    manifest: Manifest,
    root: str,
    key: str,
    wanted: list[tuple[int, TrackRef]],
    distribution: Distribution,
    seed: int,
) -> list[Row]:
    """One embedding file of distractors, made of another's tracks; the rows of their tracks."""
    numbers = {ref.ordinal: number for number, ref in wanted}
    rows: list[Row] = []
    ordinals: list[int] = []
    for ref, vectors_ND in read_fingerprints(source, key, [ref for _, ref in wanted]):
        number = numbers[ref.ordinal]
        digest = hashlib.sha256(f"{seed} {number} {ref.content_sha256}".encode()).hexdigest()
        moved_ND = distribution.distract(vectors_ND.astype(np.float32), [seed, number])
        ordinals.append(manifest.next_ordinal + number)
        rows.append(
            {
                **dict.fromkeys(EMBEDDING_SCHEMA.names),
                "track_id": digest[:32],
                "uri": f"{_NAME}{number:09d}",
                "content_sha256": digest,
                "duration_s": len(moved_ND) * manifest.hop_s,
                "status": "ok",
                "model_id": manifest.model_id,
                "hop_s": manifest.hop_s,
                "n_segments": len(moved_ND),
                "embeddings": moved_ND,
            }
        )
    file, places = write_embeddings(root, "embeddings/distractors", rows)
    for row, ordinal, place in zip(rows, ordinals, places, strict=True):
        del row["embeddings"]
        row |= {"ordinal": ordinal, "stored_as": row["track_id"], "source": None}
        row |= {"embedding_file": file, "embeddings_at": place}
    return rows
