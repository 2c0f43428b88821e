"""What a catalog of some size takes: storage, machines, nights, queries, and what breaks first.

    python -m grafp.plan --tracks 100e6 --minutes 3.5 --new-per-night 50e3 --queries-per-day 1e6

Arithmetic with measured or given rates; docs/scale.md says where they come from. Hours are of one
processor or GPU, except of nodes; GB are 10^9 bytes. The last line is the same as JSON.
"""

import argparse
import json
import math
import sys
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from grafp.audio import SAMPLE_RATE
from grafp.index.size import MAX_SHARD_FINGERPRINTS, IndexParameters
from grafp.model.fingerprint import DIMENSION, HOP_SECONDS, query_stride, segment_count

ACTOR_BYTES = 8 << 30  # a copy of what can only be imported with Ray; tests/test_plan.py compares
CODE_BYTES = {"PQ64x4fs": 32, "PQ64": 64, "SQfp16": 2 * DIMENSION}
_VECTOR_BYTES, _ID_BYTES, _CENTROID_BYTES = 2 * DIMENSION, 8, 4 * DIMENSION
_BLOCK = 32  # FAISS keeps 4-bit codes in blocks of so many, and fills the last one of a list up
_HEAD_GB, _CPU_NODE_GB, _CLAIMED = 16, 32, 0.67  # cluster.yaml; of memory that actors may claim
_OBJECT_STORE, _ITERATIONS = 0.3, 10  # Ray's default share of memory; of k-means
_EXCERPT = 50  # fingerprints of a new track that are searched: pipelines.indexing.duplicates
# Bytes, by benchmarks/records.py; each of a processor's 4 decoders has the hashes.
_TRACK_PLANNED, _TRACK_HASHES, _TRACK_IN_PARQUET, _SHARD_IN_MANIFEST = 2_106, 4 * 155, 204, 764
# Of one processor in a second, by benchmarks/scale.py: comparisons with a centroid in filling,
# training and choosing lists for a query; fingerprints filled, comparisons apart; queries scored.
_FILLING, _TRAINING, _CHOOSING, _FILED, _SCORED = 3.57e8, 2.19e8, 1.17e8, 1.72e5, 408.0
_ABOVE_0, _FROM_0, _HOP = "a number above 0", "a number of 0 or more", "a multiple of 0.05 s to 1 s"


def _option(what: str, default: Any = MISSING, wanted: str = _ABOVE_0, **more: Any) -> Any:
    """A field that is an option too; `more` is for argparse."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        fits = value >= 0 if wanted == _FROM_0 else value > 0
        fits &= round(value * 20, 6) in range(1, 21) if wanted == _HOP else value < math.inf
        if not fits:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    shown = what if default in (MISSING, None) else f"{what} (%(default)s)"
    return field(default=default, metadata={"type": parse, "help": shown} | more)


@dataclass(frozen=True)
class Case:
    """What is asked. Rates are of one processor in a second, as benchmarks/scale.py prints them."""

    tracks: float = _option("in the catalog, such as 100e6")
    minutes: float = _option("mean length of a track", 3.5)
    hop: float = _option("seconds between two fingerprints", HOP_SECONDS, _HOP)
    rerank: str = _option("as query_batch.py", "exact", type=str, choices=("exact", "pq"))
    new_per_night: float = _option("tracks", 0.0, _FROM_0)
    queries_per_day: float = _option("evenly over the day", 0.0, _FROM_0)
    query_seconds: float = _option("length of a query", 5.0)
    encoder_rate: float = _option("segments a second of an encoder; benchmarks/encoder.py", 842.0)
    decode_rate: float = _option("times real time: mp3, stereo, 44.1 kHz", 435.0)
    fill_rate: float | None = _option("fingerprints filled; default: by the number of lists", None)
    search_rate: float = _option("codes scanned, the padding of lists included", 3.38e8)
    node_memory_gb: float = _option("of a query node: cluster.yaml's memory", 64.0)
    node_processors: float = _option("of a node of cluster.yaml", 8.0)
    price_cpu_hour: float | None = _option("of a processor; no price, no cost", None, _FROM_0)
    price_gpu_hour: float | None = _option("of a GPU that encodes", None, _FROM_0)
    price_memory_node_hour: float | None = _option("of a query node", None, _FROM_0)
    price_gb_month: float | None = _option("of storage", None, _FROM_0)

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
    """What a case takes; dictionaries hold parts, of what their names say."""

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
        filed = case.fill_rate or 1 / (parameters.nlist / _FILLING + 1 / _FILED)
        each = {"decode": decode_s, "encode": encode_s, "fill": segments / filed}
        each["near duplicates"] = sum(search_s(_EXCERPT).values())
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
    parser = argparse.ArgumentParser("python -m grafp.plan", allow_abbrev=False)
    for f in fields(Case):
        option = f"--{f.name}".replace("_", "-")
        parser.add_argument(option, required=f.default is MISSING, default=f.default, **f.metadata)
    case = Case(**vars(parser.parse_args(arguments)))
    if case.price_gpu_hour is not None and case.encoder_rate == Case.encoder_rate:
        parser.error("argument --price-gpu-hour: needs --encoder-rate, no GPU was measured")
    result, bounds = plan(case), limits(case)
    print(table(result, bounds))
    print(json.dumps({**asdict(result), "limits": bounds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
