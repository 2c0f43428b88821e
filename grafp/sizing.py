"""What a catalog of some size needs: storage, machines, hours and money, by measured rates.

`grafp plan`, and `grafp index` with and without --dry-run, take their numbers from here. The rates
are in grafp/rates.py.
"""

import argparse
import contextlib
import math
from dataclasses import dataclass
from typing import Annotated, Literal

from grafp import rates
from grafp.audio import SAMPLE_RATE
from grafp.index.size import (
    ACTOR_BYTES,
    CODE_BYTES,
    EXCERPT,
    LISTED_BYTES,
    MAX_SHARD_FINGERPRINTS,
    IndexOptions,
    IndexParameters,
    populate_bytes,
)
from grafp.model.fingerprint import HOP_SECONDS, query_stride, segment_count
from grafp.option_values import (
    Count,
    Kind,
    Price,
    Seconds,
    choice,
    number,
    positive_float,
)
from grafp.storage import KEPT_FREE

CLAIMED = 0.67
"""Of the memory of a query node, what actors may claim: cluster.yaml."""
SYSTEM_GB = 30
"""Of the disk of a node: the system, grafp's environment, Ray's logs and what Ray spills."""


def _hop(text: str) -> float:
    with contextlib.suppress(argparse.ArgumentTypeError):
        if round((value := positive_float(text)) * 20, 6) in range(1, 21):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 0.05 s to 1 s")


Amount = Annotated[float, Kind("N", number(low=0.0))]
Above0 = Annotated[float, Kind("N", positive_float)]


@dataclass(frozen=True)
class Case:
    """What is asked. Rates are of one core, as benchmarks/rates.py prints them."""

    tracks: Above0
    """Tracks in the catalog, such as 100e6."""
    minutes: Annotated[float, Kind("M", positive_float)] = 3.5
    """Mean length of a track, minutes."""
    hop: Annotated[float, Kind("S", _hop)] = HOP_SECONDS
    """Time between two fingerprints: a multiple of 0.05 s, to 1 s."""
    codec: Annotated[str, choice(*CODE_BYTES)] | None = None
    """As --codec of `grafp index` (default: by the catalog's size)."""
    lists: Count | None = None
    """As --lists of `grafp index` (default: by the catalog's size)."""
    probes: Count | None = None
    """As --probes of `grafp index` (default: by need)."""
    rerank: Literal["exact", "pq"] = "exact"
    """As --rerank of `grafp query`."""
    new_per_night: Amount = 0.0
    """New tracks in each incremental run."""
    queries_per_day: Amount = 0.0
    """Queries, spread evenly over the day."""
    query_seconds: Seconds = 5.0
    """Length of a query, seconds."""
    decided: Annotated[float, Kind("SHARE", number(low=0.0, high=1.0))] = 0.88
    """Share of the queries that the quick search answers; noise makes it smaller."""
    encoder_rate: Above0 = rates.ENCODED
    """Segments per second of an encoder, as benchmarks/encoder.py measures."""
    decode_rate: Above0 = 435.0
    """Seconds of audio that a core decodes per second: mp3, stereo, 44.1 kHz."""
    fill_rate: Above0 | None = None
    """Fingerprints of which a core finds list and code per second (default: by the number of
    lists)."""
    search_rate: Above0 | None = None
    """Codes that a core compares per second, the padding of lists included (default: by the
    codec)."""
    encoders: Count = 48
    """Encoders at work at once: CPUs, or GPUs with --price-gpu-hour; 48 are the CPUs that
    cluster.yaml has at most."""
    node_memory_gb: Annotated[float, Kind("GB", positive_float)] = 64.0
    """Memory of a query node, as in cluster.yaml, GB."""
    node_disk_gb: Annotated[float, Kind("GB", positive_float)] = 200.0
    """Disk of a query node, as in cluster.yaml, GB."""
    node_processors: Above0 = 8.0
    """Cores of a node, as in cluster.yaml."""
    price_node_hour: Price | None = None
    """Price of a node that indexes, and of the head, for an hour (default: no cost)."""
    price_gpu_hour: Price | None = None
    """Price of a GPU that encodes, for an hour; needs --encoder-rate (default: no cost)."""
    price_memory_node_hour: Price | None = None
    """Price of a query node for an hour (default: no cost)."""
    price_gb_month: Price | None = None
    """Price of storage, for a GB and a month (default: no cost)."""

    def __post_init__(self) -> None:
        self.index_options()

    @property
    def on_gpus(self) -> bool:
        """Whether encoders are GPUs."""
        return self.price_gpu_hour is not None

    def index_options(self) -> IndexOptions:
        """Raises OptionError for options that do not go together."""
        return IndexOptions(codec=self.codec, lists=self.lists, probes=self.probes)

    def segments(self) -> int:
        """Fingerprints of a track."""
        samples = round(self.minutes * 60 * SAMPLE_RATE)
        return max(1, segment_count(samples, round(self.hop * SAMPLE_RATE)))

    def query_segments(self) -> int:
        """Fingerprints of a query."""
        hop = round(self.hop * SAMPLE_RATE) // query_stride(self.hop)
        return max(1, segment_count(round(self.query_seconds * SAMPLE_RATE), hop))


@dataclass(frozen=True)
class Plan:
    """What a case needs; dictionaries hold the parts."""

    audio_hours: float
    fingerprints: float
    index: IndexParameters
    shards: int
    bytes_a_fingerprint: dict[str, float]
    index_gb_by_codec: dict[str, float]
    storage_gb: dict[str, float]
    night_storage_gb: float
    build_hours: dict[str, float]
    night_hours: dict[str, float]
    elapsed_hours: dict[str, float]
    limited_by: dict[str, str]
    node_hours: dict[str, float]
    memory_gb: dict[str, float]
    codes_a_fingerprint: float
    query_processor_s: dict[str, float]
    query_memory_gb: dict[str, float]
    search_actors: int
    query_nodes: dict[str, int]
    query_disk_gb: dict[str, float]
    cost: dict[str, float]


def plan(case: Case) -> Plan:
    """All but the limits."""
    segments, asked = case.segments(), case.query_segments()
    count = case.tracks * segments
    index = IndexParameters.for_size(int(count), case.index_options())
    shards, code = math.ceil(count / MAX_SHARD_FINGERPRINTS), CODE_BYTES[index.codec]
    exact = case.rerank == "exact"
    held = code + LISTED_BYTES + (rates.VECTOR_BYTES if exact else code + 16)
    actors = max(1, math.ceil(min(count * held / ACTOR_BYTES, index.nlist, case.tracks)))
    memory = {
        "lists": count * rates.memory_bytes(index, count) / 1e9,
        "vectors": exact * count * rates.VECTOR_BYTES / 1e9,
        "codes to decode": (not exact) * count * (code + 20) / 1e9,
    }
    search = rates.Search(index, count, case.search_rate)
    query_s, codes = search.query(asked, case.probes, case.decided)
    query_s = {"encode": asked / case.encoder_rate} | query_s
    storage = _stored(case, index, case.tracks)
    spent = {"build": _hours(case, search, case.tracks)}
    spent["build"] |= {
        "train": rates.training_s(index) / 3600,
        "calibrate": rates.CALIBRATION_QUERIES * (sum(query_s.values()) - query_s["encode"]) / 3600,
    }
    spent["night"] = _hours(case, search, case.new_per_night)
    elapsed = {
        "build": _elapsed(case, spent["build"], case.tracks),
        "night": _elapsed(case, spent["night"], case.new_per_night),
    }
    took = {name: sum(parts.values()) for name, parts in elapsed.items()}
    cpu_hours = {n: sum(h.values()) - case.on_gpus * h["encode"] for n, h in spent.items()}
    nodes = {name: each / case.node_processors for name, each in cpu_hours.items()}
    load = case.queries_per_day * sum(query_s.values()) / 86_400 / case.node_processors
    usable, needed = CLAIMED * case.node_memory_gb, sum(memory.values())
    query_nodes = {"for memory": math.ceil(needed / usable), "for the load": math.ceil(load)}
    lists_gb = count * (held - exact * rates.VECTOR_BYTES) / 1e9
    query_nodes["with vectors on disk"] = _nodes(lists_gb, actors, usable)
    copies = exact * storage["embeddings"] * math.ceil(actors / query_nodes["with vectors on disk"])
    disk = {"exact fingerprints": copies / actors}
    disk["of each node"] = (disk["exact fingerprints"] + SYSTEM_GB) / (1 - KEPT_FREE)
    priced = {"storage a month": (case.price_gb_month, sum(storage.values()))}
    priced["query nodes a day"] = (case.price_memory_node_hour, 24 * max(query_nodes.values()))
    priced |= {
        name: (case.price_node_hour, each + took[name]) for name, each in nodes.items()
    }  # the head
    priced |= {f"{name}, GPUs": (case.price_gpu_hour, h["encode"]) for name, h in spent.items()}
    in_memory = sum(memory.values()) * 1e9 / count
    in_files = (sum(storage.values()) - storage["model"]) * 1e9 / count
    return Plan(
        audio_hours=case.tracks * case.minutes / 60,
        fingerprints=count,
        index=index,
        shards=shards,
        bytes_a_fingerprint={"stored": in_files, "in memory": in_memory},
        index_gb_by_codec={c: _codes_gb(count, c) for c in CODE_BYTES},
        storage_gb=storage,
        night_storage_gb=sum(_stored(case, index, case.new_per_night).values()) - storage["model"],
        build_hours=spent["build"],
        night_hours=spent["night"],
        elapsed_hours=took,
        limited_by={
            name: max(parts.keys() - {"start"}, key=parts.__getitem__)
            for name, parts in elapsed.items()
            if took[name]
        },
        node_hours=nodes,
        memory_gb={
            "head, first run": case.tracks * rates.NEW_TRACK_IN_RUN / 1e9,
            "head, later": case.tracks * rates.TRACK_IN_RUN / 1e9,
            "a task that fills lists": populate_bytes(int(count)) / 1e9,
        },
        codes_a_fingerprint=codes,
        query_processor_s=query_s,
        query_memory_gb=memory,
        search_actors=actors,
        query_nodes=query_nodes,
        query_disk_gb=disk,
        cost={n: price * amount for n, (price, amount) in priced.items() if price is not None},
    )


def _codes_gb(count: float, codec: str) -> float:
    return count * (CODE_BYTES[codec] + rates.LIST_AND_ID) / 1e9


def _stored(case: Case, index: IndexParameters, tracks: float) -> dict[str, float]:
    """What a run stores that adds so many tracks, GB."""
    count = tracks * case.segments()
    embeddings = count * (rates.VECTOR_BYTES + rates.LEVELS) + tracks * rates.TRACK_IN_EMBEDDINGS
    shards = math.ceil(count / MAX_SHARD_FINGERPRINTS)
    return {
        "embeddings": embeddings / 1e9,
        "codes": _codes_gb(count, index.codec),
        "trained index": (tracks == case.tracks) * rates.trained_bytes(index.nlist) / 1e9,
        # They are written anew by every run.
        "tables and manifest": (
            case.tracks * rates.TRACK_IN_TABLES + shards * rates.SHARD_IN_MANIFEST
        ) / 1e9,
        "model": rates.MODEL_FILES / 1e9,
    }  # fmt: skip


def _hours(case: Case, search: rates.Search, tracks: float) -> dict[str, float]:
    """Of one core or GPU, by stage, for so many new tracks."""
    segments = case.segments()
    new = tracks * segments
    rate = case.fill_rate or 1 / rates.indexing_s(search.index)
    seconds = {
        "decode": tracks * case.minutes * 60 / case.decode_rate,
        "encode": new / case.encoder_rate,
        "lists and codes": new / rate,
        "merge by list": rates.merging_s(new, new / MAX_SHARD_FINGERPRINTS),
    }
    every = tracks * search.duplicate_s(min(EXCERPT, segments))
    seconds["near duplicates"] = min(every, rates.NEAR_DUPLICATES_SHARE * seconds["encode"])
    return {name: value / 3600 for name, value in seconds.items()}


def _elapsed(case: Case, hours: dict[str, float], tracks: float) -> dict[str, float]:
    """Hours by the clock, by stage; decoding and encoding share CPUs, or go on side by side."""
    cores = case.encoders * (case.node_processors if case.on_gpus else 1)
    shards = max(1, math.ceil(tracks * case.segments() / MAX_SHARD_FINGERPRINTS))
    at_once = {"lists and codes": shards, "merge by list": shards, "train": 1, "calibrate": 8}
    took = {
        name: each / (case.encoders if name == "encode" else min(cores, at_once.get(name, cores)))
        for name, each in hours.items()
    }
    if case.on_gpus:
        del took[min("decode", "encode", key=took.__getitem__)]
    return took | {"start": rates.START_S / 3600 if tracks else 0.0}


def _nodes(lists_gb: float, actors: int, usable_gb: float) -> int:
    """Query nodes that hold all lists, a whole number of actors each."""
    a_node = max(1, math.floor(usable_gb / (lists_gb / actors)))
    return math.ceil(actors / a_node)
