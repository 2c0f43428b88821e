"""What a catalog of some size needs: storage, machines, hours, and which limit comes first.

    grafp plan --tracks 100e6 --minutes 3.5 --new-per-night 50e3 --queries-per-day 1e6

The numbers follow from measured rates (grafp/rates.py), which options can replace. Hours
are those of one core or GPU, except node hours; GB are 10^9 bytes. The last line is the same as
JSON. `night` is an incremental run.

Exit code: 0 done, 2 bad arguments.
"""

import json
import math
import sys
from dataclasses import asdict, replace

from grafp import rates
from grafp.options import parse, refuse
from grafp.sizing import CLAIMED, Case, Plan, plan

__all__ = ["Case", "Plan", "limits", "main", "plan", "table"]

_HEAD_GB, _CPU_NODE_GB = 16, 32  # cluster.yaml
_OBJECT_STORE = 0.3  # Ray's default share of memory


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
                (workers * trained, (1 - CLAIMED) * whole),
            "GB, exact fingerprints on the disk of a query node; the rest is read from the store":
                (p.query_disk_gb["of each node"], case.node_disk_gb),
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
