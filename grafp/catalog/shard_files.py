"""The files of a shard: its index, its exact fingerprints, and which tracks it holds."""

import hashlib
import os
import tempfile
from collections.abc import Collection

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, ShardEntry, StoredFile
from grafp.errors import CatalogError
from grafp.index.ivfpq import open_index
from grafp.index.shards import DecodedVectors, Shard
from grafp.model.fingerprint import DIMENSION


def open_shards(
    root: str,
    manifest: Manifest,
    *,
    only: Collection[str] | None = None,
    decode: bool = False,
) -> list[Shard]:
    """Open a snapshot's shards for search; from object storage they are first copied here.

    Tracks that were withdrawn or replaced since a shard was filled are no answer any more.

    Args:
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
    return Shard(
        index=index,
        vectors_ND=DecodedVectors(index, ordinals_T, first_rows_T)
        if decode
        else np.memmap(local(entry.vectors), np.float16, "r").reshape(-1, DIMENSION),
        ordinals_T=ordinals_T,
        first_rows_T=first_rows_T,
        counts_T=np.where(np.isin(ordinals_T, live), table["n_segments"].to_numpy(), 0),
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
