"""What a snapshot says of itself: its files with sizes and hashes, its index, its calibration."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from grafp.errors import CatalogError
from grafp.index.alignment import CANDIDATES, NEIGHBORS, Effort
from grafp.index.calibration import Calibration
from grafp.index.size import AUTOMATIC, SMALL_CATALOG, IndexOptions, IndexParameters
from grafp.model.fingerprint import query_stride
from grafp.storage.records import parse_record

FORMAT_VERSION = 6
OLD_VERSIONS = (3, 4, 5)
"""Formats that pipelines.indexing.upgrade makes this one of."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the catalog: where under its root, and what it must contain."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardEntry:
    """The codes of a layer in a range of lists, as the manifest names them."""

    shard_id: str
    codes: StoredFile
    first_list: int
    after_list: int
    fingerprints: int
    imbalance: float
    """Of the inverted lists: 1 is even; searching costs as much more."""
    recall: float
    """Share of recall probes, fingerprints with noise added, that the index finds again."""

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "ShardEntry":
        """Raises CatalogError for a damaged record."""
        return parse_record(data.decode(errors="replace"), cls, name, CatalogError)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @property
    def record_key(self) -> str:
        """Of the entry as a file of its own, beside the codes."""
        return f"{os.path.dirname(self.codes.key)}/{self.shard_id}.json"

    def reaches(self, lists: range) -> bool:
        """Whether it may have codes in some of these lists."""
        return self.first_list < lists.stop and lists.start < self.after_list


@dataclass(frozen=True)
class Layer:
    """All codes of some tracks; what an index run adds, or several of these merged."""

    shards: list[ShardEntry]
    """By list; together they are all lists."""
    tracks: StoredFile
    """Ordinals of the tracks."""

    @property
    def fingerprints(self) -> int:
        return sum(entry.fingerprints for entry in self.shards)


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
    layers: list[Layer]
    """The first is the base, what later runs added follows."""
    tracks: StoredFile
    positions: StoredFile
    """Where the exact fingerprints of each live track are."""
    gone: StoredFile
    """Ordinals of tracks in the layers that are no answer any more."""
    next_ordinal: int
    counts: dict[str, int]
    calibration: Calibration | None = None
    """What answers are worth; None if the model has no background to measure it with."""
    index_options: IndexOptions = AUTOMATIC
    """What was asked of the index; catalogs made before there were options have none."""
    format_version: int = FORMAT_VERSION

    @property
    def effort(self) -> Effort:
        """For queries that are hard to find, and for all where a number of probes was asked for."""
        if self.index_options.probes:
            return Effort(None, self.index_options.probes)
        return Effort.by_length(self.parameters.nprobe if self.parameters else 1)

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
    def is_small(self) -> bool:
        """Whether a process had better open the index itself: starting others takes seconds."""
        return self.counts["fingerprints"] < SMALL_CATALOG

    @property
    def shards(self) -> list[ShardEntry]:
        return [entry for layer in self.layers for entry in layer.shards]

    @property
    def files(self) -> list[StoredFile]:
        """All files with a size and a hash that this snapshot needs."""
        trained = [self.trained_index] if self.trained_index else []
        layers = [file for one in self.layers for file in (one.tracks, *_codes(one))]
        return [self.tracks, self.positions, self.gone, *trained, *layers]

    def within(self, lists: range) -> "Manifest":
        """With the shards alone that reach into these lists: for a process that searches them."""
        layers = [
            replace(layer, shards=[entry for entry in layer.shards if entry.reaches(lists)])
            for layer in self.layers
        ]
        return replace(self, layers=layers)

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "Manifest":
        """Raises CatalogError for another version or a damaged manifest."""
        _check_version(data, name)
        manifest = parse_record(data.decode(errors="replace"), cls, name, CatalogError)
        folder = os.path.dirname(manifest.trained_index.key) if manifest.trained_index else ""
        for entry in manifest.shards:
            if os.path.dirname(entry.codes.key) != folder:
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


def _codes(layer: Layer) -> list[StoredFile]:
    return [entry.codes for entry in layer.shards]


def format_version(data: bytes, name: str) -> int | None:
    """The format that a manifest says it has; None if it says none that can be.

    Raises CatalogError when it is damaged.
    """
    try:
        values = json.loads(data.decode(errors="replace"))
    except ValueError as error:
        raise CatalogError(f"{name}: damaged ({error})") from error
    version = values.get("format_version", FORMAT_VERSION) if isinstance(values, dict) else None
    return version if isinstance(version, int) else None


def _check_version(data: bytes, name: str) -> None:
    """Raises CatalogError for another version than ours."""
    version = format_version(data, name)
    if version in (None, FORMAT_VERSION):
        return
    way_on = (
        "run `grafp merge --catalog URI --upgrade`, which needs no audio"
        if version in OLD_VERSIONS
        else "go on with the version that wrote it, or index the audio into a new catalog"
    )
    raise CatalogError(
        f"{name}: catalog format {version}; this version reads format {FORMAT_VERSION}; {way_on}"
    )
