"""A catalogue's shards spread over Ray actors, each of which holds only its own."""

import os
import random
from collections.abc import Sequence

import faiss
import numpy as np
import ray
import ray.actor

from grafp.catalogue import open_shards
from grafp.manifest import Manifest, ShardEntry
from grafp.shards import Alignments, ShardSearch, merge_nearest

_ACTOR_BYTES = 8 << 30
"""Of shards for one actor; a catalogue that is smaller is held by one, or by one a machine."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD")
class _Holder:
    """Some shards of a snapshot, opened. It waits more than it works, so it claims memory only."""

    def __init__(
        self, root: str, manifest_json: bytes, shards: list[str], decode: bool, stride: int
    ) -> None:
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
        manifest = Manifest.from_json(manifest_json, root)
        opened = open_shards(root, manifest, only=shards, decode=decode)
        self._search = ShardSearch(opened, manifest.nprobe, stride)

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self._search.nearest(queries_QD, k)

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        return self._search.products(asked)


class SpreadSearch:
    """A `grafp.shards.Searcher` over actors; can be sent to Ray's workers."""

    def __init__(
        self,
        root: str,
        manifest: Manifest,
        *,
        actors: int | None = None,
        decode: bool = False,
        stride: int | None = None,
    ) -> None:
        """Start the actors; they end when this object and its copies are gone.

        Args:
            root: the catalogue's; its snapshot need not be published.
            actors: how many share the shards; default: as their size asks for.
            decode: see `grafp.catalogue.open_shards`.
            stride: 1 if queries come at the catalogue's hop; default: the manifest's.
        """
        self.stride = stride or manifest.stride
        groups = _groups(manifest.shards, actors, decode)
        copies = max(1, len(ray.nodes()) // len(groups)) if actors is None else 1
        self._holders = [
            [self._hold(root, manifest, g, decode) for _ in range(copies)] for g in groups
        ]

    def _hold(
        self, root: str, manifest: Manifest, group: list[ShardEntry], decode: bool
    ) -> ray.actor.ActorHandle:
        # On a machine with less than that, waiting for memory would last for ever.
        most = ray.cluster_resources().get("memory", 0.0) / 2
        memory = min(most, sum(_held(entry, decode) for entry in group))
        names = [entry.shard_id for entry in group]
        return _Holder.options(memory=memory).remote(  # type: ignore[attr-defined]
            root, manifest.to_json(), names, decode, self.stride
        )

    def nearest(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        queries = ray.put(queries_QD)
        return merge_nearest(ray.get([h.nearest.remote(queries, k) for h in self._one_each()]), k)

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        question = ray.put(list(asked))
        found = ray.get([holder.products.remote(question) for holder in self._one_each()])
        return [_together(parts) for parts in zip(*found, strict=True)]

    def _one_each(self) -> list:
        return [random.choice(copies) for copies in self._holders]


def _together(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Each alignment from the actor that holds its track; the others know nothing of it."""
    result = np.array(parts[0])
    for part in parts[1:]:
        np.copyto(result, part, where=np.isnan(result))
    return result


def _held(entry: ShardEntry, decode: bool) -> int:
    """Bytes of a shard in an actor."""
    return entry.index.bytes * 2 if decode else entry.index.bytes + entry.vectors.bytes


def _groups(shards: list[ShardEntry], actors: int | None, decode: bool) -> list[list[ShardEntry]]:
    """Shards dealt out, the largest first, each to the actor that has least."""
    total = sum(_held(entry, decode) for entry in shards)
    count = min(actors or -(-total // _ACTOR_BYTES), len(shards))
    groups: list[list[ShardEntry]] = [[] for _ in range(count)]
    for entry in sorted(shards, key=lambda e: -_held(e, decode)):
        min(groups, key=lambda group: sum(_held(e, decode) for e in group)).append(entry)
    return groups
