"""A catalog: immutable snapshots over embedding files, trained indexes and shards, and one pointer.

    CURRENT                              the published snapshot's id
    snapshots/<id>.json                  manifest: everything a reader needs, with sizes and hashes
    snapshots/<id>.tracks.parquet        one row per recording, failed ones included
    snapshots/<id>.{positions,gone}.parquet where exact fingerprints are; tracks that are no answer
    models/<model_id>/                   the bundle that made the fingerprints
    embeddings/<model_id>/<run>/*.parquet  the exact fingerprints
    index/<index_id>/trained.faiss       the trained index, without fingerprints
    index/<index_id>/<shard_id>.*        a shard: codes of a layer in a range of lists
    index/<index_id>/<layer>.tracks.parquet  the tracks of a layer
    runs/<run>/                          summary.json, report.html, duplicates.parquet

Everything is written under a new name; replacing CURRENT publishes it and comes last.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from grafp import storage
from grafp.catalog.manifest import Manifest, StoredFile
from grafp.catalog.tracks import TRACK_SCHEMA, tracks_from_bytes
from grafp.errors import CatalogError, OptionError
from grafp.index.acceptance import DEFAULT_FPR, HIGHEST_FPR, LOWEST_FPR, Acceptance
from grafp.model.background import FILE as BACKGROUND
from grafp.model.background import Background, parse_background
from grafp.model.bundle import ModelCard, read_background, read_card

logger = logging.getLogger(__name__)

REUSE_SECONDS = 7 * 86_400
"""Files of interrupted runs are used this long; cleaning up keeps them for longer."""


def is_reusable(info: storage.FileInfo | None) -> bool:
    """Whether a file of an interrupted run is there, and too young to be cleaned up meanwhile."""
    return info is not None and time.time() - info.modified < REUSE_SECONDS


@dataclass
class Catalog:
    """A catalog's root and its published snapshot, if there is one."""

    root: str
    manifest: Manifest | None = None
    current_etag: str | None = field(default=None, repr=False)
    _model: ModelCard | None = field(default=None, init=False, repr=False)

    @classmethod
    def open(
        cls, root: str, parse: Callable[[bytes, str], Manifest] = Manifest.from_json
    ) -> "Catalog":
        """Read what is published; a root with nothing in it opens empty.

        `parse` makes a manifest of its bytes and its name.

        Raises StorageError when the store cannot be reached, CatalogError when it is damaged.
        """
        root = storage.absolute(root)
        pointer = storage.join(root, "CURRENT")
        info = storage.stat(pointer)
        if info is None:
            return cls(root)
        catalog = cls(root, None, info.etag)
        name = storage.read(pointer).decode(errors="replace").strip()
        catalog.manifest = parse(catalog.manifest_bytes(name), catalog.manifest_uri(name))
        return catalog

    @classmethod
    def open_published(
        cls, root: str, parse: Callable[[bytes, str], Manifest] = Manifest.from_json
    ) -> "Catalog":
        """Like `open`; raises CatalogError when there is no catalog."""
        catalog = cls.open(root, parse)
        if catalog.manifest is None:
            raise CatalogError(
                f"{root}: no catalog here (no CURRENT file); make one with `grafp index`"
            )
        return catalog

    def snapshot(self, name: str) -> Manifest:
        """A snapshot by its id. Raises CatalogError when there is none or it is damaged."""
        return Manifest.from_json(self.manifest_bytes(name), self.manifest_uri(name))

    def manifest_uri(self, name: str) -> str:
        """Where a snapshot's manifest is, as errors name it."""
        return storage.join(self.root, f"snapshots/{name}.json")

    def manifest_bytes(self, name: str) -> bytes:
        """A snapshot's manifest as stored, in any format. Raises CatalogError if there is none."""
        uri = self.manifest_uri(name)
        if "/" in name or storage.stat(uri) is None:
            raise CatalogError(f"{self.root}: no snapshot {name!r}")
        return storage.read(uri)

    def put(self, key: str, data: bytes) -> StoredFile:
        """Write a file under the root."""
        storage.write(storage.join(self.root, key), data)
        return StoredFile(key, len(data), hashlib.sha256(data).hexdigest())

    def get(self, file: StoredFile) -> bytes:
        """Read a file and check it. Raises CatalogError when it is not what was written."""
        data = storage.read(storage.join(self.root, file.key))
        if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            raise CatalogError(f"{self.root}/{file.key}: damaged (size or hash differs)")
        return data

    def check_files(self, manifest: Manifest) -> None:
        """Raise CatalogError when a file that a snapshot needs is missing or was cut off."""
        for file in manifest.files:
            info = storage.stat(storage.join(self.root, file.key))
            if info is None or info.size != file.bytes:
                state = "missing" if info is None else "damaged (wrong size)"
                raise CatalogError(f"{self.root}/{file.key}: {state}")

    def publish(self, manifest: Manifest) -> None:
        """Make a snapshot the current one.

        Raises CatalogError, having changed nothing that a reader sees, when somebody else
        published since this catalog was opened.
        """
        key = self.manifest_uri(manifest.snapshot)
        if storage.stat(key) is None:  # a snapshot that is rolled back to is not written again
            storage.write(key, manifest.to_json())
        pointer = storage.join(self.root, "CURRENT")
        content = f"{manifest.snapshot}\n".encode()
        stored = storage.replace(pointer, content, self.current_etag)
        # Not stored, but ours: only the reply to the first attempt was lost.
        if not stored and storage.read(pointer) != content:
            raise CatalogError(
                f"{self.root}: another run published meanwhile; nothing was changed, run again"
            )
        info = storage.stat(pointer)
        self.manifest, self.current_etag = manifest, info.etag if info else None

    def tracks(self, columns: list[str] | None = None) -> pa.Table:
        """All recordings of the snapshot; empty when there is none."""
        if self.manifest is None:
            return TRACK_SCHEMA.empty_table()
        return tracks_from_bytes(self.get(self.manifest.tracks), columns)

    def live_tracks(self) -> dict[int, list[str]]:
        """The tracks that can be an answer: ordinal to URIs, several for exact copies."""
        tracks = self.tracks(["ordinal", "uri", "status"])
        tracks = tracks.filter(pc.equal(tracks["status"], "ok"))
        uris: dict[int, list[str]] = {}
        for ordinal, uri in zip(tracks["ordinal"].to_pylist(), tracks["uri"].to_pylist()):
            uris.setdefault(ordinal, []).append(uri)
        return uris

    def put_model(self, model: ModelCard, background: bytes | None = None) -> str:
        """Keep the bundle beside what it made, so that a query needs the catalog alone."""
        uri = storage.join(self.root, "models", model.model_id)
        files = model.files if background is None else {**model.files, BACKGROUND: background}
        for name, data in files.items():
            info = storage.stat(storage.join(uri, name))
            if info is None or info.size != len(data):
                self.put(f"models/{model.model_id}/{name}", data)
        return uri

    def model_uri(self) -> str:
        """Where the bundle is that made the published snapshot."""
        assert self.manifest is not None
        return storage.join(self.root, "models", self.manifest.model_id)

    def model(self) -> ModelCard:
        """The model that made the published snapshot. Raises CatalogError if it differs."""
        assert self.manifest is not None
        if self._model is None:  # weights are read, to check them: once is enough
            self._model = read_card(self.model_uri())
        if self._model.sha256 != self.manifest.model_sha256:
            raise CatalogError(f"{self.model_uri()}: not the model that made this catalog")
        return self._model

    def background(self) -> Background | None:
        """The background of the model, if its bundle has one. Raises ModelError if it differs."""
        uri, model = self.model_uri(), self.model()
        data = read_background(uri)
        return None if data is None else parse_background(data, model.sha256, uri)

    def acceptance(self, fpr: float | None = None, min_score: float | None = None) -> Acceptance:
        """Which answers are accepted.

        Args:
            fpr: queries that are not in the catalog, yet matched, as a share; default:
                `DEFAULT_FPR`, or what the model's card says if the snapshot has no calibration.
            min_score: accept from this score on, whatever the rate.

        Raises CatalogError when a rate is asked for that is not known, OptionError for one that
        no calibration has.
        """
        assert self.manifest is not None
        if fpr is not None and not LOWEST_FPR <= fpr <= HIGHEST_FPR:
            raise OptionError(f"fpr: {fpr:g} is not between {LOWEST_FPR:g} and {HIGHEST_FPR:g}")
        calibration = self.manifest.calibration
        if min_score is not None:
            return Acceptance(calibration, min_score=lambda _: min_score)
        if calibration:
            return Acceptance(calibration, fpr or DEFAULT_FPR)
        why = (
            f"{self.root}: this snapshot has no calibration, so the false-positive rates of its "
            "answers are not known; `grafp merge` makes one where the model has a background"
        )
        if fpr is not None:
            raise CatalogError(f"{why}; until then give min_score (--min-score) instead of fpr")
        logger.warning(f"{why}; answers are accepted by their score alone")
        return Acceptance(None, min_score=self.model().min_score)
