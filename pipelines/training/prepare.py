"""Audio of a training run, decoded once: by Ray Data, or in this process without Ray.

OUT/data.json names the collections that a run uses, so that --resume continues with the same.
"""

import json
from dataclasses import asdict
from typing import Any

from grafp import storage
from grafp.audio import decode
from grafp.datasets import Kind
from grafp.errors import OptionError, StorageError, TrainingError
from grafp.storage.records import read_record
from grafp.training.config import TrainConfig
from grafp.training.data.pcm import Part, PartWriter, Sources
from grafp.training.data.prepare import Collected, changes, collect

OPTIONS = {"music": "--music", "noise": "--noise", "rir": "--rir"}
RECORD = "data.json"


def list_sources(uris: dict[Kind, str | None]) -> list[Sources]:
    """The recordings of each collection. Raises OptionError, StorageError: they name the option."""
    return [_listed(what, uri) for what, uri in uris.items() if uri]


def _listed(what: Kind, uri: str) -> Sources:
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
    held_out: float = TrainConfig.held_out,
) -> dict[str, Collected]:
    """Decode all collections that a run under `out` uses into shards under `store`.

    `held_out` is the share of the groups of each that is for validation, where no row has that
    split.

    Raises OptionError when one has changed since the run to resume began, TrainingError when one
    has no usable recording, StorageError.
    """
    record = storage.join(out, RECORD)
    before = _recorded(record) if resume else {}
    if before:
        _check_same(before, sources)
    collected: dict[str, Collected] = {
        one.what: collect(one, store, _on_ray if on_ray else None, before.get(one.what), held_out)
        for one in sources
    }
    values = {what: asdict(one) for what, one in collected.items()}
    storage.write(record, (json.dumps(values, indent=2) + "\n").encode())
    return collected


def _recorded(uri: str) -> dict[str, Collected]:
    """Raises TrainingError when the record is damaged."""
    if storage.stat(uri) is None:
        return {}
    return read_record(uri, dict[str, Collected], TrainingError)


def _check_same(before: dict[str, Collected], sources: list[Sources]) -> None:
    for what in before.keys() ^ {one.what for one in sources}:
        began = "with" if what in before else "without"
        option = OPTIONS.get(what, what)  # an earlier version may have recorded other kinds
        raise OptionError(f"--resume: the run began {began} {option}; continue it so")
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
        return "the record of its earlier content is gone"


def _on_ray(parts: list[Part], writer: PartWriter) -> None:
    """Decode parts as tasks of Ray Data."""
    import ray.data  # here, since training in this process does without

    from pipelines.common.finished import finished_rows
    from pipelines.common.runtime import connect

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
    """Status and duration of each recording, for `finished_rows`; the rest is in the store."""
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
