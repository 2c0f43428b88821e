"""What a catalog of some size needs: storage, machines, hours, and which limit comes first.

    grafp plan --tracks 100e6 --minutes 3.5 --new-per-night 50e3 --queries-per-day 1e6

The numbers follow from measured rates (grafp/rates.py), which options can replace. Hours
are those of one core or GPU, except node hours; GB are 10^9 bytes. The last line is the same as
JSON. `night` is an incremental run.

Exit code: 0 done, 2 bad arguments.
"""

import argparse
import contextlib
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
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
)
from grafp.model.fingerprint import HOP_SECONDS, query_stride, segment_count
from grafp.option_values import (
    Count,
    Kind,
    Seconds,
    choice,
    number,
    positive_float,
)
from grafp.options import parse, refuse

_HEAD_GB, _CPU_NODE_GB, _CLAIMED = 16, 32, 0.67  # cluster.yaml; of memory that actors may claim
_OBJECT_STORE = 0.3  # Ray's default share of memory


def _hop(text: str) -> float:
    with contextlib.suppress(argparse.ArgumentTypeError):
        if round((value := positive_float(text)) * 20, 6) in range(1, 21):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 0.05 s to 1 s")


Amount = Annotated[float, Kind("N", number(low=0.0))]
Above0 = Annotated[float, Kind("N", positive_float)]
Price = Annotated[float, Kind("PRICE", number(low=0.0))]


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
    node_memory_gb: Annotated[float, Kind("GB", positive_float)] = 64.0
    """Memory of a query node, as in cluster.yaml, GB."""
    node_processors: Above0 = 8.0
    """Cores of a node, as in cluster.yaml."""
    price_cpu_hour: Price | None = None
    """Price of a core for an hour (default: no cost)."""
    price_gpu_hour: Price | None = None
    """Price of a GPU that encodes, for an hour; needs --encoder-rate (default: no cost)."""
    price_memory_node_hour: Price | None = None
    """Price of a query node for an hour (default: no cost)."""
    price_gb_month: Price | None = None
    """Price of storage, for a GB and a month (default: no cost)."""

    def __post_init__(self) -> None:
        self.index_options()

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

    fingerprints: float
    index: IndexParameters
    shards: int
    bytes_a_fingerprint: dict[str, float]
    index_gb_by_codec: dict[str, float]
    storage_gb: dict[str, float]
    build_hours: dict[str, float]
    night_hours: dict[str, float]
    node_hours: dict[str, float]
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
    trained = rates.trained_bytes(index.nlist)
    by_codec = {c: count * (CODE_BYTES[c] + rates.LIST_AND_ID) / 1e9 for c in CODE_BYTES}
    embeddings = count * (rates.VECTOR_BYTES + rates.LEVELS)
    tables = case.tracks * rates.TRACK_IN_TABLES + shards * rates.SHARD_IN_MANIFEST
    storage = {
        "embeddings": (embeddings + case.tracks * rates.TRACK_IN_EMBEDDINGS) / 1e9,
        "codes": by_codec[index.codec],
        "trained index": trained / 1e9,
        "tables and manifest": tables / 1e9,
    }
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

    def hours(tracks: float) -> dict[str, float]:
        new = tracks * segments
        rate = case.fill_rate or 1 / rates.indexing_s(index)
        seconds = {
            "decode": tracks * case.minutes * 60 / case.decode_rate,
            "encode": new / case.encoder_rate,
            "lists and codes": new / rate,
            "merge by list": rates.merging_s(new, new / MAX_SHARD_FINGERPRINTS),
        }
        every = tracks * search.duplicate_s(min(EXCERPT, segments))
        seconds["near duplicates"] = min(every, rates.NEAR_DUPLICATES_SHARE * seconds["encode"])
        return {name: value / 3600 for name, value in seconds.items()}

    spent = {"build": hours(case.tracks), "night": hours(case.new_per_night)}
    spent["build"]["train"] = rates.training_s(index) / 3600
    on_gpus = case.price_gpu_hour is not None
    cpu_hours = {name: sum(h.values()) - on_gpus * h["encode"] for name, h in spent.items()}
    nodes = {name: each / case.node_processors for name, each in cpu_hours.items()}
    load = case.queries_per_day * sum(query_s.values()) / 86_400 / case.node_processors
    usable, needed = _CLAIMED * case.node_memory_gb, sum(memory.values())
    query_nodes = {"for memory": math.ceil(needed / usable), "for the load": math.ceil(load)}
    query_nodes["with vectors on disk"] = math.ceil((needed - memory["vectors"]) / usable)
    disk = {name: storage["embeddings"] / max(1, each) for name, each in query_nodes.items()}
    priced = {"storage a month": (case.price_gb_month, sum(storage.values()))}
    priced["query nodes a day"] = (case.price_memory_node_hour, 24 * max(query_nodes.values()))
    priced |= {name: (case.price_cpu_hour, each) for name, each in cpu_hours.items()}
    priced |= {f"{name}, GPUs": (case.price_gpu_hour, h["encode"]) for name, h in spent.items()}
    cost = {name: price * amount for name, (price, amount) in priced.items() if price is not None}
    in_files, in_memory = (sum(part.values()) * 1e9 / count for part in (storage, memory))
    return Plan(count, index, shards, {"stored": in_files, "in memory": in_memory}, by_codec,
                storage, spent["build"], spent["night"], nodes, codes, query_s, memory, actors,
                query_nodes, disk, cost)  # fmt: skip


def limits(case: Case) -> dict[str, dict[str, float | None]]:
    """What one machine must bear, the most exceeded first; None: no size breaks it."""

    def bounds(tracks: float) -> dict[str, tuple[float, float]]:  # needed, and there
        p, gt, whole = plan(replace(case, tracks=tracks)), tracks / 1e9, case.node_memory_gb
        store, manifest = _OBJECT_STORE * _HEAD_GB, p.shards * rates.SHARD_IN_MANIFEST / 1e9
        workers = math.floor(case.node_processors / rates.QUERY_CPUS)
        trained = rates.trained_bytes(p.index.nlist) / 1e9
        encode_h = p.build_hours["encode"]
        return {
            "GB, a first run with all tracks, on the head": (gt * rates.NEW_TRACK_IN_RUN, _HEAD_GB),
            "GB, a run that knows all tracks, on the head": (gt * rates.TRACK_IN_RUN, _HEAD_GB),
            "GB, names of all tracks in a query job, on the head":
                (gt * rates.TRACK_IN_QUERY_JOB, _HEAD_GB),
            "GB, the manifest in parts for search actors, in the head's object store":
                (manifest, store),
            "GB, hashes in the object store of a cpu node":
                (gt * rates.KNOWN_HASH, _OBJECT_STORE * _CPU_NODE_GB),
            "GB, centroids in all query workers of a node":
                (workers * trained, (1 - _CLAIMED) * whole),
            "h, merging beside encoding": (p.build_hours["merge by list"], encode_h),
        }  # fmt: skip

    sizes, found = {10 ** (n / 50): bounds(10 ** (n / 50)) for n in range(601)}, {}
    for what, (need, have) in sorted(bounds(case.tracks).items(), key=lambda b: -b[1][0] / b[1][1]):
        broken = (tracks for tracks, at in sizes.items() if at[what][0] > at[what][1])
        found[what] = {"need": need, "have": have, "breaks_at_tracks": next(broken, None)}
    return found


def table(p: Plan, limits: dict[str, dict[str, float | None]]) -> str:
    """The plan for a person."""
    lines = []
    for name, value in asdict(p).items():
        parts = value if isinstance(value, dict) else {"": value}
        told = ", ".join(f"{part} {_shown(each)}".strip() for part, each in parts.items())
        if name in ("storage_gb", "build_hours", "night_hours", "query_processor_s"):
            told = f"{_shown(sum(parts.values()))}: {told}"
        lines += [f"{name.replace('_', ' '):27}{told}"] if parts else []
    lines.append("\nwhat breaks first     needs         has   from tracks")
    for what, values in limits.items():
        mark = "BREAKS" if (values["need"] or 0.0) > (values["have"] or 0.0) else "ok"
        cells = "".join(f"{_shown(value):>15}" for value in values.values())
        lines.append(f"  {mark:7}{cells}  {what}")
    return "\n".join(lines)


def _shown(value: float | str | None) -> str:
    """Numbers with three figures."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value or "never"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 1000 else f"{value:.3g}"


def main(arguments: list[str] | None = None, *, prog: str = "python -m grafp.plan") -> int:
    case = parse(Case, __doc__, arguments, prog=prog)
    if case.price_gpu_hour is not None and case.encoder_rate == Case.encoder_rate:
        refuse("--price-gpu-hour: needs --encoder-rate, since no GPU was measured")
    result, bounds = plan(case), limits(case)
    print(table(result, bounds))
    print(json.dumps({**asdict(result), "limits": bounds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
