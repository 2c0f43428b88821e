"""A catalog spread over Ray actors, each of which holds some lists and some tracks."""

import itertools
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
from grafp.catalog.shard_files import read_places
from grafp.errors import CatalogError, ClusterError
from grafp.index.ivfpq import Probes, choose_lists, parse_index, quantizer_of
from grafp.index.scoring import Alignments, Match, best_of
from grafp.index.search import IndexSearch, Spent, merge_nearest
from grafp.index.size import ACTOR_BYTES, CODE_BYTES
from grafp.model.fingerprint import DIMENSION
from pipelines.common import placement

_SMALL = 1_500_000
"""Fingerprints that each task had better open itself: starting actors takes seconds."""
_CPUS = 0.01
"""Not none, or it would be placed on a head that does no work; little, since it mostly waits."""
_LISTED = 12  # bytes of a fingerprint's id and its share of lists and padding


@ray.remote(num_cpus=_CPUS, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD")
class _Holder:
    """A part of a snapshot, opened."""

    def __init__(
        self,
        root: str,
        manifest_json: bytes,
        part: Part,
        decode: bool,
        stride: int,
        method: type[IndexSearch],
    ) -> None:
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
        manifest = Manifest.from_json(manifest_json, root)
        self._damage: CatalogError | None = None
        try:
            self._search = open_search(
                root, manifest, part, stride=stride, decode=decode, method=method
            )
        except CatalogError as error:  # raised when asked: Ray tells of a failed start at length
            self._damage = error

    def within(self, probes: Probes, k: int) -> tuple[np.ndarray, np.ndarray, Spent]:
        if self._damage:
            raise self._damage
        before = self._search.spent
        return *self._search.within(probes, k), self._search.spent - before

    def products(self, asked: Sequence[Alignments]) -> list[np.ndarray]:
        if self._damage:
            raise self._damage
        return self._search.products(asked)

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        if self._damage:
            raise self._damage
        return self._search.matches(asked, tried, change)


class SpreadSearch:
    """A `grafp.index.alignment.Searcher` over actors; can be sent to Ray's workers.

    A list is in one actor, and so is the exact side of a track: a batch of queries asks those that
    hold its lists for the nearest fingerprints, and those that hold the tracks for the matches.
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
        method: type[IndexSearch] = IndexSearch,
    ) -> None:
        """Start the actors; they end when this object and its copies are gone.

        Args:
            root: the catalog's; its snapshot need not be published.
            actors: how many share the catalog; default: as its size asks for.
            decode: see `grafp.catalog.opened.open_search`.
            stride: 1 if queries come at the catalog's hop; default: the manifest's.
            offset_correction: see `Searcher`.
            method: how each actor searches its part.

        Raises ClusterError when the indexes do not fit into the memory of all machines.
        """
        self.stride = stride or manifest.stride
        self.offset_correction = offset_correction
        self.neighbors, self.candidates = manifest.neighbors, manifest.candidates
        assert manifest.trained_index
        self._root, self._trained, self._nprobe = root, manifest.trained_index, manifest.nprobe
        self._by_lists = method.by_lists
        self.spent = Spent()
        self._parts = _parts(root, manifest, actors, decode)
        claim = _claim(manifest, len(self._parts), decode)
        # As many copies as machines hold at least one part each, so that none waits for memory.
        roomy = [m for m in placement.machines() if m.get("memory", 0.0) >= claim]
        copies = max(1, len(roomy) // len(self._parts)) if actors is None else 1
        self._holders = [
            [
                _Holder.options(memory=claim).remote(  # type: ignore[attr-defined]
                    root, manifest.to_json(), part, decode, self.stride, method
                )
                for _ in range(copies)
            ]
            for part in self._parts
        ]

    @classmethod
    def for_queries(
        cls,
        catalog: Catalog,
        *,
        actors: int | None = None,
        decode: bool = False,
        stride: int | None = None,
        method: type[IndexSearch] = IndexSearch,
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

    def nearest(
        self, queries_QD: np.ndarray, k: int, nprobe: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        quantizer = _quantizer(self._root, self._trained)
        probes = choose_lists(quantizer, queries_QD, nprobe or self._nprobe)
        asked, waiting = [], []
        for holder, part in zip(self._one_each(), self._parts, strict=True):
            rows = np.arange(len(queries_QD))
            if self._by_lists:
                here_QL = (probes.list_QL >= part.lists.start) & (probes.list_QL < part.lists.stop)
                rows = np.flatnonzero(here_QL.any(axis=1))
            if len(rows):
                asked.append(rows)
                waiting.append(holder.within.remote(probes.only(rows), k))
        found = []
        for rows, (similarity_RK, id_RK, spent) in zip(asked, ray.get(waiting), strict=True):
            similarity_QK = np.full((len(queries_QD), id_RK.shape[1]), -np.inf, np.float32)
            id_QK = np.full(similarity_QK.shape, -1)
            similarity_QK[rows], id_QK[rows] = similarity_RK, id_RK
            found.append((similarity_QK, id_QK))
            self.spent += spent
        return merge_nearest(found, k, len(queries_QD))

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
    return manifest.counts["fingerprints"] < _SMALL


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


def _parts(root: str, manifest: Manifest, actors: int | None, decode: bool) -> list[Part]:
    """The catalog divided so that each part has about as many fingerprints, of either side."""
    whole = Part.all_of(manifest)
    total = _loaded(manifest, decode) + (0 if decode else _exact(manifest))
    count = min(actors or -(-total // ACTOR_BYTES), len(whole.lists), len(whole.ordinals))
    if count <= 1:
        return [whole]
    places = read_places(root, manifest.places)
    counts_T = places["n_segments"].to_numpy()
    ordinals = _cuts(places["ordinal"].to_numpy(), counts_T, whole.ordinals, count)
    base = manifest.layers[0].shards
    after_S = np.array([entry.after_list for entry in base])
    filled_S = np.cumsum([entry.fingerprints for entry in base])
    # Within a shard, lists are as good as equal.
    edges = np.interp(
        np.linspace(0, filled_S[-1], count + 1), [0, *filled_S], [0, *after_S]
    ).astype(int)
    lists = [range(a, b) for a, b in itertools.pairwise(edges.tolist())]
    return [Part(*part) for part in zip(lists, ordinals, strict=True)]


def _cuts(ordinal_T: np.ndarray, count_T: np.ndarray, whole: range, parts: int) -> list[range]:
    """Ranges of ordinals with about as many fingerprints each."""
    before_T = np.cumsum(count_T) - count_T
    wanted = count_T.sum() * np.arange(1, parts) / parts
    inner = ordinal_T[np.searchsorted(before_T, wanted).clip(max=len(ordinal_T) - 1)]
    return [range(a, b) for a, b in itertools.pairwise([0, *inner.tolist(), whole.stop])]


def _claim(manifest: Manifest, parts: int, decode: bool) -> float:
    """Memory for each part: with its exact fingerprints, or if need be without.

    They are mapped from disk; where they do not fit into memory, search is slower.
    """
    least = _loaded(manifest, decode) / parts
    whole = least if decode else least + _exact(manifest) / parts
    for claim in (whole, least):
        if placement.available([{"CPU": _CPUS, "memory": claim}] * parts, "memory for search"):
            return claim
    raise ClusterError(
        f"the index needs {least * parts / 2**30:.1f} GiB of memory; the cluster has "
        f"{placement.what_there_is()}"
    )


def _loaded(manifest: Manifest, decode: bool) -> int:
    """Bytes of the lists, which actors cannot do without, and of codes to decode."""
    assert manifest.parameters
    code = CODE_BYTES[manifest.parameters.codec]
    each = code + _LISTED + (code + 16 if decode else 0)
    return each * sum(layer.fingerprints for layer in manifest.layers)


def _exact(manifest: Manifest) -> int:
    """Bytes of the exact fingerprints."""
    return 2 * DIMENSION * manifest.counts["fingerprints"]
