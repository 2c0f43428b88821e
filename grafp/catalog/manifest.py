"""What a snapshot says of itself: its files with sizes and hashes, its index, its thresholds."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from grafp.errors import CatalogError
from grafp.index.calibration import Calibration
from grafp.index.size import IndexParameters
from grafp.model.fingerprint import query_stride

FORMAT_VERSION = 3


@dataclass(frozen=True)
class StoredFile:
    """A file of the catalog: where under its root, and what it must contain."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardEntry:
    """A filled part of the index, as the manifest names it."""

    shard_id: str
    index: StoredFile
    vectors: StoredFile
    tracks: StoredFile
    fingerprints: int
    imbalance: float
    """FAISS's imbalance of the inverted lists: 1 is even; searching costs as much more."""
    canary: float
    """Share of probes, fingerprints with noise added, that the index finds again."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ShardEntry":
        files = {name: StoredFile(**values[name]) for name in ("index", "vectors", "tracks")}
        return cls(**{**values, **files})

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
    template: StoredFile | None
    parameters: IndexParameters | None
    when_trained: dict[str, float] | None
    """Canary recall and list imbalance just after the template was trained."""
    shards: list[ShardEntry]
    tracks: StoredFile
    next_ordinal: int
    counts: dict[str, int]
    calibration: Calibration | None = None
    """Thresholds by false-positive rate; None with too few tracks to measure them."""
    format_version: int = FORMAT_VERSION

    @property
    def nprobe(self) -> int:
        """Lists that a search visits."""
        return self.parameters.nprobe if self.parameters else 1

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
        template = [self.template] if self.template else []
        return [self.tracks, *template, *(file for entry in self.shards for file in entry.files)]

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "Manifest":
        """Raises CatalogError for another version or a damaged manifest."""
        try:
            values = json.loads(data)
            if values["format_version"] != FORMAT_VERSION:
                raise CatalogError(
                    f"{name}: catalog format {values['format_version']}; "
                    f"this version reads format {FORMAT_VERSION}"
                )
            values["tracks"] = StoredFile(**values["tracks"])
            if values["template"]:
                values["template"] = StoredFile(**values["template"])
                values["parameters"] = IndexParameters(**values["parameters"])
            if values["calibration"]:
                values["calibration"] = Calibration(**values["calibration"])
            values["shards"] = [ShardEntry.from_dict(entry) for entry in values["shards"]]
            manifest = cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise CatalogError(f"{name}: damaged manifest ({error!r})") from error
        folder = os.path.dirname(manifest.template.key) if manifest.template else ""
        for entry in manifest.shards:
            if any(os.path.dirname(file.key) != folder for file in entry.files):
                raise CatalogError(f"{name}: shard {entry.shard_id} is of another template")
        return manifest


def index_health(shards: Sequence[ShardEntry]) -> dict[str, float]:
    """Canary recall and list imbalance, means over the fingerprints."""
    sizes = [entry.fingerprints for entry in shards]
    canary, imbalance = (
        np.average([getattr(entry, name) for entry in shards], weights=sizes)
        for name in ("canary", "imbalance")
    )
    return {"canary": round(float(canary), 4), "imbalance": round(float(imbalance), 3)}
