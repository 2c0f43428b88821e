"""Embedding files to shards: train a template once, fill copies of it in parallel.

What a template or shard contains depends only on the tracks that go in, and its name says which
those are: a run that died is continued by doing the same again, and finds what is finished.
"""

import hashlib
import io
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import by_file, read_fingerprints
from grafp.catalog.manifest import ShardEntry, StoredFile
from grafp.catalog.tracks import TrackRef
from grafp.errors import CatalogError, StorageError
from grafp.index.ivfpq import fill, fingerprint_ids, health, parse_index, train_template
from grafp.index.size import MAX_SHARD_FINGERPRINTS, IndexParameters
from grafp.model.fingerprint import DIMENSION
from pipelines.common.placement import memory_claim

logger = logging.getLogger(__name__)

_BYTES_A_FINGERPRINT = 500  # of a filling task: benchmarks/merge.py, two at once, 1.6 GiB
_FILL_BYTES = 500 << 20  # of any filling task: Python, libraries, one embedding file
REUSE_SECONDS = 7 * 86_400
"""Leftovers of dead runs are used this long; cleaning up spares them for longer."""


def is_fresh(info: storage.FileInfo | None) -> bool:
    """Whether a leftover is there and too young to be cleaned up while it is used."""
    return info is not None and time.time() - info.modified < REUSE_SECONDS


def filling_bytes(fingerprints: int) -> int:
    """Memory of the task that fills a shard with so many, or the largest shard, at its peak."""
    return _FILL_BYTES + _BYTES_A_FINGERPRINT * min(fingerprints, MAX_SHARD_FINGERPRINTS)


def train(
    catalog: Catalog, tracks: list[TrackRef], parameters: IndexParameters
) -> tuple[str, StoredFile]:
    """Train a template on a random sample over all tracks; its id and where it is."""
    name = _name(asdict(parameters), tracks)
    template_id = f"{parameters.codec.lower()}-{name[:12]}"
    key = f"index/{template_id}/template.faiss"
    uri = storage.join(catalog.root, key)
    published = catalog.manifest.template if catalog.manifest else None
    if is_fresh(storage.stat(uri)):
        data = storage.read(uri)
        stored = StoredFile(key, len(data), hashlib.sha256(data).hexdigest())
        if not published or published.key != key or published == stored:  # else it was damaged
            return template_id, stored
    share = min(1.0, parameters.training_points / max(1, sum(t.n_segments for t in tracks)))
    work = [
        _sample.remote(catalog.root, key, group, share) for key, group in by_file(tracks).items()
    ]
    template = ray.get(_train.remote(parameters, *work))
    return template_id, catalog.put(key, template)


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
    return train_template(np.concatenate([v.astype(np.float32) for _, v in parts]), parameters)


def fill_shards(
    catalog: Catalog,
    template_id: str,
    template: StoredFile,
    tracks: list[TrackRef],
) -> list[ShardEntry]:
    """Fill copies of the template with the tracks, in parallel; each shard holds whole tracks.

    A filling task holds one shard, of at most MAX_SHARD_FINGERPRINTS; see `filling_bytes`.
    """
    template_ref = ray.put(catalog.get(template))
    work = []
    for group in _shard_groups(tracks):
        size = sum(track.n_segments for track in group)
        memory = memory_claim(filling_bytes(size))
        work.append(
            _fill.options(memory=memory).remote(catalog.root, template_id, template_ref, group)
        )
    entries = []
    for number, ref in enumerate(work, 1):
        entries.append(ShardEntry.from_dict(ray.get(ref)))
        logger.info(f"  shard {number}/{len(work)}: {entries[-1].fingerprints:,} fingerprints")
    return entries


def _shard_groups(tracks: list[TrackRef]) -> Iterable[list[TrackRef]]:
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
def _fill(root: str, template_id: str, template: bytes, tracks: list[TrackRef]) -> dict[str, Any]:
    """One shard, its record written last; returns the record."""
    shard_id = _name(template_id, tracks)[:16]
    prefix = f"index/{template_id}/{shard_id}"
    record = storage.join(root, f"{prefix}.json")
    catalog = Catalog(root)
    if is_fresh(storage.stat(record)):
        found = ShardEntry.from_dict(json.loads(storage.read(record)))
        if _is_whole(catalog, found):
            return asdict(found)
    counts = np.array([track.n_segments for track in tracks])
    first_rows = np.cumsum(counts) - counts
    vectors_ND = np.zeros((counts.sum(), DIMENSION), np.float16)
    place = {track.ordinal: row for track, row in zip(tracks, first_rows, strict=True)}
    for key, group in by_file(tracks).items():
        for track, part_ND in read_fingerprints(root, key, group):
            row = place.pop(track.ordinal)
            vectors_ND[row : row + len(part_ND)] = part_ND
    assert not place, f"embeddings of {len(place)} tracks are missing"
    ids_N = np.concatenate([fingerprint_ids(t.ordinal, np.arange(t.n_segments)) for t in tracks])
    index = fill(template, vectors_ND, ids_N)
    imbalance, canary = health(parse_index(index), vectors_ND, ids_N)
    table = pa.table(
        {
            "ordinal": pa.array([track.ordinal for track in tracks], pa.int64()),
            "first_row": pa.array(first_rows, pa.int64()),
            "n_segments": pa.array(counts, pa.int64()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    entry = ShardEntry(
        shard_id=shard_id,
        index=catalog.put(f"{prefix}.faiss", index),
        vectors=catalog.put(f"{prefix}.vectors", vectors_ND.tobytes()),
        tracks=catalog.put(f"{prefix}.tracks.parquet", buffer.getvalue()),
        fingerprints=len(vectors_ND),
        imbalance=imbalance,
        canary=canary,
    )
    storage.write(record, json.dumps(asdict(entry)).encode())
    return asdict(entry)


def _is_whole(catalog: Catalog, entry: ShardEntry) -> bool:
    try:
        for file in (entry.index, entry.vectors, entry.tracks):
            catalog.get(file)
    except (CatalogError, StorageError):
        return False
    return True


def _name(what: Any, tracks: list[TrackRef]) -> str:
    """A hash of everything that decides what a template or shard contains."""
    content = [[t.ordinal, t.content_sha256, t.n_segments] for t in tracks]
    return hashlib.sha256(json.dumps([what, content], sort_keys=True).encode()).hexdigest()
