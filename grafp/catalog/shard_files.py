"""The files of a shard: its index, its exact fingerprints, its tracks, and a record of them.

index/<index_id>/<shard_id>.faiss           the trained index with fingerprints added
index/<index_id>/<shard_id>.vectors         exact fingerprints, float16, one row after another
index/<index_id>/<shard_id>.tracks.parquet  ordinal, first_row and n_segments of each track
index/<index_id>/<shard_id>.json            the shard's entry in the manifest, written last
"""

import hashlib
import os
import tempfile
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grafp import storage
from grafp.catalog.catalog import Catalog, is_reusable
from grafp.catalog.manifest import Manifest, ShardEntry, StoredFile
from grafp.catalog.tracks import TrackRef
from grafp.errors import CatalogError, StorageError
from grafp.index.ivfpq import health, open_index, parse_index
from grafp.index.shards import DecodedVectors, HalfVectors, Shard
from grafp.model.fingerprint import DIMENSION
from grafp.storage.tables import from_parquet, to_parquet


def write_shard(
    catalog: Catalog,
    key: str,
    tracks: list[TrackRef],
    index: bytes,
    vectors_ND: np.ndarray,
    ids_N: np.ndarray,
) -> ShardEntry:
    """Write a shard's files and measure its health.

    Args:
        key: of its files under the catalog's root, without an extension.
        tracks: in the order of their fingerprints.
        vectors_ND: float16, of all tracks; `ids_N` are their ids.
    """
    counts = np.array([track.n_segments for track in tracks])
    imbalance, recall = health(parse_index(index), vectors_ND, ids_N)
    table = pa.table(
        {
            "ordinal": pa.array([track.ordinal for track in tracks], pa.int64()),
            "first_row": pa.array(np.cumsum(counts) - counts, pa.int64()),
            "n_segments": pa.array(counts, pa.int64()),
        }
    )
    entry = ShardEntry(
        shard_id=os.path.basename(key),
        index=catalog.put(f"{key}.faiss", index),
        vectors=catalog.put(f"{key}.vectors", vectors_ND.tobytes()),
        tracks=catalog.put(f"{key}.tracks.parquet", to_parquet(table)),
        fingerprints=len(vectors_ND),
        imbalance=imbalance,
        recall=recall,
    )
    storage.write(storage.join(catalog.root, entry.record_key), entry.to_json())
    return entry


def finished_shard(catalog: Catalog, key: str) -> ShardEntry | None:
    """A shard that an interrupted run finished; None when there is none that can be used."""
    uri = storage.join(catalog.root, f"{key}.json")
    if not is_reusable(storage.stat(uri)):
        return None
    try:
        entry = ShardEntry.from_json(storage.read(uri), uri)
        for file in entry.files:
            catalog.get(file)
    except (CatalogError, StorageError):
        return None
    return entry


def shard_ordinals(catalog: Catalog, entry: ShardEntry) -> list[int]:
    """The ordinals of a shard's tracks."""
    return from_parquet(catalog.get(entry.tracks), ["ordinal"])["ordinal"].to_pylist()


def open_shards(
    root: str,
    manifest: Manifest,
    *,
    only: Collection[str] | None = None,
    decode: bool = False,
) -> list[Shard]:
    """Open a snapshot's shards for search; from object storage they are first copied here.

    Tracks that were removed or replaced since a shard was made are no answer any more.

    Args:
        root: of the catalog; the manifest's snapshot need not be published.
        only: ids of the shards wanted, instead of all.
        decode: take fingerprints from the index's codes, and leave the exact ones where they are.

    Raises CatalogError when a file is not what was written.
    """
    cache_dir = os.path.join(tempfile.gettempdir(), f"grafp-cache-{os.getuid()}")
    tracks = Catalog(root, manifest).tracks(["ordinal", "status"])
    live = tracks.filter(pc.equal(tracks["status"], "ok"))["ordinal"].to_numpy()
    entries = [entry for entry in manifest.shards if only is None or entry.shard_id in only]
    return [_open_shard(root, entry, cache_dir, live, decode) for entry in entries]


def _open_shard(
    root: str, entry: ShardEntry, cache_dir: str, live: np.ndarray, decode: bool
) -> Shard:
    def local(file: StoredFile) -> str:
        return _checked_copy(storage.join(root, file.key), file.sha256, cache_dir)

    table = pq.read_table(local(entry.tracks))
    index = open_index(local(entry.index))
    ordinals_T, first_rows_T = table["ordinal"].to_numpy(), table["first_row"].to_numpy()

    def exact() -> HalfVectors:
        vectors_N = np.memmap(local(entry.vectors), np.float16, "r")
        return HalfVectors(vectors_N.reshape(-1, DIMENSION))

    return Shard(
        vectors_ND=DecodedVectors(index, ordinals_T, first_rows_T) if decode else exact(),
        ordinals_T=ordinals_T,
        first_rows_T=first_rows_T,
        counts_T=np.where(np.isin(ordinals_T, live), table["n_segments"].to_numpy(), 0),
        index=index,
    )


def _checked_copy(uri: str, sha256: str, cache_dir: str) -> str:
    """A local path to a file whose content was compared with its hash, once on this machine."""
    path = storage.local_copy(uri, cache_dir)
    info = storage.stat(path)
    identity = f"{path}\n{info and info.etag}\n{sha256}"
    mark = os.path.join(cache_dir, hashlib.sha256(identity.encode()).hexdigest()[:32] + ".ok")
    if storage.stat(mark) is None:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            if path.startswith(cache_dir):
                storage.delete(path)  # the next try copies it again
            raise CatalogError(f"{uri}: damaged (its hash differs)")
        storage.write(mark, b"")
    return path
