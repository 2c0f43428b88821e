"""What a snapshot says of itself: its files with sizes and hashes, its index, its calibration."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from grafp.errors import CatalogError
from grafp.index.alignment import CANDIDATES, NEIGHBORS
from grafp.index.calibration import Calibration
from grafp.index.size import AUTOMATIC, IndexOptions, IndexParameters
from grafp.model.fingerprint import query_stride
from grafp.storage.records import parse_record

FORMAT_VERSION = 5
_NAMES_BEFORE = {"template": "trained_index", "canary": "recall"}
"""Names in format 3. It is read too, and so is format 4, without their thresholds."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the catalog: where under its root, and what it must contain."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardEntry:
    """A part of the index with its tracks, as the manifest names it."""

    shard_id: str
    index: StoredFile
    vectors: StoredFile
    tracks: StoredFile
    fingerprints: int
    imbalance: float
    """FAISS's imbalance of the inverted lists: 1 is even; searching costs as much more."""
    recall: float
    """Share of recall probes, fingerprints with noise added, that the index finds again."""

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "ShardEntry":
        """Raises CatalogError for a damaged record."""
        return parse_record(_renamed(data, name), cls, name, CatalogError)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @property
    def record_key(self) -> str:
        """Of the entry as a file of its own, beside the index."""
        return f"{os.path.dirname(self.index.key)}/{self.shard_id}.json"

    @property
    def files(self) -> tuple[StoredFile, StoredFile, StoredFile]:
        return self.index, self.vectors, self.tracks


@dataclass(frozen=True)
class Manifest:
    """One snapshot. Immutable once published."""

    snapshot: str
    parent: str | None
    created: str
    model_id: str
    model_sha256: str
    hop_s: float
    trained_index: StoredFile | None
    parameters: IndexParameters | None
    when_trained: dict[str, float] | None
    """`index_health` just after the index was trained."""
    shards: list[ShardEntry]
    tracks: StoredFile
    next_ordinal: int
    counts: dict[str, int]
    calibration: Calibration | None = None
    """What answers are worth; None if the model has no background to measure it with."""
    index_options: IndexOptions = AUTOMATIC
    """What was asked of the index; catalogs made before there were options have none."""
    format_version: int = FORMAT_VERSION

    @property
    def nprobe(self) -> int:
        """Lists to search for each query fingerprint."""
        return self.index_options.probes or (self.parameters.nprobe if self.parameters else 1)

    @property
    def neighbors(self) -> int:
        """Nearest fingerprints to find for each query fingerprint."""
        return self.index_options.neighbors or NEIGHBORS

    @property
    def candidates(self) -> int:
        """Proposals to score exactly for each query."""
        return self.index_options.candidates or CANDIDATES

    @property
    def stride(self) -> int:
        """Query hops between two fingerprints of the catalog."""
        return query_stride(self.hop_s)

    @property
    def query_hop_s(self) -> float:
        """Seconds between two fingerprints of a query."""
        return self.hop_s / self.stride

    @property
    def files(self) -> list[StoredFile]:
        """All files with a size and a hash that this snapshot needs."""
        trained = [self.trained_index] if self.trained_index else []
        return [self.tracks, *trained, *(file for entry in self.shards for file in entry.files)]

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "Manifest":
        """Raises CatalogError for another version or a damaged manifest."""
        manifest = parse_record(_renamed(data, name), cls, name, CatalogError)
        folder = os.path.dirname(manifest.trained_index.key) if manifest.trained_index else ""
        for entry in manifest.shards:
            if any(os.path.dirname(file.key) != folder for file in entry.files):
                raise CatalogError(f"{name}: shard {entry.shard_id} is of another trained index")
        return manifest


def index_health(shards: Sequence[ShardEntry]) -> dict[str, float]:
    """Recall and imbalance of the lists, means over the fingerprints; empty without shards."""
    if not shards:
        return {}
    sizes = [entry.fingerprints for entry in shards]
    recall, imbalance = (
        float(np.average([getattr(entry, name) for entry in shards], weights=sizes))
        for name in ("recall", "imbalance")
    )
    return {"recall": round(recall, 4), "imbalance": round(imbalance, 3)}


def _renamed(data: bytes, name: str) -> str:
    """A record with the names of this format. Raises CatalogError for another version."""
    try:
        values = json.loads(
            data, object_hook=lambda pairs: {_NAMES_BEFORE.get(k, k): v for k, v in pairs.items()}
        )
    except ValueError as error:
        raise CatalogError(f"{name}: damaged ({error})") from error
    if isinstance(values, dict) and "format_version" in values:
        if values["format_version"] not in (3, 4, FORMAT_VERSION):
            raise CatalogError(
                f"{name}: catalog format {values['format_version']}; "
                f"this version reads format {FORMAT_VERSION}"
            )
        if values["format_version"] < FORMAT_VERSION:
            values |= {"format_version": FORMAT_VERSION, "calibration": None}
    return json.dumps(values)
