"""The nightly flow: list, subtract what is known, embed, fill, publish last."""

import io
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from grafp.audio import MAX_SECONDS
from grafp.bundle import ModelBundle, load_bundle
from grafp.catalogue import TRACK_SCHEMA, Catalogue, Manifest
from grafp.collection import Item, list_items
from grafp.errors import ModelError
from grafp.index import IndexParameters
from grafp.inference import HOP_SECONDS
from pipelines import merge
from pipelines.embed import EmbeddingStore, embed
from pipelines.runtime import connect

MAX_ATTEMPTS = 3
"""A recording that failed so often is left alone until its file changes."""


@dataclass
class Plan:
    """What a run has to do, from a listing and the published snapshot."""

    added: list[Item] = field(default_factory=list)
    changed: list[Item] = field(default_factory=list)
    retried: list[Item] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    kept: list[dict] = field(default_factory=list)
    """Rows of the published track table that stay as they are."""
    attempts: dict[str, int] = field(default_factory=dict)

    @property
    def work(self) -> list[Item]:
        return [*self.added, *self.changed, *self.retried]

    def counts(self) -> dict[str, int]:
        names = ("added", "changed", "withdrawn", "retried")
        return {name: len(getattr(self, name)) for name in names}


def make_plan(items: list[Item], known: list[dict], source: str) -> Plan:
    """Compare a listing with the published tracks.

    Only tracks that came from the same source can be withdrawn by being absent from it.
    """
    plan = Plan()
    before = {row["uri"]: row for row in known}
    for item in items:
        row = before.pop(item.uri, None)
        if row is None:
            plan.added.append(item)
        elif item.info and (row["size"], row["etag"]) != (item.info.size, item.info.etag):
            plan.changed.append(item)
        elif row["status"] != "ok" and row["attempts"] < MAX_ATTEMPTS:
            plan.retried.append(item)
            plan.attempts[item.uri] = row["attempts"]
        else:
            plan.kept.append(row)
    for uri, row in before.items():
        if row["source"] == source:
            plan.withdrawn.append(uri)
        else:
            plan.kept.append(row)
    return plan


def index_catalogue(
    audio: str | list[Item],
    catalogue_uri: str,
    *,
    model: str | None = None,
    workers: int | None = None,
    max_seconds: float = MAX_SECONDS,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Bring a catalogue up to date with a collection of audio; returns the run's summary.

    Raises StorageError, CatalogueError or ModelError with nothing published.
    """
    started = time.monotonic()
    catalogue = Catalogue.open(catalogue_uri)
    bundle = _model(catalogue, model)
    source = audio if isinstance(audio, str) else "list"
    items = list_items(audio) if isinstance(audio, str) else audio
    plan = make_plan(items, catalogue.tracks().to_pylist(), source)
    say(
        f"{len(items)} recordings listed: "
        + ", ".join(f"{v} {k}" for k, v in plan.counts().items())
    )
    if dry_run or not (plan.work or plan.withdrawn):
        return _summary(catalogue, plan, [], started)
    connect()
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    model_uri = catalogue.put_model(bundle)
    rows: list[dict] = []
    if plan.work:
        store = EmbeddingStore(
            root=catalogue.root,
            folder=f"embeddings/{bundle.model_id}/{run_id}",
            model_id=bundle.model_id,
            hop_s=HOP_SECONDS,
            attempts=plan.attempts,
        )
        rows = embed(plan.work, model_uri, store, workers=workers, max_seconds=max_seconds, say=say)
    _publish(catalogue, bundle, plan, rows, source, run_id, say)
    summary = _summary(catalogue, plan, rows, started)
    catalogue.put(f"runs/{run_id}/summary.json", (json.dumps(summary) + "\n").encode())
    return summary


def _model(catalogue: Catalogue, wanted: str | None) -> ModelBundle:
    """The catalogue's own model, or for a new catalogue the wanted one."""
    if catalogue.manifest is None:
        return load_bundle(wanted) if wanted else load_bundle()
    if wanted:
        bundle = load_bundle(wanted)
        if bundle.sha256 != catalogue.manifest.model_sha256:
            raise ModelError(
                f"{wanted} is {bundle.model_id}, but the catalogue was made with "
                f"{catalogue.manifest.model_id}; use that one, or another --catalog"
            )
    return catalogue.model()


def _publish(
    catalogue: Catalogue,
    bundle: ModelBundle,
    plan: Plan,
    rows: list[dict],
    source: str,
    run_id: str,
    say: Callable[[str], None],
) -> None:
    """Number the new tracks, index them, write the track table and the manifest, then publish."""
    old = catalogue.manifest
    next_ordinal = old.next_ordinal if old else 0
    for row in rows:
        row |= {"source": source, "ordinal": None}
        if row["status"] == "ok":
            row["ordinal"], next_ordinal = next_ordinal, next_ordinal + 1
    everything = sorted([*plan.kept, *rows], key=lambda row: row["uri"])
    live = [_track_ref(row) for row in everything if row["status"] == "ok"]
    fingerprints = sum(track.n_segments for track in live)
    parameters, template, shards = None, None, []
    if old and old.template and old.parameters and not old.parameters.outgrown_by(fingerprints):
        parameters, template, shards = old.parameters, old.template, list(old.shards)
        template_id = template.key.split("/")[1]
        todo = [_track_ref(row) for row in rows if row["status"] == "ok"]
    elif live:
        parameters = IndexParameters.for_size(fingerprints)
        say(f"training the index: {parameters.nlist} lists, {parameters.codec}")
        template_id, template = merge.train(catalogue, live, parameters)
        todo = live
    if template and todo:
        shards += merge.fill_shards(catalogue, template_id, template, todo, say)
    snapshot = f"{run_id}"
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(everything, schema=TRACK_SCHEMA), buffer)
    manifest = Manifest(
        snapshot=snapshot,
        parent=old.snapshot if old else None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model_id=bundle.model_id,
        model_sha256=bundle.sha256,
        hop_s=HOP_SECONDS,
        template=template,
        parameters=parameters,
        shards=shards,
        tracks=catalogue.put(f"snapshots/{snapshot}.tracks.parquet", buffer.getvalue()),
        next_ordinal=next_ordinal,
        counts={
            "tracks": len(live),
            "fingerprints": fingerprints,
            "failed": len(everything) - len(live),
        },
    )
    catalogue.publish(manifest)
    say(f"published snapshot {snapshot}: {len(live)} tracks, {fingerprints:,} fingerprints")


def _track_ref(row: dict) -> merge.TrackRef:
    return merge.TrackRef(row["ordinal"], row["track_id"], row["embedding_file"], row["n_segments"])


def _summary(catalogue: Catalogue, plan: Plan, rows: list[dict], started: float) -> dict:
    manifest = catalogue.manifest
    counts = manifest.counts if manifest else {"tracks": 0, "fingerprints": 0}
    failures = [row for row in rows if row["status"] != "ok"]
    return {
        "snapshot": manifest.snapshot if manifest else None,
        **plan.counts(),
        "failed": len(failures),
        "embedded": len(rows) - len(failures),
        "tracks": counts["tracks"],
        "fingerprints": counts["fingerprints"],
        "seconds": round(time.monotonic() - started, 2),
        "audio_hours": round(sum(row["duration_s"] for row in rows) / 3600, 4),
        "failures": [
            {"uri": row["uri"], "kind": row["error_kind"], "reason": row["error"]}
            for row in failures[:100]
        ],
    }
