"""What a catalog of some size needs: storage, machines, hours, and which limit comes first.

    python -m grafp.plan --tracks 100e6 --minutes 3.5 --new-per-night 50e3 --queries-per-day 1e6

The numbers follow from measured rates, which options can replace; docs/results/scale.md says
where they come from. Hours are those of one core or GPU, except node hours; GB are 10^9 bytes.
The last line is the same as JSON. `night` is an incremental run.

Exit code: 0 done, 2 bad arguments.
"""

import argparse
import contextlib
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

from grafp.audio import SAMPLE_RATE
from grafp.index.size import (
    ACTOR_BYTES,
    CODE_BYTES,
    EXCERPT,
    MAX_SHARD_FINGERPRINTS,
    IndexParameters,
)
from grafp.model.fingerprint import DIMENSION, HOP_SECONDS, query_stride, segment_count
from grafp.options import Kind, Seconds, number, parse, positive_float, refuse

_VECTOR_BYTES, _ID_BYTES, _CENTROID_BYTES = 2 * DIMENSION, 8, 4 * DIMENSION
_BLOCK = 32  # FAISS keeps 4-bit codes in blocks of so many, and pads the last one of a list
_HEAD_GB, _CPU_NODE_GB, _CLAIMED = 16, 32, 0.67  # cluster.yaml; of memory that actors may claim
_OBJECT_STORE, _ITERATIONS = 0.3, 10  # Ray's default share of memory; of k-means
# Bytes, by benchmarks/records.py; each of a core's 4 decoders has the hashes.
_TRACK_PLANNED, _TRACK_HASHES, _TRACK_IN_PARQUET, _SHARD_IN_MANIFEST = 2_106, 4 * 155, 204, 764
# Of one core in a second, by benchmarks/scale.py: comparisons with a centroid in adding,
# training and choosing lists for a query; fingerprints added, comparisons apart; queries scored.
_ADDING, _TRAINING, _CHOOSING, _ADDED, _SCORED = 3.57e8, 2.19e8, 1.17e8, 1.72e5, 408.0


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
    """What is asked. Rates are of one core, as benchmarks/scale.py prints them."""

    tracks: Above0
    """Tracks in the catalog, such as 100e6."""
    minutes: Annotated[float, Kind("M", positive_float)] = 3.5
    """Mean length of a track, minutes."""
    hop: Annotated[float, Kind("S", _hop)] = HOP_SECONDS
    """Time between two fingerprints: a multiple of 0.05 s, to 1 s."""
    rerank: Literal["exact", "pq"] = "exact"
    """As --rerank of query_batch.py."""
    new_per_night: Amount = 0.0
    """New tracks in each incremental run."""
    queries_per_day: Amount = 0.0
    """Queries, spread evenly over the day."""
    query_seconds: Seconds = 5.0
    """Length of a query, seconds."""
    encoder_rate: Above0 = 842.0
    """Segments per second of an encoder, as benchmarks/encoder.py measures."""
    decode_rate: Above0 = 435.0
    """Seconds of audio that a core decodes per second: mp3, stereo, 44.1 kHz."""
    fill_rate: Above0 | None = None
    """Fingerprints that a core adds to the index per second (default: by the number of lists)."""
    search_rate: Above0 = 3.38e8
    """Codes that a core compares per second, the padding of lists included."""
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

    def segments(self) -> int:
        """Fingerprints of a track."""
        samples = round(self.minutes * 60 * SAMPLE_RATE)
        return max(1, segment_count(samples, round(self.hop * SAMPLE_RATE)))

    def query_segments(self) -> int:
        """Fingerprints of a query."""
        hop = round(self.hop * SAMPLE_RATE) // query_stride(self.hop)
        return max(1, segment_count(round(self.query_seconds * SAMPLE_RATE), hop))


def bytes_each(index: IndexParameters, in_shard: float, codec: str) -> float:
    """Of a fingerprint in shards of so many: code, id, its share of the shard's centroids."""
    codes = in_shard if codec != "PQ64x4fs" else index.nlist * padded(index, in_shard)
    in_lists = codes * CODE_BYTES[codec] + index.nlist * _CENTROID_BYTES
    return in_lists / in_shard + _ID_BYTES


def padded(index: IndexParameters, in_shard: float) -> float:
    """Codes of a list with its padding; lists are as uneven as a geometric distribution."""
    more = in_shard / (in_shard + index.nlist)
    return _BLOCK * more / (1 - more**_BLOCK)


@dataclass(frozen=True)
class Plan:
    """What a case needs; dictionaries hold the parts."""

    fingerprints: float
    index: IndexParameters
    shards: int
    index_bytes_a_fingerprint: float
    index_gb_by_codec: dict[str, float]
    storage_gb: dict[str, float]
    build_hours: dict[str, float]
    night_hours: dict[str, float]
    node_hours: dict[str, float]
    query_processor_s: dict[str, float]
    query_memory_gb: dict[str, float]
    search_actors: int
    query_nodes: dict[str, int]
    cost: dict[str, float]


def plan(case: Case) -> Plan:
    """All but the limits."""
    segments, asked = case.segments(), case.query_segments()
    count = case.tracks * segments
    parameters = IndexParameters.for_size(int(count))
    shards = math.ceil(case.tracks / max(1, MAX_SHARD_FINGERPRINTS // segments))
    by_codec = {c: count * bytes_each(parameters, count / shards, c) / 1e9 for c in CODE_BYTES}
    index, vectors = by_codec[parameters.codec], count * _VECTOR_BYTES / 1e9
    storage = {"embeddings": vectors, "vectors": vectors, "index": index}
    storage["track table"] = case.tracks * _TRACK_IN_PARQUET / 1e9
    exact = vectors if case.rerank == "exact" else 0.0
    memory = {"index": index, "vectors": exact, "decoded codes": 0.0 if exact else index}
    held = sum(memory.values())
    actors = min(shards, math.ceil(held * 1e9 / ACTOR_BYTES))
    visit_s = padded(parameters, count / shards) / case.search_rate

    def search_s(fingerprints: int) -> dict[str, float]:
        choose = fingerprints * actors * parameters.nlist / _CHOOSING
        scan = fingerprints * shards * parameters.nprobe * visit_s
        return {"choose lists": choose, "scan": scan, "score": 1 / _SCORED}

    def hours(tracks: float) -> dict[str, float]:
        decode_s, encode_s = case.minutes * 60 / case.decode_rate, segments / case.encoder_rate
        filed = case.fill_rate or 1 / (parameters.nlist / _ADDING + 1 / _ADDED)
        each = {"decode": decode_s, "encode": encode_s, "fill": segments / filed}
        each["near duplicates"] = sum(search_s(EXCERPT).values())
        return {name: tracks * seconds / 3600 for name, seconds in each.items()}

    spent = {"build": hours(case.tracks), "night": hours(case.new_per_night)}
    spent["build"]["train"] = (
        _ITERATIONS * parameters.training_points * parameters.nlist / _TRAINING / 3600
    )
    on_gpus = case.price_gpu_hour is not None
    cpu_hours = {name: sum(h.values()) - on_gpus * h["encode"] for name, h in spent.items()}
    nodes = {name: each / case.node_processors for name, each in cpu_hours.items()}
    query_s = {"encode": asked / case.encoder_rate} | search_s(asked)
    load = case.queries_per_day * sum(query_s.values()) / 86_400 / case.node_processors
    usable = _CLAIMED * case.node_memory_gb
    query_nodes = {"for memory": math.ceil(held / usable), "for the load": math.ceil(load)}
    query_nodes["with vectors on disk"] = math.ceil((held - exact) / usable)
    priced = {"storage a month": (case.price_gb_month, sum(storage.values()))}
    priced["query nodes a day"] = (case.price_memory_node_hour, 24 * max(query_nodes.values()))
    priced |= {name: (case.price_cpu_hour, each) for name, each in cpu_hours.items()}
    priced |= {f"{name}, GPUs": (case.price_gpu_hour, h["encode"]) for name, h in spent.items()}
    cost = {name: price * amount for name, (price, amount) in priced.items() if price is not None}
    return Plan(count, parameters, shards, index * 1e9 / count, by_codec, storage, spent["build"],
                spent["night"], nodes, query_s, memory, actors, query_nodes, cost)  # fmt: skip


def limits(case: Case) -> dict[str, dict[str, float | None]]:
    """What one machine must bear, the most exceeded first; None: no size breaks it."""

    def bounds(tracks: float) -> dict[str, tuple[float, float]]:  # needed, and there
        p, gt, whole = plan(replace(case, tracks=tracks)), tracks / 1e9, case.node_memory_gb
        actors = max(1, min(p.search_actors, int(_CLAIMED * whole * 1e9 / ACTOR_BYTES)))
        manifests, near_h = p.search_actors * p.shards / 1e9, p.build_hours["near duplicates"]
        hashes = gt * _TRACK_HASHES * case.node_processors
        return {
            "GB, all tracks planned, on the head": (gt * _TRACK_PLANNED, _HEAD_GB),
            "GB, a manifest for every actor, in the head's object store":
                (manifests * _SHARD_IN_MANIFEST, _OBJECT_STORE * _HEAD_GB),
            "GB, hashes in the decoders of a cpu node": (hashes, _CPU_NODE_GB),
            "GB, track table in the search actors of a node":
                (gt * _TRACK_IN_PARQUET * actors, (1 - _CLAIMED) * whole),
            "h, near duplicates beside encoding": (near_h, p.build_hours["encode"]),
        }  # fmt: skip

    sizes, found = {10 ** (n / 50): bounds(10 ** (n / 50)) for n in range(601)}, {}
    for what, (need, have) in sorted(bounds(case.tracks).items(), key=lambda b: b[1][1] / b[1][0]):
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


def main(arguments: list[str] | None = None) -> int:
    case = parse(Case, __doc__, arguments, prog="python -m grafp.plan")
    if case.price_gpu_hour is not None and case.encoder_rate == Case.encoder_rate:
        refuse("--price-gpu-hour: needs --encoder-rate, since no GPU was measured")
    result, bounds = plan(case), limits(case)
    print(table(result, bounds))
    print(json.dumps({**asdict(result), "limits": bounds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
