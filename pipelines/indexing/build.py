"""Embedding files to shards: train the index once, populate copies of it in parallel.

What a trained index or a shard contains depends only on the tracks that go in, and its name is a
hash of them. The next run does the same again after an interruption, and finds what is finished.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import ray

from grafp import storage
from grafp.catalog.catalog import Catalog, is_reusable
from grafp.catalog.embeddings import by_file, read_fingerprints
from grafp.catalog.manifest import ShardEntry, StoredFile
from grafp.catalog.shard_files import finished_shard, write_shard
from grafp.catalog.tracks import TrackRef
from grafp.index.ids import fingerprint_ids
from grafp.index.ivfpq import populate, train_index
from grafp.index.size import MAX_SHARD_FINGERPRINTS, IndexParameters, populate_bytes
from grafp.model.fingerprint import DIMENSION
from pipelines.common import placement

logger = logging.getLogger(__name__)


def train(catalog: Catalog, tracks: list[TrackRef], parameters: IndexParameters) -> StoredFile:
    """Train an index on a random sample over all tracks; returns where it is stored."""
    index_id = f"{parameters.codec.lower()}-{_name(asdict(parameters), tracks)[:12]}"
    key = f"index/{index_id}/trained.faiss"
    uri = storage.join(catalog.root, key)
    published = catalog.manifest.trained_index if catalog.manifest else None
    if is_reusable(storage.stat(uri)):
        data = storage.read(uri)
        stored = StoredFile(key, len(data), hashlib.sha256(data).hexdigest())
        if not published or published.key != key or published == stored:  # else it was damaged
            return stored
    share = min(1.0, parameters.training_points / max(1, sum(t.n_segments for t in tracks)))
    samples = [
        _sample.remote(catalog.root, file, group, share) for file, group in by_file(tracks).items()
    ]
    task = _train.options(num_gpus=int(placement.gpu_is_free()))
    return catalog.put(key, ray.get(task.remote(parameters, *samples)))


@ray.remote(num_cpus=0.5)
def _sample(
    root: str, key: str, tracks: list[TrackRef], share: float
) -> list[tuple[int, np.ndarray]]:
    """(ordinal, a random part of its fingerprints), the same whatever file they are in."""
    parts = []
    for track, vectors_ND in read_fingerprints(root, key, tracks):
        rng = np.random.default_rng(int(track.content_sha256[:16], 16))
        vectors_ND = vectors_ND[rng.random(len(vectors_ND)) < share]
        parts.append((track.ordinal, vectors_ND[vectors_ND.any(axis=1)]))
    return parts


@ray.remote(num_cpus=1)
def _train(parameters: IndexParameters, *samples: list[tuple[int, np.ndarray]]) -> bytes:
    parts = sorted((part for sample in samples for part in sample), key=lambda part: part[0])
    sample_ND = np.concatenate([v.astype(np.float32) for _, v in parts])
    return train_index(sample_ND, parameters, gpu=bool(ray.get_gpu_ids()))


def populate_shards(
    catalog: Catalog, trained_index: StoredFile, tracks: list[TrackRef]
) -> list[ShardEntry]:
    """Add the tracks to copies of the trained index, in parallel; a shard holds whole tracks.

    A task holds one shard, of at most MAX_SHARD_FINGERPRINTS; see `populate_bytes`.
    """
    trained = ray.put(catalog.get(trained_index))
    index_id = trained_index.key.split("/")[1]
    share = placement.gpu_share()
    work = []
    for group in _groups(tracks):
        memory = placement.memory_claim(populate_bytes(sum(track.n_segments for track in group)))
        task = _populate.options(memory=memory, num_gpus=share)
        work.append(task.remote(catalog.root, index_id, trained, group))
    entries: list[ShardEntry] = []
    for number, ref in enumerate(work, 1):
        entries.append(ray.get(ref))
        logger.info(f"  shard {number}/{len(work)}: {entries[-1].fingerprints:,} fingerprints")
    return entries


def _groups(tracks: list[TrackRef]) -> Iterator[list[TrackRef]]:
    """The tracks of each shard, by ordinal."""
    group: list[TrackRef] = []
    size = 0
    for track in sorted(tracks, key=lambda track: track.ordinal):
        if group and size + track.n_segments > MAX_SHARD_FINGERPRINTS:
            yield group
            group, size = [], 0
        group.append(track)
        size += track.n_segments
    if group:
        yield group


@ray.remote(num_cpus=1)
def _populate(root: str, index_id: str, trained: bytes, tracks: list[TrackRef]) -> ShardEntry:
    """One shard, its record written last."""
    catalog, key = Catalog(root), f"index/{index_id}/{_name(index_id, tracks)[:16]}"
    if entry := finished_shard(catalog, key):
        return entry
    counts = np.array([track.n_segments for track in tracks])
    first_rows = np.cumsum(counts) - counts
    vectors_ND = np.zeros((counts.sum(), DIMENSION), np.float16)
    waiting = {track.ordinal: row for track, row in zip(tracks, first_rows, strict=True)}
    for file, group in by_file(tracks).items():
        for track, part_ND in read_fingerprints(root, file, group):
            row = waiting.pop(track.ordinal)
            vectors_ND[row : row + len(part_ND)] = part_ND
    assert not waiting, f"embeddings of {len(waiting)} tracks are missing"
    ids_N = np.concatenate([fingerprint_ids(t.ordinal, np.arange(t.n_segments)) for t in tracks])
    index = populate(trained, vectors_ND, ids_N, gpu=bool(ray.get_gpu_ids()))
    return write_shard(catalog, key, tracks, index, vectors_ND, ids_N)


def _name(what: Any, tracks: list[TrackRef]) -> str:
    """A hash of everything that decides what a trained index or a shard contains."""
    content = [[t.ordinal, t.content_sha256, t.n_segments] for t in tracks]
    return hashlib.sha256(json.dumps([what, content], sort_keys=True).encode()).hexdigest()
