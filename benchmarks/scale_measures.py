"""What benchmarks/scale.py measures of tasks that build a catalog, and of a searching process."""

import multiprocessing
import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from acceptance_clips import Clips

from grafp.index.search import IndexSearch

_SAMPLE = 300_000  # fingerprints that plain FAISS adds
_AT_ONCE = 32  # queries, as in a query job
_LIST_CODES = 100  # compared take as long as going to another list does
_LEAST = 50  # clips that are asked of all lists, however long that takes


class Tasks:
    """Core seconds and the largest memory (PSS) of Ray's tasks, by the name of their function."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.peak_mib: Counter[str] = Counter()
        self._spent: dict[int, float] = {}
        self._doing: dict[int, str] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Tasks":
        self._look(count=False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self._look()

    def _look(self, count: bool = True) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                title, times = process.cmdline()[:1], process.cpu_times()
                if not title or not title[0].startswith("ray::"):
                    continue
                now = title[0].removeprefix("ray::")
                mib = process.memory_full_info().pss / 2**20
            except psutil.Error:
                continue
            spent = times.user + times.system
            # What a worker did since the last look was of the task that it had then, if any.
            name = self._doing.get(process.pid, "IDLE")
            name = now if name == "IDLE" else name
            if count:
                self.seconds[name] += spent - self._spent.get(process.pid, 0.0)
                self.peak_mib[now] = max(self.peak_mib[now], mib)
            self._spent[process.pid], self._doing[process.pid] = spent, now


def alone(call: Callable, *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(call, *arguments).result()


def plain_faiss(root: str) -> float:
    """Fingerprints a second and core that FAISS's own `add` takes into the same lists and codes.

    It finds the nearest of many centroids with a graph, as its guide advises.
    """
    import faiss

    from grafp.catalog.catalog import Catalog
    from grafp.catalog.embeddings import by_file, read_fingerprints
    from grafp.catalog.tracks import live_refs
    from grafp.index.size import FLAT_LISTS

    faiss.omp_set_num_threads(1)
    catalog = Catalog.open_published(root)
    assert catalog.manifest
    assert catalog.manifest.trained_index
    files = by_file(live_refs(catalog.tracks()).values())
    parts: list[np.ndarray] = []
    for n in np.random.default_rng(0).permutation(len(files)):
        key = list(files)[n]
        parts += [vectors_ND for _, vectors_ND in read_fingerprints(root, key, files[key])]
        if sum(map(len, parts)) >= _SAMPLE:
            break
    sample_ND = np.concatenate(parts)[:_SAMPLE].astype(np.float32)
    data = catalog.get(catalog.manifest.trained_index)
    index = faiss.deserialize_index(np.frombuffer(data, np.uint8))  # made by `index_factory`
    if index.nlist > FLAT_LISTS:
        graph = faiss.index_factory(index.d, "HNSW32", faiss.METRIC_INNER_PRODUCT)
        graph.add(index.quantizer.reconstruct_n(0, index.nlist))
        index.quantizer = graph
    began = time.process_time()
    index.add(sample_ND)
    return float(len(sample_ND) / (time.process_time() - began))


def searched(
    root: str,
    clips: Clips,
    lengths_s: Sequence[float],
    most_gib: float,
    exhaustive_codes: float,
) -> dict[str, Any]:
    """Cost and hit rates of a published catalog's search, by length.

    Limits what this process may allocate for good, so it wants one of its own.

    Args:
        clips: longer clips, of which the beginnings are the queries.
        exhaustive_codes: about so many are compared by the exhaustive search of each length.
    """
    import faiss

    from grafp.catalog.catalog import Catalog
    from grafp.catalog.opened import open_search

    most = int(most_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    faiss.omp_set_num_threads(1)
    catalog = Catalog.open_published(root)
    assert catalog.manifest
    began = time.monotonic()
    search = open_search(root, catalog.manifest)
    opened = {"open_s": round(time.monotonic() - began, 1), "search_peak_gib": _gib("VmHWM")}
    by_length = {
        f"{seconds:g} s": _at_length(catalog, search, clips, seconds, exhaustive_codes)
        for seconds in lengths_s
    }
    names = next(iter(by_length.values()))
    return {
        **opened,
        "allocated_gib": _gib("RssAnon"),
        "mapped_gib": _gib("RssFile"),
        "most_gib": most_gib,
        **{name: {length: row[name] for length, row in by_length.items()} for name in names},
    }


def _at_length(
    catalog: Any, search: IndexSearch, clips: Clips, seconds: float, exhaustive_codes: float
) -> dict[str, Any]:
    from grafp.index.alignment import find_matches

    count = round((seconds - 1) * 10) + 1
    queries = [vectors_MD[:count].astype(np.float32) for vectors_MD in clips.vectors_NMD]
    size = catalog.manifest.counts["fingerprints"]
    assert search.quantizer
    each = size + _LIST_CODES * search.quantizer.ntotal
    few = max(_LEAST, int(exhaustive_codes / (each * count)))
    some = np.unique(np.linspace(0, len(queries) - 1, min(few, len(queries))).astype(int))
    uris = catalog.live_tracks()

    def right(ordinals: Sequence[int | None], rows: Sequence[int]) -> np.ndarray:
        pairs = zip(ordinals, rows, strict=True)
        return np.array([o is not None and clips.track_N[n] in uris[o] for o, n in pairs])

    def found(where: Any, rows: Sequence[int], **options: Any) -> np.ndarray:
        ordinals: list[int | None] = []
        for first in range(0, len(rows), _AT_ONCE):
            asked = [queries[n] for n in rows[first : first + _AT_ONCE]]
            answers = find_matches(asked, where, **options)
            ordinals += [matches[0].ordinal if matches else None for matches in answers]
        return right(ordinals, rows)

    everything = range(len(queries))
    full_N = found(search, everything)  # first: it checks and maps the files that the default needs
    stage = _query_job(catalog, search)
    before, began = search.spent, time.process_time()
    ordinals = _default(stage, queries, seconds)
    spent_s, codes = time.process_time() - began, (search.spent - before).codes
    default_N = right(ordinals, everything)
    exhaustive_N = found(_AllLists.of(search), some.tolist())
    return {
        "clips": len(queries),
        "query_ms": round(1000 * spent_s / len(queries), 3),
        "codes_per_fingerprint": round(codes / (len(queries) * count)),
        "hit_rate": _rate(default_N),
        "full_hit_rate": _rate(full_N),
        "same_clips": len(some),
        "hit_rate_same": _rate(default_N[some]),
        "full_hit_rate_same": _rate(full_N[some]),
        "exhaustive_hit_rate": _rate(exhaustive_N),
    }


def _query_job(catalog: Any, search: IndexSearch) -> Callable[[pa.Table], pa.Table]:
    from grafp.catalog.identify import background_of
    from grafp.index.alignment import MAX_SPEED_CHANGE
    from pipelines.querying.flow import MatchBatch

    return MatchBatch(
        search,  # in this process instead of spread
        background_of(catalog),
        catalog.acceptance(),
        catalog.manifest.query_hop_s,
        1,
        MAX_SPEED_CHANGE,
        by_need=True,
    )


def _default(
    stage: Callable[[pa.Table], pa.Table], queries: list[np.ndarray], seconds: float
) -> list[int | None]:
    """The track of the best answer to each query, as a query job finds it."""
    ordinals: list[int | None] = []
    for first in range(0, len(queries), _AT_ONCE):
        rows = [
            {
                "number": first + n,
                "status": "ok",
                "error": None,
                "duration_s": seconds,
                "embeddings": query_MD.astype(np.float16).tobytes(),
            }
            for n, query_MD in enumerate(queries[first : first + _AT_ONCE])
        ]
        matches = stage(pa.Table.from_pylist(rows))["matches"].to_pylist()
        ordinals += [found[0]["ordinal"] if found else None for found in matches]
    return ordinals


class _AllLists(IndexSearch):
    """A `Searcher` that looks for all fingerprints of a query in all lists."""

    @classmethod
    def of(cls, search: IndexSearch) -> "_AllLists":
        from grafp.index.alignment import Effort

        assert search.quantizer
        values = {field.name: getattr(search, field.name) for field in fields(search)}
        return cls(**{**values, "effort": Effort(None, search.quantizer.ntotal)})

    @cached_property
    def centroids_LD(self) -> np.ndarray:
        import faiss

        assert self.quantizer
        if isinstance(self.quantizer, faiss.IndexIVF):
            self.quantizer.make_direct_map()
        return np.asarray(self.quantizer.reconstruct_n(0, self.quantizer.ntotal))

    def nearest(
        self,
        queries_QD: np.ndarray,
        k: int,
        nprobe: int | None = None,  # noqa: ARG002
    ) -> tuple[np.ndarray, np.ndarray]:
        from grafp.index.ivfpq import Probes

        found = []
        for first in range(0, len(queries_QD), _AT_ONCE):
            part_QD = queries_QD[first : first + _AT_ONCE]
            similarity_QL = part_QD @ self.centroids_LD.T
            list_QL = np.tile(np.arange(len(self.centroids_LD)), (len(part_QD), 1))
            found.append(self.within(Probes(part_QD, similarity_QL, list_QL), k))
        similarity_QK, id_QK = (np.concatenate(column) for column in zip(*found, strict=True))
        return similarity_QK, id_QK


def _rate(right_N: np.ndarray) -> float:
    return round(float(right_N.mean()), 4)


def _gib(name: str) -> float:
    """Of this process, a line of /proc."""
    with open(f"/proc/{os.getpid()}/status", encoding="utf-8") as file:
        [line] = [line for line in file if line.startswith(f"{name}:")]
    return round(int(line.split()[1]) / 2**20, 2)
