"""A catalog's shards spread over Ray actors, each of which holds only its own."""

import heapq
import os
import random
from collections.abc import Sequence

import faiss
import numpy as np
import ray
import ray.actor

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, ShardEntry
from grafp.catalog.shard_files import open_shards
from grafp.errors import CatalogError, ClusterError
from grafp.index.scoring import Alignments, Match, best_of
from grafp.index.shards import ShardSearch, merge_nearest
from grafp.index.size import ACTOR_BYTES
from pipelines.common import placement

_SMALL_BYTES = 64 << 20
_CPUS = 0.01
"""Not none, or it would be placed on a head that does no work; little, since it mostly waits."""


@ray.remote(num_cpus=_CPUS, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD")
class _Holder:
    """Some shards of a snapshot, opened."""

    def __init__(
        self,
        root: str,
        manifest_json: bytes,
        shards: list[str],
        decode: bool,
        stride: int,
        method: type[ShardSearch],
    ) -> None:
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
        manifest = Manifest.from_json(manifest_json, root)
        self._damage: CatalogError | None = None
        try:
            opened = open_shards(root, manifest, only=shards, decode=decode)
            self._search = method(opened, manifest.nprobe, stride)
        except CatalogError as error:  # raised when asked: Ray tells of a failed start at length
            self._damage = error

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self._damage:
            raise self._damage
        return self._search.nearest(queries_QD, k)

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        return self._search.products(asked)

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        return self._search.matches(asked, tried, change)


class SpreadSearch:
    """A `grafp.index.alignment.Searcher` over actors; can be sent to Ray's workers.

    A track is in one actor, which scores and refines alone: a batch of queries asks every actor
    twice, for the nearest fingerprints and for the matches.
    """

    def __init__(
        self,
        root: str,
        manifest: Manifest,
        *,
        actors: int | None = None,
        decode: bool = False,
        stride: int | None = None,
        offset_correction: float = 0.0,
        method: type[ShardSearch] = ShardSearch,
    ) -> None:
        """Start the actors; they end when this object and its copies are gone.

        Args:
            root: the catalog's; its snapshot need not be published.
            actors: how many share the shards; default: as their size asks for.
            decode: see `grafp.catalog.shard_files.open_shards`.
            stride: 1 if queries come at the catalog's hop; default: the manifest's.
            offset_correction: see `Searcher`.
            method: how each actor searches its shards.

        Raises ClusterError when the indexes do not fit into the memory of all machines.
        """
        self.stride = stride or manifest.stride
        self.offset_correction = offset_correction
        self.neighbors, self.candidates = manifest.neighbors, manifest.candidates
        groups = _groups(manifest.shards, actors, decode)
        claims = _claims(groups, decode)
        # As many copies as machines hold at least one group each, so that none waits for memory.
        roomy = [m for m in placement.machines() if m.get("memory", 0.0) >= max(claims)]
        copies = max(1, len(roomy) // len(groups)) if actors is None else 1
        self._holders = [
            [
                _Holder.options(memory=claim).remote(  # type: ignore[attr-defined]
                    root,
                    manifest.to_json(),
                    [e.shard_id for e in group],
                    decode,
                    self.stride,
                    method,
                )
                for _ in range(copies)
            ]
            for group, claim in zip(groups, claims, strict=True)
        ]

    @classmethod
    def for_queries(
        cls,
        catalog: Catalog,
        *,
        actors: int | None = None,
        decode: bool = False,
        stride: int | None = None,
        method: type[ShardSearch] = ShardSearch,
    ) -> "SpreadSearch":
        """A search of the published snapshot with the offset correction of its model.

        `stride` is that of the queries, see above.

        Raises ClusterError, and CatalogError when the model is not the catalog's.
        """
        manifest = catalog.manifest
        assert manifest is not None
        query_hop_s = manifest.hop_s / (stride or manifest.stride)
        correction = catalog.model().offset_correction_s / query_hop_s
        return cls(
            catalog.root,
            manifest,
            actors=actors,
            decode=decode,
            stride=stride,
            offset_correction=correction,
            method=method,
        )

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        queries = ray.put(queries_QD)
        return merge_nearest(ray.get([h.nearest.remote(queries, k) for h in self._one_each()]), k)

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        question = ray.put(list(asked))
        found = ray.get([holder.products.remote(question) for holder in self._one_each()])
        return [_together(parts) for parts in zip(*found, strict=True)]

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        question = ray.put(list(asked))
        answers = [holder.matches.remote(question, tried, change) for holder in self._one_each()]
        return [best_of(parts, tried) for parts in zip(*ray.get(answers), strict=True)]

    def _one_each(self) -> list:
        return [random.choice(copies) for copies in self._holders]


def is_small(manifest: Manifest) -> bool:
    """Whether each task had better open the index itself: starting actors takes seconds."""
    return sum(entry.index.bytes for entry in manifest.shards) < _SMALL_BYTES


def opened_here(root: str, manifest: Manifest, stride: int | None = None) -> ShardSearch:
    """All shards of a small catalog, in this process."""
    shards = open_shards(root, manifest)
    return ShardSearch(
        shards,
        manifest.nprobe,
        stride or manifest.stride,
        neighbors=manifest.neighbors,
        candidates=manifest.candidates,
    )


def _together(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Each alignment from the actor that holds its track; the others know nothing of it."""
    result = np.array(parts[0])
    for part in parts[1:]:
        np.copyto(result, part, where=np.isnan(result))
    return result


def _claims(groups: list[list[ShardEntry]], decode: bool) -> list[float]:
    """Memory for each group of shards: with its exact vectors, or if need be without.

    Vectors are mapped from disk; where they do not fit into memory, search is slower.
    """
    whole: list[float] = [sum(_held(entry, decode) for entry in group) for group in groups]
    least: list[float] = [sum(_loaded(entry, decode) for entry in group) for group in groups]
    for claims in (whole, least):
        if placement.available(
            [{"CPU": _CPUS, "memory": claim} for claim in claims], "memory for search"
        ):
            return claims
    gib = sum(least) / 2**30
    raise ClusterError(
        f"the indexes of the shards need {gib:.1f} GiB of memory; the cluster has "
        f"{placement.what_there_is()}"
    )


def _loaded(entry: ShardEntry, decode: bool) -> int:
    """Bytes of a shard that an actor cannot do without: the index, decoded or not."""
    return entry.index.bytes * 2 if decode else entry.index.bytes


def _held(entry: ShardEntry, decode: bool) -> int:
    """Bytes of a shard in an actor."""
    return _loaded(entry, decode) + (0 if decode else entry.vectors.bytes)


def _groups(shards: list[ShardEntry], actors: int | None, decode: bool) -> list[list[ShardEntry]]:
    """Shards dealt out, the largest first, each to the actor that has least."""
    total = sum(_held(entry, decode) for entry in shards)
    count = min(actors or -(-total // ACTOR_BYTES), len(shards))
    groups: list[list[ShardEntry]] = [[] for _ in range(count)]
    least = [(0, number) for number in range(count)]  # a heap of what each holds
    for entry in sorted(shards, key=lambda e: -_held(e, decode)):
        held, number = least[0]
        groups[number].append(entry)
        heapq.heapreplace(least, (held + _held(entry, decode), number))
    return groups
