"""What a training run hears, decoded once: by Ray Data, or in this process without Ray.

OUT/data.json says which collections a run uses, so that --resume goes on with the same.
"""

import json
from dataclasses import asdict
from typing import Any

from grafp import storage
from grafp.audio import decode
from grafp.errors import OptionError, StorageError
from grafp.training.data.pcm import Part, PartWriter, Sources
from grafp.training.data.prepare import Collected, changes, collect

OPTIONS = {"music": "--music", "noise": "--noise", "rooms": "--rir"}
RECORD = "data.json"


def list_sources(uris: dict[str, str | None]) -> list[Sources]:
    """What there is to collect. Raises OptionError or StorageError that name the option."""
    return [_listed(what, uri) for what, uri in uris.items() if uri]


def _listed(what: str, uri: str) -> Sources:
    try:
        return Sources.of(what, storage.absolute(uri))
    except (OptionError, StorageError) as error:
        raise type(error)(f"{OPTIONS[what]} {error}") from error.__cause__


def collect_all(
    sources: list[Sources],
    store: str,
    out: str,
    *,
    resume: bool,
    on_ray: bool,
) -> dict[str, Collected]:
    """Have all collections in shards under `store`, which a run under `out` will use.

    Raises OptionError when one is not what the run to resume began with, StorageError,
    TrainingError when one has nothing to use.
    """
    record = storage.join(out, RECORD)
    before = _recorded(record) if resume else {}
    if before:
        _check_same(before, sources)
    collected = {
        one.what: collect(one, store, _on_ray if on_ray else None, before.get(one.what))
        for one in sources
    }
    values = {what: asdict(one) for what, one in collected.items()}
    storage.write(record, (json.dumps(values, indent=2) + "\n").encode())
    return collected


def _recorded(uri: str) -> dict[str, Collected]:
    if storage.stat(uri) is None:
        return {}
    try:
        return {what: Collected(**values) for what, values in json.loads(storage.read(uri)).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise StorageError(f"{uri}: damaged; choose another --out") from error


def _check_same(before: dict[str, Collected], sources: list[Sources]) -> None:
    for what in before.keys() ^ {one.what for one in sources}:
        began = "with" if what in before else "without"
        raise OptionError(f"--resume: the run began {began} {OPTIONS[what]}; continue it so")
    for now in sources:
        if before[now.what].digest != now.digest:
            raise OptionError(
                f"--resume: {OPTIONS[now.what]} {now.uri} has changed since the run began: "
                f"{_told(before[now.what], now)}; choose another --out"
            )


def _told(before: Collected, now: Sources) -> str:
    try:
        return changes(before.table(), now) or "other settings"
    except StorageError:
        return "what it was is not known any more"


def _on_ray(
    parts: list[Part],
    writer: PartWriter,
) -> None:
    import ray.data  # here, since training in this process does without

    from pipelines.common.runtime import connect, finished_rows

    if not parts:
        return
    connect()
    rows = [{"part": json.dumps(part)} for part in parts]
    results = ray.data.from_items(rows, override_num_blocks=min(len(rows), 4096)).flat_map(
        _decode_part, fn_kwargs={"writer": writer}, num_cpus=1
    )
    for _ in finished_rows(results, sum(map(len, parts))):
        pass


def _decode_part(row: dict[str, Any], writer: PartWriter) -> list[dict]:
    """What finished_rows wants to know of each recording; the rest is in the store."""
    from grafp.audio import SAMPLE_RATE
    from pipelines.common.decode import decode_guarded

    def guarded(recording: dict, data: bytes, **options: Any) -> Any:
        return decode_guarded(recording, decode, data, **options)

    rows = writer(json.loads(row["part"]), guarded)
    return [
        {
            "status": "ok" if result["status"] == "ok" else "failed",
            "duration_s": result["samples"] / SAMPLE_RATE,
        }
        for result in rows
    ]
