"""The files of the index: codes by list, tracks of a layer, and records of what is finished.

index/<index_id>/<shard_id>.codes.parquet   list, id and code of fingerprints, sorted by list
index/<index_id>/<shard_id>.json            the shard's entry in the manifest, written last
index/<index_id>/<layer>.tracks.parquet     ordinals of the tracks of a layer
snapshots/<id>.positions.parquet               where the exact fingerprints of live tracks are
snapshots/<id>.gone.parquet                 ordinals in the layers that are no answer any more
"""

import os
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grafp import storage
from grafp.catalog.catalog import Catalog, is_reusable
from grafp.catalog.manifest import ShardEntry, StoredFile
from grafp.catalog.tracks import TRACK_SCHEMA, LiveTracks
from grafp.errors import CatalogError, StorageError
from grafp.index.codes import Codes
from grafp.storage.tables import from_parquet, to_parquet

_ROWS = 1 << 16  # of a row group: what is read to get at a few lists
POSITION_SCHEMA = pa.schema(
    [
        TRACK_SCHEMA.field(name)
        for name in ("ordinal", "embedding_file", "embeddings_at", "n_segments")
    ]
)


def write_shard(
    catalog: Catalog, key: str, codes: Codes, lists: range, recall: float
) -> ShardEntry:
    """Write sorted codes and their record; `key`: under the catalog's root, no extension."""
    code_NB = np.ascontiguousarray(codes.code_NB)
    code = pa.Array.from_buffers(
        pa.binary(code_NB.shape[1]), len(codes), [None, pa.py_buffer(code_NB)]
    )
    table = pa.table({"list": codes.list_N, "id": codes.id_N, "code": code})
    data = to_parquet(
        table,
        row_group_size=_ROWS,
        compression={"list": "zstd", "id": "zstd", "code": "none"},
        use_dictionary=False,
        write_statistics=["list"],
    )
    entry = ShardEntry(
        shard_id=os.path.basename(key),
        codes=catalog.put(f"{key}.codes.parquet", data),
        first_list=lists.start,
        after_list=lists.stop,
        fingerprints=len(codes),
        imbalance=round(codes.imbalance(lists), 3),
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
        catalog.get(entry.codes)
    except (CatalogError, StorageError):
        return None
    return entry


def read_codes(root: str, entry: ShardEntry, lists: range | None = None) -> Codes:
    """The codes of a shard, or those in some lists; only the row groups with them are read.

    Raises CatalogError when the file is damaged.
    """
    uri = storage.join(root, entry.codes.key)
    path, filesystem = storage.arrow_filesystem(uri)
    within = None if lists is None else [("list", ">=", lists.start), ("list", "<", lists.stop)]
    try:
        table = pq.read_table(
            path, filesystem=filesystem, filters=within, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"{uri}: damaged ({' '.join(str(error).split())[:200]})") from error
    code = table["code"].combine_chunks()
    width = code.type.byte_width
    code_N = np.frombuffer(code.buffers()[1], np.uint8) if len(code) else np.zeros(0, np.uint8)
    first = code.offset * width
    return Codes(
        table["list"].to_numpy(),
        table["id"].to_numpy(),
        code_N[first : first + len(code) * width].reshape(-1, width),
    )


def codes_within(root: str, entries: Sequence[ShardEntry], lists: range) -> Codes:
    """The codes of several shards in some lists, sorted. Raises CatalogError."""
    return Codes.together([read_codes(root, e, lists) for e in entries if e.reaches(lists)])


def write_ordinals(catalog: Catalog, key: str, ordinals: Iterable[int]) -> StoredFile:
    """A list of tracks, sorted."""
    table = pa.table({"ordinal": np.sort(np.fromiter(ordinals, np.int64))})
    return catalog.put(key, to_parquet(table))


def read_ordinals(catalog: Catalog, file: StoredFile) -> np.ndarray:
    """int64, ascending. Raises CatalogError when the file is damaged."""
    return from_parquet(catalog.get(file))["ordinal"].to_numpy()


def write_positions(catalog: Catalog, key: str, live: LiveTracks) -> StoredFile:
    """Where the fingerprints of the live tracks are, by ordinal."""
    table = live.table(POSITION_SCHEMA.names)
    return catalog.put(key, to_parquet(table, row_group_size=_ROWS, compression="zstd"))


def read_positions(root: str, file: StoredFile, ordinals: range | None = None) -> pa.Table:
    """The positions of all live tracks, or of those with such ordinals."""
    path, filesystem = storage.arrow_filesystem(storage.join(root, file.key))
    within = None
    if ordinals is not None:
        within = [("ordinal", ">=", ordinals.start), ("ordinal", "<", ordinals.stop)]
    try:
        return pq.read_table(
            path, filesystem=filesystem, filters=within, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(
            f"{root}/{file.key}: damaged ({' '.join(str(error).split())})"
        ) from error
