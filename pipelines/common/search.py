"""A catalog spread over Ray actors, each of which holds some lists and some tracks."""

import logging
import os
import random
from collections.abc import Sequence
from functools import lru_cache

import faiss
import numpy as np
import ray
import ray.actor

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, StoredFile
from grafp.catalog.opened import Part, open_search
from grafp.index.ivfpq import Probes, choose_lists, parse_index, quantizer_of
from grafp.index.proposals import Alignments
from grafp.index.scoring import Match, best_of
from grafp.index.search import IndexSearch, Spent, merge_nearest
from pipelines.common import parts, placement

logger = logging.getLogger(__name__)


@ray.remote(
    num_cpus=parts.ACTOR_CPUS, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
)
class _Holder:
    """Parts of a snapshot, opened; one after another, if the machines cannot hold all."""

    def __init__(
        self,
        root: str,
        held: dict[int, tuple[Part, bytes]],
        in_turn: bool,
        decode: bool,
        stride: int,
        method: type[IndexSearch],
    ) -> None:
        """`held`: by its number, each part with what of the manifest it needs, as JSON."""
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
        self._root, self._held, self._in_turn = root, held, in_turn
        self._decode, self._stride, self._method = decode, stride, method
        self._opened: dict[bool, tuple[int, IndexSearch]] = {}

    def within(self, part: int, probes: Probes, k: int) -> tuple[np.ndarray, np.ndarray, Spent]:
        search = self._open(part, lists=True)
        before = search.spent
        return *search.within(probes, k), search.spent - before

    def products(self, part: int, asked: Sequence[Alignments]) -> list[np.ndarray]:
        return self._open(part, lists=False).products(asked)

    def matches(
        self, part: int, asked: Sequence[Alignments], tried: int, change: float
    ) -> list[list[Match]]:
        return self._open(part, lists=False).matches(asked, tried, change)

    def _open(self, part: int, *, lists: bool) -> IndexSearch:
        """A part; where parts are opened in turn, its lists or its tracks. Raises CatalogError."""
        side = lists or not self._in_turn
        if side not in self._opened or self._opened[side][0] != part:
            self._opened.pop(side, None)  # before the next one takes memory
            whole, manifest_json = self._held[part]
            if self._in_turn:
                whole = Part(*((whole.lists, range(0)) if lists else (range(0), whole.ordinals)))
            search = open_search(
                self._root,
                Manifest.from_json(manifest_json, self._root),
                whole,
                stride=self._stride,
                decode=self._decode,
                choosing=False,
                method=self._method,
            )
            self._opened[side] = part, search
        return self._opened[side][1]


class SpreadSearch:
    """A `grafp.index.alignment.Searcher` over actors; can be sent to Ray's workers.

    A list is in one actor, and so is the exact side of a track: a batch of queries asks those that
    hold its lists for the nearest fingerprints, and those that hold the tracks for the matches.
    A catalog that the machines' memory cannot hold is streamed: an actor on each machine opens one
    part after another, for the whole batch.
    """

    def __init__(
        self,
        root: str,
        manifest: Manifest,
        *,
        actors: int | None = None,
        memory: float | None = None,
        decode: bool = False,
        stride: int | None = None,
        offset_correction: float = 0.0,
        method: type[IndexSearch] = IndexSearch,
    ) -> None:
        """Start the actors; they end when this object and its copies are gone.

        Args:
            root: the catalog's; its snapshot need not be published.
            actors: how many share the catalog; default: as its size asks for.
            memory: for lists on each machine, bytes; default: what Ray has.
            decode: see `grafp.catalog.opened.open_search`.
            stride: 1 if queries come at the catalog's hop; default: the manifest's.
            offset_correction: see `Searcher`.
            method: how each actor searches its part.

        Raises ClusterError when there is no machine.
        """
        self.stride = stride or manifest.stride
        self.offset_correction = offset_correction
        self.neighbors, self.candidates = manifest.neighbors, manifest.candidates
        assert manifest.trained_index
        self._root, self._trained, self.effort = root, manifest.trained_index, manifest.effort
        self._by_lists = method.by_lists
        self.spent = Spent()
        self._turn = 1

        def holder(claim: float, numbers: range) -> ray.actor.ActorHandle:
            held = {}
            for n in numbers:
                part = self._parts[n]
                # Codes of a track are in all shards.
                needed = manifest if decode else manifest.within(part.lists)
                held[n] = part, needed.to_json()
            return _Holder.options(memory=claim).remote(  # type: ignore[attr-defined]
                root, held, self.streamed, decode, self.stride, method
            )

        self._parts = parts.divided(root, manifest, actors, decode)
        claim = parts.claim(manifest, len(self._parts), decode, memory)
        self.streamed = claim is None
        if claim is not None:
            # As many copies as machines hold at least one part each, so that none waits for memory.
            roomy = [m for m in placement.machines() if m.get("memory", 0.0) >= claim]
            copies = max(1, len(roomy) // len(self._parts)) if actors is None else 1
            self._holders = [
                [holder(claim, range(n, n + 1)) for _ in range(copies)]
                for n in range(len(self._parts))
            ]
            return
        each = parts.streamed_bytes(memory)
        self._parts = parts.divided(root, manifest, parts.streamed(manifest, decode, each), decode)
        machines, count = len(placement.machines()), len(self._parts)
        readers = [holder(each, range(n, count, machines)) for n in range(min(machines, count))]
        self._holders = [[readers[n % machines]] for n in range(count)]
        logger.info(
            f"  the index needs {parts.loaded(manifest, decode) / 2**30:.1f} GiB: it is read in "
            f"{len(self._parts)} parts for each batch of queries"
        )

    def nearest(
        self, queries_QD: np.ndarray, k: int, nprobe: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        quantizer = _quantizer(self._root, self._trained)
        probes = choose_lists(quantizer, queries_QD, nprobe or self.effort.lists)
        asked: list[np.ndarray] = []
        waiting: list[ray.ObjectRef] = []
        for holder, part in self._one_each(lists=True):
            rows = np.arange(len(queries_QD))
            if self._by_lists:
                lists = self._parts[part].lists
                here_QL = (probes.list_QL >= lists.start) & (probes.list_QL < lists.stop)
                rows = np.flatnonzero(here_QL.any(axis=1))
            if len(rows):
                asked.append(rows)
                waiting.append(holder.within.remote(part, probes.only(rows), k))
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for rows, (similarity_RK, id_RK, spent) in zip(asked, ray.get(waiting), strict=True):
            similarity_QK = np.full((len(queries_QD), id_RK.shape[1]), -np.inf, np.float32)
            id_QK = np.full(similarity_QK.shape, -1)
            similarity_QK[rows], id_QK[rows] = similarity_RK, id_RK
            found.append((similarity_QK, id_QK))
            self.spent += spent
        return merge_nearest(found, k, len(queries_QD))

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        question = ray.put(list(asked))
        found: list = ray.get([h.products.remote(p, question) for h, p in self._one_each()])
        return [_together(answers) for answers in zip(*found, strict=True)]

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        question = ray.put(list(asked))
        answers = [
            holder.matches.remote(part, question, tried, change)
            for holder, part in self._one_each()
        ]
        return [best_of(found, tried) for found in zip(*ray.get(answers), strict=True)]

    def _one_each(self, *, lists: bool = False) -> list[tuple[ray.actor.ActorHandle, int]]:
        """An actor for each part, and the part's number."""
        chosen = [(random.choice(copies), n) for n, copies in enumerate(self._holders)]
        if self.streamed and lists:
            self._turn = -self._turn  # begins with what is still open from the last batch
        return chosen[:: self._turn]


@lru_cache(maxsize=2)
def _quantizer(root: str, trained: StoredFile) -> faiss.Index:
    """Read once by a process. Raises CatalogError when it is damaged."""
    return quantizer_of(parse_index(Catalog(root).get(trained)))


def _together(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Each alignment from the actor that holds its track; the others know nothing of it."""
    result = np.array(parts[0])
    for part in parts[1:]:
        np.copyto(result, part, where=np.isnan(result))
    return result
