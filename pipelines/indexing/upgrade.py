"""A catalog of an earlier version to one of this: its fingerprints stay, its index is built again.

Formats 3 to 5 compress embedding files, and their shards are sets of tracks. Neither audio nor
model is needed: every embedding file is written once more, as it is read now. Old snapshots keep
their files until they are cleaned up.
"""

import json
import logging
import os
import time
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from grafp import storage
from grafp.catalog.catalog import Catalog, is_reusable
from grafp.catalog.embeddings import (
    EMBEDDING_SCHEMA,
    by_file,
    damage,
    read_rows,
    write_embeddings,
)
from grafp.catalog.manifest import (
    FORMAT_VERSION,
    OLD_VERSIONS,
    Manifest,
    StoredFile,
    format_version,
)
from grafp.catalog.tracks import TRACK_SCHEMA, Row, TrackRef, live_refs
from grafp.errors import CatalogError
from grafp.index.size import AUTOMATIC, IndexOptions
from grafp.model.fingerprint import DIMENSION
from grafp.storage.records import parse_record
from grafp.storage.tables import from_parquet
from pipelines.common.progress import progress
from pipelines.common.work import Encoders, at_work, connect, start
from pipelines.indexing import upkeep
from pipelines.indexing.calibrate import calibrated, missing_background
from pipelines.indexing.run import Run

logger = logging.getLogger(__name__)

_MOVED = pa.schema(
    [
        ("old_file", pa.large_string()),
        ("track_id", pa.large_string()),
        ("embedding_file", pa.large_string()),
        ("embeddings_at", pa.int64()),
    ]
)


@dataclass(frozen=True)
class OldShard:
    """Some tracks of an old index."""

    shard_id: str
    index: StoredFile
    vectors: StoredFile
    tracks: StoredFile

    @property
    def record_key(self) -> str:
        """Of the shard's record, a file that the manifest does not name."""
        return f"{os.path.dirname(self.index.key)}/{self.shard_id}.json"


@dataclass(frozen=True)
class OldManifest:
    """What is still needed of a snapshot of format 3 to 5: all but its calibration and health."""

    snapshot: str
    created: str
    model_id: str
    model_sha256: str
    hop_s: float
    trained_index: StoredFile | None
    shards: list[OldShard]
    tracks: StoredFile
    next_ordinal: int
    format_version: int
    index_options: IndexOptions = AUTOMATIC

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "OldManifest":
        """Raises CatalogError for a damaged manifest."""
        values = json.loads(data.decode(errors="replace"))
        if "template" in values:  # the name in format 3
            values["trained_index"] = values.pop("template")
        return parse_record(json.dumps(values), cls, name, CatalogError)

    @property
    def files(self) -> list[StoredFile]:
        """All files with a size and a hash that the snapshot needs."""
        trained = [self.trained_index] if self.trained_index else []
        shards = [file for one in self.shards for file in (one.index, one.vectors, one.tracks)]
        return [self.tracks, *trained, *shards]

    def without_index(self) -> Manifest:
        """The snapshot as one of this version that is not indexed yet; not to be published."""
        return Manifest(
            snapshot=self.snapshot,
            parent=None,
            created=self.created,
            model_id=self.model_id,
            model_sha256=self.model_sha256,
            hop_s=self.hop_s,
            trained_index=None,
            parameters=None,
            when_trained=None,
            layers=[],
            tracks=self.tracks,
            positions=self.tracks,  # there is none, and nobody asks
            gone=self.tracks,  # likewise
            next_ordinal=self.next_ordinal,
            counts={},
            index_options=self.index_options,
            format_version=self.format_version,
        )


def manifest_of_any_format(catalog: Catalog, name: str) -> Manifest | OldManifest:
    """A snapshot by its id. Raises CatalogError when there is none or it is damaged."""
    data, uri = catalog.manifest_bytes(name), catalog.manifest_uri(name)
    is_old = format_version(data, uri) in OLD_VERSIONS
    return OldManifest.from_json(data, uri) if is_old else Manifest.from_json(data, uri)


def upgrade(catalog_uri: str, *, workers: int | None = None) -> dict:
    """Publish a snapshot of this version with the tracks of the published one.

    An upgrade that was killed is continued: finished files are not written again. With 0 `workers`
    all work is done in this process.

    Returns the new snapshot's id and counts. Raises CatalogError, with nothing published, when
    something is damaged or another run published meanwhile.
    """
    started = time.monotonic()
    catalog = Catalog.open_published(catalog_uri, _without_index)
    old = catalog.manifest
    assert old is not None
    if old.format_version == FORMAT_VERSION:
        logger.info(f"nothing is due: the catalog has format {FORMAT_VERSION}")
        return _summary(old, FORMAT_VERSION, 0, started)
    model = catalog.model()
    with at_work(Encoders(workers)):
        connect()
        tracks, files = _rewritten(catalog)
        live = live_refs(tracks)
        catalog.put_model(model, missing_background(catalog, model))
        state = upkeep.extend(catalog, upkeep.IndexState.of(old), live)
        run = Run.begin(catalog, old.model_id, old.model_sha256, old.hop_s)
        manifest = calibrated(catalog, run.manifest(tracks, state, old.next_ordinal), live)
    catalog.publish(manifest)
    logger.info(f"published snapshot {manifest.snapshot}, of format {FORMAT_VERSION}")
    return _summary(manifest, old.format_version, files, started)


def _without_index(data: bytes, name: str) -> Manifest:
    if format_version(data, name) in OLD_VERSIONS:
        return OldManifest.from_json(data, name).without_index()
    return Manifest.from_json(data, name)


def _rewritten(catalog: Catalog) -> tuple[pa.Table, int]:
    """The track table with new positions of the fingerprints, and how many files they are in.

    Files without a live track stay as they are: nobody reads their fingerprints.
    """
    table = catalog.tracks()
    is_removed = pc.equal(table["status"], "withdrawn")  # the word in format 3
    table = _with(table, "status", pc.if_else(is_removed, "removed", table["status"]))
    table = table.append_column("embeddings_at", pa.array([None] * len(table), pa.int64()))
    groups = by_file(live_refs(table).values())
    logger.info(f"{len(groups)} embedding files to write in format {FORMAT_VERSION}")
    work = [start(_rewrite, catalog.root, key, one, cpus=1) for key, one in groups.items()]
    parts = [_MOVED.empty_table()]
    with progress("embedding files", len(work)) as advance:
        for moved_rows in work:
            parts.append(moved_rows.result())
            advance()
    moved = pa.concat_tables(parts).combine_chunks()
    stored_as = pc.coalesce(table["stored_as"], table["track_id"])
    row_N = pc.index_in(
        _joined(table["embedding_file"], stored_as),
        value_set=_joined(moved["old_file"], moved["track_id"]).combine_chunks(),
    )
    moved = moved.take(row_N)  # a row of nulls where a track's file stays as it is
    for name in ("embedding_file", "embeddings_at"):
        table = _with(table, name, pc.coalesce(moved[name], table[name]))
    return table.cast(TRACK_SCHEMA), len(groups)


def _with(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)


def _joined(file: pa.ChunkedArray, track_id: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(file, track_id, pa.scalar("/", pa.large_string()))


def _rewrite(root: str, key: str, tracks: list[TrackRef]) -> pa.Table:
    """Write an old embedding file in this format, unless that is done; where its tracks are now.

    Raises CatalogError when it is damaged or one of the tracks is not in it.
    """
    folder = f"{os.path.dirname(key)}-format{FORMAT_VERSION}"
    new = f"{folder}/{os.path.basename(key)}"
    if not is_reusable(storage.stat(storage.join(root, new))) or damage(root, new, tracks):
        new, _ = write_embeddings(root, folder, _old_rows(root, key, tracks))
    rows = [{**row, "old_file": key} for row in read_rows(root, new)]
    return pa.Table.from_pylist(rows, schema=_MOVED)


def _old_rows(root: str, key: str, tracks: list[TrackRef]) -> list[Row]:
    if reason := damage(root, key, tracks):
        raise CatalogError(reason)
    table = from_parquet(storage.read(storage.join(root, key)), EMBEDDING_SCHEMA.names)
    rows = table.drop_columns(["embeddings"]).to_pylist()
    for number, row in enumerate(rows):
        flat_N = table["embeddings"][number].values.flatten().to_numpy(zero_copy_only=False)
        row["embeddings"] = flat_N.reshape(-1, DIMENSION)
        if len(row["embeddings"]) != (row["n_segments"] or 0):
            raise CatalogError(f"{root}/{key}: not the number of fingerprints of {row['uri']}")
    return rows


def _summary(manifest: Manifest, version: int, files: int, started: float) -> dict:
    return {
        "snapshot": manifest.snapshot,
        "format_before": version,
        "rewritten_files": files,
        "shards": len(manifest.shards),
        **manifest.counts,
        "seconds": round(time.monotonic() - started, 2),
    }
