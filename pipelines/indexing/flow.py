"""The nightly flow: list, subtract what is known, embed, fill, publish last.

A run that dies is continued by the next: what it finished lies under names that say what it is
made of, and nothing refers to it until the manifest is published.
"""

import io
import json
import logging
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from grafp.audio import MAX_SECONDS
from grafp.catalog.catalog import Catalog
from grafp.catalog.changes import Plan, estimate, join, make_plan
from grafp.catalog.manifest import Manifest
from grafp.catalog.tracks import TRACK_SCHEMA, Row, live_refs
from grafp.errors import ModelError, OptionError
from grafp.model.bundle import DEFAULT_MODEL, ModelCard, read_card
from grafp.model.fingerprint import HOP_SECONDS
from grafp.reports.catalog_run import run_report
from grafp.storage.sources import Item, list_items
from pipelines.common.placement import ENCODERS, Encoders
from pipelines.common.runtime import connect
from pipelines.indexing import upkeep
from pipelines.indexing.calibrate import calibrated
from pipelines.indexing.duplicates import DUPLICATE_SCHEMA, near_duplicates
from pipelines.indexing.embed import EmbeddingStore, embed, left_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run over one catalog."""

    catalog: Catalog
    model_id: str
    model_sha256: str
    hop_s: float
    run_id: str

    @classmethod
    def begin(cls, catalog: Catalog, model_id: str, model_sha256: str, hop_s: float) -> "Run":
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        return cls(catalog, model_id, model_sha256, hop_s, run_id)

    def manifest(self, rows: list[Row], state: upkeep.IndexState, next_ordinal: int) -> Manifest:
        """Write the track table of a new snapshot; the snapshot is not published yet."""
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=TRACK_SCHEMA), buffer)
        table = self.catalog.put(f"snapshots/{self.run_id}.tracks.parquet", buffer.getvalue())
        live = live_refs(rows)
        states = [row["status"] for row in rows]
        old = self.catalog.manifest
        return Manifest(
            snapshot=self.run_id,
            parent=old.snapshot if old else None,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model_id=self.model_id,
            model_sha256=self.model_sha256,
            hop_s=self.hop_s,
            calibration=old.calibration if old else None,
            template=state.template,
            parameters=state.parameters,
            when_trained=state.when_trained,
            shards=list(state.shards),
            tracks=table,
            next_ordinal=next_ordinal,
            counts={
                "tracks": states.count("ok"),
                "copies": states.count("ok") - len(live),
                "fingerprints": sum(ref.n_segments for ref in live.values()),
                "failed": states.count("failed"),
                "withdrawn": states.count("withdrawn"),
            },
        )

    def put(self, name: str, data: bytes) -> None:
        """Keep something of the run for its owner."""
        self.catalog.put(f"runs/{self.run_id}/{name}", data)


def index_catalog(
    audio: str | list[Item],
    catalog_uri: str,
    *,
    model: str | None = None,
    hop_s: float | None = None,
    encoders: Encoders = ENCODERS,
    max_seconds: float = MAX_SECONDS,
    allow_empty: bool = False,
    dry_run: bool = False,
) -> dict:
    """Bring a catalog up to date with a collection of audio; returns the run's summary.

    `model` and `hop_s`, the seconds between two fingerprints, are for a new catalog.

    Raises StorageError, CatalogError, ModelError or OptionError with nothing published.
    """
    started = time.monotonic()
    catalog = Catalog.open(catalog_uri)
    card, hop_s = _model(catalog, model), _hop(catalog, hop_s)
    source = audio if isinstance(audio, str) else "list"
    items = list_items(audio, may_be_missing=allow_empty) if isinstance(audio, str) else audio
    plan = make_plan(items, catalog.tracks().to_pylist(), source)
    if not items and plan.withdrawn and not allow_empty:
        raise OptionError(
            f"--audio {source} is empty: all {len(plan.withdrawn)} tracks from there would be "
            "withdrawn; check it, or add --allow-empty"
        )
    counts = ", ".join(f"{count} {name}" for name, count in plan.counts().items())
    logger.info(f"{len(items)} recordings listed: {counts}")
    if dry_run:
        expected = estimate(plan, hop_s)
        logger.info(_estimate_line(expected))
        return {**_summary(catalog, plan, [], 0, started), "estimate": expected}
    if not (plan.work or plan.withdrawn):
        return _summary(catalog, plan, [], 0, started)
    connect()
    run = Run.begin(catalog, card.model_id, card.sha256, hop_s)
    model_uri = catalog.put_model(card)
    rows, resumed = _embed(run, model_uri, plan, encoders, max_seconds)
    duplicates = _publish(run, plan, rows, source)
    summary = _summary(catalog, plan, rows, resumed, started)
    summary["near_duplicates"] = len(duplicates)
    run.put("summary.json", (json.dumps(summary) + "\n").encode())
    run.put("report.html", run_report(catalog, summary, duplicates).encode())
    return summary


def _model(catalog: Catalog, wanted: str | None) -> ModelCard:
    """The catalog's own model, or for a new catalog the wanted one."""
    if catalog.manifest is None:
        from grafp.model.bundle import load_bundle  # imports PyTorch, which other nights do without

        return load_bundle(wanted or DEFAULT_MODEL)  # so that bad weights are refused now
    if wanted:
        card = read_card(wanted)
        if card.sha256 != catalog.manifest.model_sha256:
            raise ModelError(
                f"{wanted} is {card.model_id}, but the catalog was made with "
                f"{catalog.manifest.model_id}; use that one, or another --catalog"
            )
    return catalog.model()


def _hop(catalog: Catalog, wanted: float | None) -> float:
    """The catalog's own hop, or for a new catalog the wanted one."""
    if wanted is not None and (not 0 < wanted <= 1 or abs(wanted * 20 - round(wanted * 20)) > 1e-6):
        raise OptionError(f"--hop {wanted:g}: not a multiple of 0.05 s up to 1 s")
    if catalog.manifest is None:
        return HOP_SECONDS if wanted is None else wanted
    if wanted not in (None, catalog.manifest.hop_s):
        raise OptionError(
            f"--hop {wanted:g}: the catalog has a fingerprint every {catalog.manifest.hop_s:g} "
            "s; leave the option out, or use another --catalog"
        )
    return catalog.manifest.hop_s


def _embed(
    run: Run,
    model_uri: str,
    plan: Plan,
    encoders: Encoders,
    max_seconds: float,
) -> tuple[list[Row], int]:
    """One row per recording of the plan's work, in its order; how many a dead run had left."""
    published = {row["embedding_file"] for row in plan.known.values()}
    rows = left_over(run.catalog.root, run.model_id, run.hop_s, published, plan.work)
    resumed = len(rows)
    if resumed:
        logger.info(f"  {resumed} recordings were finished by a run that was not published")
    done = {row["uri"] for row in rows}
    todo = [item for item in plan.work if item.uri not in done]
    if todo:
        store = EmbeddingStore(
            root=run.catalog.root,
            folder=f"embeddings/{run.model_id}/{run.run_id}",
            model_id=run.model_id,
            hop_s=run.hop_s,
            attempts=plan.attempts,
        )
        rows += embed(
            todo,
            model_uri,
            store,
            known=plan.known,
            encoders=encoders,
            max_seconds=max_seconds,
        )
    order = {item.uri: number for number, item in enumerate(plan.work)}
    return sorted(rows, key=lambda row: order[row["uri"]]), resumed


def _publish(
    run: Run,
    plan: Plan,
    rows: list[Row],
    source: str,
) -> list[dict]:
    """Index the new tracks and publish; returns the near duplicates among them."""
    old = run.catalog.manifest
    table, next_ordinal = join(plan, rows, source, old.next_ordinal if old else 0)
    live = live_refs(table)
    state = upkeep.extend(run.catalog, upkeep.IndexState.of(old), live)
    manifest = run.manifest(table, state, next_ordinal)
    manifest = calibrated(run.catalog, manifest, live)
    first_new = old.next_ordinal if old else 0
    new = [ref for ordinal, ref in live.items() if ordinal >= first_new]
    duplicates = near_duplicates(run.catalog, manifest, table, new)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(duplicates, schema=DUPLICATE_SCHEMA), buffer)
    run.put("duplicates.parquet", buffer.getvalue())
    run.catalog.publish(manifest)
    counts = manifest.counts
    logger.info(
        f"published snapshot {run.run_id}: {counts['tracks']} tracks, "
        f"{counts['fingerprints']:,} fingerprints"
    )
    return duplicates


def _estimate_line(expected: dict[str, float]) -> str:
    return (
        f"about {expected['audio_hours']} h of audio, {expected['fingerprints']:,} fingerprints, "
        f"{expected['stored_mb']:,} MB to store, {expected['task_memory_mb']:,} MB for a task"
    )


def _summary(catalog: Catalog, plan: Plan, rows: list[Row], resumed: int, started: float) -> dict:
    manifest = catalog.manifest
    counts = manifest.counts if manifest else {"tracks": 0, "fingerprints": 0}
    failures = [row for row in rows if row["status"] != "ok"]
    return {
        "snapshot": manifest.snapshot if manifest else None,
        **plan.counts(),
        "failed": len(failures),
        "embedded": len(rows) - len(failures),
        "resumed": resumed,
        "tracks": counts["tracks"],
        "fingerprints": counts["fingerprints"],
        "seconds": round(time.monotonic() - started, 2),
        "audio_hours": round(sum(row["duration_s"] for row in rows) / 3600, 4),
        "failures": [
            {"uri": row["uri"], "kind": row["error_kind"], "reason": row["error"]}
            for row in failures[:100]
        ],
    }
