"""The flow of an index run: list, subtract what is known, embed, index, publish last.

The next run continues one that was interrupted: what that one finished is stored under names that
tell its content, and no reader sees it until the manifest is published.
"""

import json
import logging
import time
from collections import Counter
from dataclasses import asdict, replace

import pyarrow as pa

from grafp.audio import MAX_SECONDS
from grafp.catalog.catalog import Catalog
from grafp.catalog.changes import (
    Changes,
    find_changes,
    join,
    known_hashes,
    listing_of,
)
from grafp.catalog.manifest import index_health
from grafp.catalog.tracks import Row, has_status, live_refs
from grafp.errors import ModelError, OptionError
from grafp.index.size import AUTOMATIC, IndexOptions
from grafp.model.background import parse_background
from grafp.model.bundle import DEFAULT_MODEL, ModelCard, read_background, read_card
from grafp.model.fingerprint import HOP_SECONDS
from grafp.reports.catalog_run import run_report
from grafp.storage.inventory import source_of
from grafp.storage.sources import Item, list_items
from pipelines.common.machines import connected
from pipelines.common.work import ENCODERS, Encoders, at_work
from pipelines.indexing import upkeep
from pipelines.indexing.calibrate import calibrated, missing_background
from pipelines.indexing.duplicates import NearDuplicates, duplicates_to_bytes, find_near_duplicates
from pipelines.indexing.durations import audio_seconds
from pipelines.indexing.embed import EmbeddingStore, embed, left_over
from pipelines.indexing.planned import NO_PRICES, Prices, compared, planned, told
from pipelines.indexing.run import Run

logger = logging.getLogger(__name__)


def index_catalog(
    audio: str | list[Item],
    catalog_uri: str,
    *,
    model: str | None = None,
    hop_s: float | None = None,
    index: IndexOptions = AUTOMATIC,
    encoders: Encoders = ENCODERS,
    max_seconds: float = MAX_SECONDS,
    near_duplicates: int | None = None,
    allow_empty: bool = False,
    dry_run: bool = False,
    prices: Prices = NO_PRICES,
) -> dict:
    """Bring a catalog up to date with a collection of audio; returns the run's summary.

    `model` and `hop_s`, the seconds between two fingerprints, are for a new catalog. So are the
    codec and the lists of `index`; its other values change how an existing catalog is searched.
    `near_duplicates`: how many new tracks are looked for in the catalog, see
    `pipelines.indexing.duplicates`. `prices` are for what a `dry_run` tells.

    Raises StorageError, CatalogError, ModelError or OptionError with nothing published.
    """
    started = time.monotonic()
    catalog = Catalog.open(catalog_uri)
    card, hop_s = _model(catalog, model), _hop(catalog, hop_s)
    options = _index_options(catalog, index)
    source = source_of(audio) if isinstance(audio, str) else "list"
    ignored: Counter[str] = Counter()
    changes = _changes(catalog, audio, source, allow_empty, ignored)
    if dry_run:
        work = len(changes.work), audio_seconds(changes)
        expected = planned(*work, hop_s, options, catalog.manifest, encoders, prices)
        logger.info(told(expected))
        return {**_summary(catalog, changes.counts(), [], 0, started), "estimate": expected}
    if not (changes.work or changes.removed or _options_changed(catalog, options)):
        return _summary(catalog, changes.counts(), [], 0, started)
    counts, before = changes.counts(), catalog.manifest
    with at_work(encoders.for_work(changes.work, catalog.manifest)), connected() as machines:
        run = Run.begin(catalog, card.model_id, card.sha256, hop_s)
        model_uri = catalog.put_model(card, _background(catalog, card, model))
        began = time.monotonic()
        rows, resumed = _embed(run, model_uri, changes, encoders, max_seconds)
        encoding_s = round(time.monotonic() - began, 2)
        tracks, next_ordinal = join(changes, rows, source, run.first_ordinal)
        del changes  # memory of the head: the published table
        near = _publish(run, tracks, next_ordinal, options, near_duplicates, encoding_s)
    summary = _summary(catalog, counts, rows, resumed, started)
    summary |= {
        "ignored": dict(ignored.most_common()),
        "encoding_seconds": encoding_s,
        **near.told(),
    }
    summary["machine_seconds"] = machines.seconds
    took_s = machines.core_seconds or summary["seconds"]
    summary |= compared(run, rows, options, before, encoders, took_s)
    run.put("summary.json", (json.dumps(summary) + "\n").encode())
    run.put("report.html", run_report(catalog, summary, near.pairs).encode())
    return summary


def _changes(
    catalog: Catalog,
    audio: str | list[Item],
    source: str,
    allow_empty: bool,
    ignored: Counter[str],
) -> Changes:
    """What is to do; counts other files in `ignored`. Raises OptionError when nothing is there."""
    if isinstance(audio, str):
        audio = list_items(audio, may_be_missing=allow_empty, ignored=ignored)
    listing = listing_of(audio)
    changes = find_changes(listing, catalog.tracks(), source)
    if not len(listing) and not allow_empty:
        lost = f": all {changes.removed} tracks from there would be removed"
        raise OptionError(
            f"--audio {source} has no recordings{lost if changes.removed else ''}; check it, or "
            "add --allow-empty"
        )
    counted = ", ".join(f"{count} {name}" for name, count in changes.counts().items())
    counted = counted.replace("withdrawn", "removed")  # the summary keeps its key
    logger.info(f"{len(listing)} recordings listed: {counted}")
    return changes


def _model(catalog: Catalog, wanted: str | None) -> ModelCard:
    """The catalog's own model, or for a new catalog the wanted one."""
    if catalog.manifest is None:
        from grafp.model.bundle import load_bundle  # imports PyTorch, which later runs do without

        return load_bundle(wanted or DEFAULT_MODEL)  # so that bad weights are refused now
    if wanted:
        card = read_card(wanted)
        if card.sha256 != catalog.manifest.model_sha256:
            raise ModelError(
                f"{wanted} is {card.model_id}, but the catalog was made with "
                f"{catalog.manifest.model_id}; use that one, or another --catalog"
            )
    return catalog.model()


def _background(catalog: Catalog, card: ModelCard, wanted: str | None) -> bytes | None:
    """The background to keep beside the model, if the catalog has none yet.

    Raises ModelError now, not after the work, when it is damaged or of another model.
    """
    if catalog.manifest is not None:
        return missing_background(catalog, card)
    name = wanted or DEFAULT_MODEL
    data = read_background(name)
    if data is not None:
        parse_background(data, card.sha256, name)
    return data


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


def _index_options(catalog: Catalog, given: IndexOptions) -> IndexOptions:
    """The catalog's own options of its index, with those that are given now."""
    manifest = catalog.manifest
    return manifest.index_options.given_later(given, manifest.parameters) if manifest else given


def _options_changed(catalog: Catalog, options: IndexOptions) -> bool:
    """Whether a published catalog is searched in another way from now on."""
    manifest = catalog.manifest
    if manifest is None or manifest.index_options == options:
        return False
    before, after = asdict(manifest.index_options), asdict(options)
    changed = (f"{name} {value}" for name, value in after.items() if value != before[name])
    logger.info(f"options of the index from now on: {', '.join(changed)}")
    return True


def _embed(
    run: Run,
    model_uri: str,
    changes: Changes,
    encoders: Encoders,
    max_seconds: float,
) -> tuple[list[Row], int]:
    """One row per recording to work on, in order; how many an interrupted run had finished."""
    heard_N = has_status(changes.published, "ok")
    files = set(changes.published["embedding_file"].filter(heard_N).unique().to_pylist())
    rows = left_over(run.catalog.root, run.model_id, run.hop_s, files, changes.work)
    resumed = len(rows)
    if resumed:
        logger.info(f"  {resumed} recordings were finished by a run that was not published")
    done = {row["uri"] for row in rows}
    left = [item for item in changes.work if item.uri not in done]
    if left:
        store = EmbeddingStore(
            root=run.catalog.root,
            folder=f"embeddings/{run.model_id}/{run.run_id}",
            model_id=run.model_id,
            hop_s=run.hop_s,
            attempts=changes.attempts,
        )
        rows += embed(
            left,
            model_uri,
            store,
            known_H=known_hashes(changes.published),
            encoders=encoders,
            max_seconds=max_seconds,
        )
    order = {item.uri: number for number, item in enumerate(changes.work)}
    return sorted(rows, key=lambda row: order[row["uri"]]), resumed


def _publish(
    run: Run,
    tracks: pa.Table,
    next_ordinal: int,
    options: IndexOptions,
    most: int | None,
    encoding_s: float,
) -> NearDuplicates:
    """Index the new tracks and publish; returns the near duplicates among them."""
    old = run.catalog.manifest
    live = live_refs(tracks)
    state = upkeep.extend(run.catalog, replace(upkeep.IndexState.of(old), options=options), live)
    manifest = run.manifest(tracks, state, next_ordinal)
    manifest = calibrated(run.catalog, manifest, live)
    new = live.of(live.ordinal_T[live.ordinal_T >= run.first_ordinal])
    near = find_near_duplicates(run.catalog, manifest, tracks, new, most, encoding_s)
    run.put("duplicates.parquet", duplicates_to_bytes(near.pairs))
    run.catalog.publish(manifest)
    counts = manifest.counts
    logger.info(
        f"published snapshot {run.run_id}: {counts['tracks']} tracks, "
        f"{counts['fingerprints']:,} fingerprints"
    )
    return near


def _summary(
    catalog: Catalog, changed: dict[str, int], rows: list[Row], resumed: int, started: float
) -> dict:
    manifest = catalog.manifest
    counts = manifest.counts if manifest else {"tracks": 0, "fingerprints": 0}
    failures = [row for row in rows if row["status"] != "ok"]
    health = index_health(manifest.shards) if manifest else {}
    return {
        "snapshot": manifest.snapshot if manifest else None,
        **changed,
        "failed": len(failures),
        "embedded": len(rows) - len(failures),
        "resumed": resumed,
        "tracks": counts["tracks"],
        "fingerprints": counts["fingerprints"],
        **{f"index_{name}": value for name, value in health.items()},
        "seconds": round(time.monotonic() - started, 2),
        "audio_hours": round(sum(row["duration_s"] for row in rows) / 3600, 4),
        "failures": [
            {"uri": row["uri"], "kind": row["error_kind"], "reason": row["error"]}
            for row in failures[:100]
        ],
    }
