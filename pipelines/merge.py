"""Embedding files to a searchable snapshot: train once, fill shards in parallel, publish."""

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from grafp import storage
from grafp.catalogue import Catalogue, ShardEntry, StoredFile
from grafp.encoder import DIMENSION
from grafp.index import IndexParameters, fill, fingerprint_ids, train_template

MAX_SHARD_FINGERPRINTS = 1_000_000
"""Bounds a filling task's memory: 256 bytes a fingerprint, and as much again for the index."""


@dataclass(frozen=True)
class TrackRef:
    """A track's fingerprints: their place in the catalogue's numbering and in its files."""

    ordinal: int
    track_id: str
    embedding_file: str
    n_segments: int


def train(
    catalogue: Catalogue, tracks: list[TrackRef], parameters: IndexParameters
) -> tuple[str, StoredFile]:
    """Train a template on a random sample over all embedding files; its id and where it is."""
    total = sum(track.n_segments for track in tracks)
    share = min(1.0, parameters.training_points / max(1, total))
    work = [
        _sample.remote(catalogue.root, key, [t.track_id for t in group], share)
        for key, group in _by_file(tracks).items()
    ]
    template = ray.get(_train.remote(parameters, *work))
    template_id = f"{parameters.codec.lower()}-{hashlib.sha256(template).hexdigest()[:12]}"
    return template_id, catalogue.put(f"index/{template_id}/template.faiss", template)


@ray.remote(num_cpus=0.5)
def _sample(root: str, key: str, track_ids: list[str], share: float) -> np.ndarray:
    vectors_ND = np.concatenate([vectors for _, vectors in _read(root, key, track_ids)])
    vectors_ND = vectors_ND[vectors_ND.any(axis=1)]
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    chosen = np.random.default_rng(seed).random(len(vectors_ND)) < share
    return vectors_ND[chosen]


@ray.remote(num_cpus=1)
def _train(parameters: IndexParameters, *samples: np.ndarray) -> bytes:
    return train_template(np.concatenate(samples).astype(np.float32), parameters)


def fill_shards(
    catalogue: Catalogue,
    template_id: str,
    template: StoredFile,
    tracks: list[TrackRef],
    say: Callable[[str], None],
) -> list[ShardEntry]:
    """Fill copies of the template with the tracks, in parallel; each shard holds whole tracks."""
    template_ref = ray.put(catalogue.get(template))
    work = [
        _fill.remote(catalogue, template_id, template_ref, group) for group in _shard_groups(tracks)
    ]
    entries = []
    for number, ref in enumerate(work, 1):
        entries.append(ray.get(ref))
        say(f"  shard {number}/{len(work)}: {entries[-1].fingerprints:,} fingerprints")
    return entries


def _shard_groups(tracks: list[TrackRef]) -> Iterable[list[TrackRef]]:
    """Neighbours in the embedding files go together, so that each file is read once."""
    group: list[TrackRef] = []
    size = 0
    for track in sorted(tracks, key=lambda track: (track.embedding_file, track.ordinal)):
        if group and size + track.n_segments > MAX_SHARD_FINGERPRINTS:
            yield group
            group, size = [], 0
        group.append(track)
        size += track.n_segments
    if group:
        yield group


@ray.remote(num_cpus=1)
def _fill(
    catalogue: Catalogue, template_id: str, template: bytes, tracks: list[TrackRef]
) -> ShardEntry:
    found: dict[str, np.ndarray] = {}
    for key, group in _by_file(tracks).items():
        found.update(_read(catalogue.root, key, [track.track_id for track in group]))
    tracks = sorted(tracks, key=lambda track: track.ordinal)
    vectors_ND = np.concatenate([found.pop(track.track_id) for track in tracks])
    counts = np.array([track.n_segments for track in tracks])
    ids_N = np.concatenate([fingerprint_ids(t.ordinal, np.arange(t.n_segments)) for t in tracks])
    heard_N = vectors_ND.any(axis=1)  # silence keeps its row, so rows count time, but is not found
    index = fill(template, vectors_ND[heard_N], ids_N[heard_N])
    table = pa.table(
        {
            "ordinal": pa.array([track.ordinal for track in tracks], pa.int64()),
            "first_row": pa.array(np.cumsum(counts) - counts, pa.int64()),
            "n_segments": pa.array(counts, pa.int64()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    vectors = vectors_ND.tobytes()
    shard_id = hashlib.sha256(index + vectors + buffer.getvalue()).hexdigest()[:16]
    prefix = f"index/{template_id}/{shard_id}"
    return ShardEntry(
        shard_id=shard_id,
        index=catalogue.put(f"{prefix}.faiss", index),
        vectors=catalogue.put(f"{prefix}.vectors", vectors),
        tracks=catalogue.put(f"{prefix}.tracks.parquet", buffer.getvalue()),
        fingerprints=len(vectors_ND),
    )


def _by_file(tracks: list[TrackRef]) -> dict[str, list[TrackRef]]:
    groups: dict[str, list[TrackRef]] = {}
    for track in tracks:
        groups.setdefault(track.embedding_file, []).append(track)
    return groups


def _read(root: str, key: str, track_ids: list[str]) -> Iterable[tuple[str, np.ndarray]]:
    """(track_id, float16 (segments, 128)) of the wanted tracks of one embedding file."""
    data = storage.read(storage.join(root, key))
    table = pq.read_table(io.BytesIO(data), columns=["track_id", "embeddings"])
    wanted = set(track_ids)
    for row, track_id in enumerate(table["track_id"].to_pylist()):
        if track_id in wanted:
            flat = table["embeddings"][row].values.flatten()
            yield track_id, flat.to_numpy(zero_copy_only=False).reshape(-1, DIMENSION)
