"""Embedding files to shards: train the index once, encode in parallel, merge the codes by list.

What a trained index or a shard contains depends only on the tracks that go in, and its name is a
hash of them. The next run does the same again after an interruption, and finds what is finished.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from grafp import storage
from grafp.catalog.catalog import Catalog, is_reusable
from grafp.catalog.embeddings import by_file, read_fingerprints
from grafp.catalog.manifest import FORMAT_VERSION, Layer, ShardEntry, StoredFile
from grafp.catalog.shard_files import (
    codes_within,
    finished_shard,
    read_codes,
    read_ordinals,
    write_ordinals,
    write_shard,
)
from grafp.catalog.tracks import TrackRef
from grafp.index.codes import Codes
from grafp.index.ids import fingerprint_ids, ordinals_of
from grafp.index.ivfpq import encode, parse_index, train_index
from grafp.index.lists import recall
from grafp.index.size import MAX_SHARD_FINGERPRINTS, IndexParameters, populate_bytes
from grafp.model.fingerprint import DIMENSION
from pipelines.common.progress import progress
from pipelines.common.work import Pending, gather, has_gpu, share, start

T = TypeVar("T")


def train(catalog: Catalog, tracks: list[TrackRef], parameters: IndexParameters) -> StoredFile:
    """Train an index on a random sample over all tracks; returns where it is stored."""
    index_id = (
        f"{parameters.codec.lower()}-{_name([FORMAT_VERSION, asdict(parameters)], tracks)[:12]}"
    )
    key = f"index/{index_id}/trained.faiss"
    uri = storage.join(catalog.root, key)
    published = catalog.manifest.trained_index if catalog.manifest else None
    if is_reusable(storage.stat(uri)):
        data = storage.read(uri)
        stored = StoredFile(key, len(data), hashlib.sha256(data).hexdigest())
        if not published or published.key != key or published == stored:  # else it was damaged
            return stored
    part = min(1.0, parameters.training_points / max(1, sum(t.n_segments for t in tracks)))
    samples = [
        start(_sample, catalog.root, file, group, part, cpus=0.5)
        for file, group in by_file(tracks).items()
    ]
    trained = start(_train, parameters, *samples, cpus=1, gpu="free")
    return catalog.put(key, trained.result())


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


def _train(parameters: IndexParameters, *samples: list[tuple[int, np.ndarray]]) -> bytes:
    parts = sorted((part for sample in samples for part in sample), key=lambda part: part[0])
    sample_ND = np.concatenate([v.astype(np.float32) for _, v in parts])
    return train_index(sample_ND, parameters, gpu=has_gpu())


def build_layer(catalog: Catalog, trained_index: StoredFile, tracks: list[TrackRef]) -> Layer:
    """Encode the tracks in parallel, and merge their codes by list if there is more than one task.

    A task holds at most MAX_SHARD_FINGERPRINTS; see `populate_bytes`.
    """
    trained = share(catalog.get(trained_index))
    index_id = _index_id(trained_index)
    work = []
    for group in _groups(tracks):
        memory = populate_bytes(sum(track.n_segments for track in group))
        given = catalog.root, index_id, trained, group
        work.append(start(_encode, *given, cpus=1, memory=memory, gpu="share"))
    encoded = list(_followed("parts encoded", work))
    shards = [entry for entry, _ in encoded]
    if len(shards) > 1:
        shards = _merged(catalog.root, index_id, shards, _ranges(encoded), [])
    return _layer(catalog, index_id, shards, {track.ordinal for track in tracks})


def merge_layers(
    catalog: Catalog, trained_index: StoredFile, layers: Sequence[Layer], live_T: np.ndarray
) -> Layer:
    """One layer of several, without tracks that are no answer any more; nothing is encoded again.

    `live_T`: the ordinals of all tracks that are one.
    """
    held = np.unique(np.concatenate([read_ordinals(catalog, layer.tracks) for layer in layers]))
    gone = np.setdiff1d(held, live_T)
    entries = [entry for layer in layers for entry in layer.shards]
    largest = max(layers, key=lambda layer: layer.fingerprints)
    bounds = [start(_bounds, catalog.root, entry, cpus=0.5) for entry in largest.shards]
    known = list(zip(largest.shards, gather(bounds), strict=True))
    ranges = _ranges(known, sum(entry.fingerprints for entry in entries))
    index_id = _index_id(trained_index)
    shards = _merged(catalog.root, index_id, entries, ranges, gone.tolist())
    return _layer(catalog, index_id, shards, set(held.tolist()) - set(gone.tolist()))


def _layer(catalog: Catalog, index_id: str, shards: list[ShardEntry], ordinals: set[int]) -> Layer:
    name = _hash([sorted(entry.shard_id for entry in shards), sorted(ordinals)])
    return Layer(
        shards, write_ordinals(catalog, f"index/{index_id}/{name}.tracks.parquet", ordinals)
    )


def _ranges(
    encoded: Sequence[tuple[ShardEntry, np.ndarray]], fingerprints: int | None = None
) -> list[range]:
    """All lists, divided so that about MAX_SHARD_FINGERPRINTS are in each range.

    `encoded`: parts with the lists of some of their fingerprints, see `_quantiles`.
    """
    list_N = np.concatenate([bound_B for _, bound_B in encoded])
    weight_N = np.concatenate(
        [np.full(len(bound_B), entry.fingerprints / len(bound_B)) for entry, bound_B in encoded]
    )
    order = np.argsort(list_N, kind="stable")
    before_N = np.cumsum(weight_N[order]) - weight_N[order]
    total = fingerprints or sum(entry.fingerprints for entry, _ in encoded)
    count = -(-total // MAX_SHARD_FINGERPRINTS)
    cuts = before_N[-1] * np.arange(1, count) / count
    inner = set(list_N[order][np.searchsorted(before_N, cuts)].tolist())
    first, after = encoded[0][0].first_list, max(entry.after_list for entry, _ in encoded)
    edges = sorted({first, after} | inner)
    return [range(*edge) for edge in itertools.pairwise(edges)]


def _merged(
    root: str, index_id: str, entries: list[ShardEntry], ranges: list[range], gone: list[int]
) -> list[ShardEntry]:
    name = [sorted(entry.shard_id for entry in entries), gone]
    without, parts = share(np.array(gone, np.int64)), share(entries)
    memory = populate_bytes(MAX_SHARD_FINGERPRINTS)
    keys = (f"index/{index_id}/{_hash([name, one.start, one.stop])}" for one in ranges)
    work = [
        start(_merge, root, key, parts, lists, without, cpus=1, memory=memory)
        for key, lists in zip(keys, ranges, strict=True)
    ]
    return list(_followed("shards merged", work))


def _followed(what: str, work: Sequence[Pending[T]]) -> Iterator[T]:
    """The results of tasks, in order; shows progress."""
    with progress(what, len(work)) as advance:
        for task in work:
            yield task.result()
            advance()


def _groups(tracks: list[TrackRef]) -> Iterator[list[TrackRef]]:
    """The tracks of each task, by ordinal."""
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


def _encode(
    root: str, index_id: str, trained: bytes, tracks: list[TrackRef]
) -> tuple[ShardEntry, np.ndarray]:
    """The codes of some tracks in all lists, their record written last; and see `_ranges`."""
    catalog, key = Catalog(root), f"index/{index_id}/{_name(index_id, tracks)[:16]}"
    if entry := finished_shard(catalog, key):
        return entry, _quantiles(read_codes(root, entry))
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
    codes = encode(trained, vectors_ND, ids_N, gpu=has_gpu())
    index = parse_index(trained)
    found = recall(index, codes, vectors_ND, ids_N)
    return write_shard(catalog, key, codes, range(index.nlist), found), _quantiles(codes)


def _bounds(root: str, entry: ShardEntry) -> np.ndarray:
    return _quantiles(read_codes(root, entry))


def _quantiles(codes: Codes) -> np.ndarray:
    """The lists of about a hundred fingerprints, evenly spread, and of one at least."""
    return codes.list_N[:: max(1, len(codes) // 100)] if len(codes) else np.zeros(1, np.int32)


def _merge(
    root: str, key: str, entries: list[ShardEntry], lists: range, gone: np.ndarray
) -> ShardEntry:
    """What is in some lists of several shards, its record written last."""
    catalog = Catalog(root)
    if entry := finished_shard(catalog, key):
        return entry
    codes = codes_within(root, entries, lists)
    if len(gone):
        codes = codes.at(~np.isin(ordinals_of(codes.id_N), gone))
    near = [entry for entry in entries if entry.reaches(lists)]
    weights = [entry.fingerprints for entry in near]
    found = float(np.average([e.recall for e in near], weights=weights)) if sum(weights) else 1.0
    return write_shard(catalog, key, codes, lists, round(found, 4))


def _index_id(trained_index: StoredFile) -> str:
    return trained_index.key.split("/")[1]


def _name(what: Any, tracks: list[TrackRef]) -> str:
    """A hash of everything that decides what a trained index or codes contain."""
    content = [[t.ordinal, t.content_sha256, t.n_segments] for t in tracks]
    return hashlib.sha256(json.dumps([what, content], sort_keys=True).encode()).hexdigest()


def _hash(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
