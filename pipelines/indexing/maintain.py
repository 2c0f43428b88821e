"""Care of a published catalog: verify, roll back, remove by name, compact, clean up."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import by_file, damage
from grafp.catalog.manifest import OLD_VERSIONS, Manifest, format_version
from grafp.catalog.tracks import Row, TrackRef, live_refs, tracks_from_bytes
from grafp.errors import CatalogError, ModelError, OptionError, StorageError
from grafp.model.bundle import BUNDLE_FILES
from grafp.storage.sources import read_table
from pipelines.common.machines import connected
from pipelines.common.work import Encoders, at_work
from pipelines.indexing import upkeep
from pipelines.indexing.calibrate import calibrated, missing_background
from pipelines.indexing.run import Run
from pipelines.indexing.upgrade import OldManifest, manifest_of_any_format

logger = logging.getLogger(__name__)


def maintain(
    catalog_uri: str,
    *,
    remove: str | None = None,
    compact: bool = False,
    retrain: bool = False,
    workers: int | None = None,
) -> dict:
    """Remove tracks by name, and compact or retrain the index if that is due or asked for.

    Args:
        remove: a CSV or Parquet with a column uri or path, or a text file with a URI per line.
        workers: 0: all work in this process; default: that of a small catalog.

    Returns the new snapshot's id and counts. Raises OptionError for a track that is not there.
    """
    started = time.monotonic()
    catalog = Catalog.open_published(catalog_uri)
    old = catalog.manifest
    assert old is not None
    rows = catalog.tracks().to_pylist()
    removed = _remove(rows, remove) if remove else []
    with at_work(Encoders(workers).if_small(old.is_small)), connected() as machines:
        catalog.put_model(catalog.model(), missing_background(catalog, catalog.model()))
        before = upkeep.IndexState.of(old)
        state = upkeep.extend(catalog, before, live_refs(rows), retrain=retrain, compact=compact)
        run, live = Run.begin(catalog, old.model_id, old.model_sha256, old.hop_s), live_refs(rows)
        if removed or state != before:
            manifest = calibrated(catalog, run.manifest(rows, state, old.next_ordinal), live)
        elif (fresh := calibrated(catalog, old, live)) != old:
            manifest = run.manifest(rows, state, old.next_ordinal)
            manifest = replace(manifest, calibration=fresh.calibration)
        else:
            manifest = old
    if manifest != old:
        catalog.publish(manifest)
        logger.info(f"published snapshot {manifest.snapshot}")
    else:
        logger.info("nothing is due")
    assert catalog.manifest is not None
    return {
        "snapshot": catalog.manifest.snapshot,
        "removed": len(removed),
        "shards_before": len(before.shards),
        "shards": len(state.shards),
        **catalog.manifest.counts,
        "seconds": round(time.monotonic() - started, 2),
        "machine_seconds": machines.seconds,
    }


def _remove(rows: list[Row], uri: str) -> list[str]:
    """Mark the tracks that a file names; a track that is not in the catalog is an error."""
    names = list(_names(uri))
    by_uri = {row["uri"]: row for row in rows}
    for number, name in enumerate(names, 1):
        if name not in by_uri:
            raise OptionError(f"--remove {uri}, entry {number}: {name} is not in the catalog")
        if by_uri[name]["status"] == "removed":
            raise OptionError(f"--remove {uri}, entry {number}: {name} is removed already")
        by_uri[name]["status"] = "removed"
    return names


def _names(uri: str) -> Iterator[str]:
    if not uri.lower().endswith((".csv", ".parquet")):
        lines = storage.read(uri).decode(errors="replace").splitlines()
        yield from (line.strip() for line in lines if line.strip())
        return
    for row in read_table(uri):
        name = row.get("uri") or row.get("path")
        if not name:
            raise OptionError(f"--remove {uri}: needs a column uri or path")
        yield str(name)


def rollback(catalog_uri: str, snapshot: str) -> dict:
    """Publish an older snapshot again, after checking that all its files are there.

    Raises CatalogError, with nothing changed, when it is unknown, incomplete or from before an
    upgrade.
    """
    catalog = Catalog.open_published(catalog_uri)
    assert catalog.manifest is not None
    before = catalog.manifest.snapshot
    version = format_version(catalog.manifest_bytes(snapshot), catalog.manifest_uri(snapshot))
    if version in OLD_VERSIONS:
        raise CatalogError(
            f"{catalog.root}: snapshot {snapshot} is from before the upgrade (catalog format "
            f"{version}); only the version that wrote it can read it"
        )
    manifest = catalog.snapshot(snapshot)
    catalog.check_files(manifest)
    Catalog(catalog.root, manifest).model()
    catalog.publish(manifest)
    logger.info(f"published snapshot {snapshot} again, instead of {before}")
    return {"snapshot": snapshot, "instead_of": before, **manifest.counts}


def verify(catalog_uri: str) -> dict:
    """Read everything that the published snapshot names; `damaged` says what is wrong.

    A file is in memory while it is read; four are read at a time.
    """
    catalog = Catalog.open_published(catalog_uri)
    manifest = catalog.manifest
    assert manifest is not None
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=4) as pool:
        problems += filter(None, pool.map(lambda f: _problem(catalog.get, f), manifest.files))
        problems += filter(None, [_problem(lambda _: catalog.background(), None)])  # and model
        embeddings: dict[str, list[TrackRef]] = {}
        if not any(manifest.tracks.key in problem for problem in problems):
            embeddings = by_file(live_refs(catalog.tracks().to_pylist()).values())
        checks = pool.map(lambda file: damage(catalog.root, *file), embeddings.items())
        problems += filter(None, checks)
    for problem in problems:
        logger.info(f"  damaged: {problem}")
    files = len(manifest.files) + len(embeddings)
    logger.info(f"{files} files of snapshot {manifest.snapshot} read, {len(problems)} damaged")
    return {
        "snapshot": manifest.snapshot,
        "files": files,
        "damaged": len(problems),
        "problems": problems[:100],
    }


def _problem(read: Callable, what: object) -> str | None:
    try:
        read(what)
    except (StorageError, CatalogError, ModelError) as error:
        return str(error)
    return None


def clean_up(
    catalog_uri: str,
    *,
    keep_snapshots: int,
    grace_hours: float,
    dry_run: bool = False,
) -> dict:
    """Remove old snapshots, and files that no snapshot left needs and that are old enough.

    The newest `keep_snapshots` stay, the published one always. Files younger than `grace_hours`
    stay: a run may be about to publish them (it uses files of up to catalog.REUSE_SECONDS).
    """
    catalog = Catalog.open_published(catalog_uri)
    assert catalog.manifest is not None
    files = {f.uri[len(catalog.root) + 1 :]: f for f in storage.list_files(catalog.root)}
    manifests = sorted(
        (
            manifest_of_any_format(catalog, key[len("snapshots/") : -len(".json")])
            for key in files
            if key.startswith("snapshots/") and key.endswith(".json")
        ),
        key=lambda manifest: (manifest.created, manifest.snapshot),
    )
    kept = {m.snapshot: m for m in [*manifests[-keep_snapshots:], catalog.manifest]}
    needed = {"CURRENT"}
    for manifest in kept.values():
        needed |= _needed_by(catalog, manifest)
    oldest = time.time() - 3600 * grace_hours
    gone = [
        key
        for key, info in sorted(files.items())
        if key not in needed and info.modified < oldest and not key.startswith("runs/")
    ]
    # Manifests and records of shards first: after an interruption, none names what is gone.
    gone.sort(key=lambda key: not key.endswith(".json"))
    for key in [] if dry_run else gone:
        storage.delete(storage.join(catalog.root, key))
    freed = sum(files[key].size for key in gone)
    snapshots = sum(m.snapshot not in kept for m in manifests)
    logger.info(f"{len(gone)} files, {freed / 1e6:,.1f} MB {'would be' if dry_run else ''} removed")
    return {
        "snapshot": catalog.manifest.snapshot,
        "removed_files": len(gone),
        "removed_mb": round(freed / 1e6, 3),
        "snapshots_kept": len(kept),
        "snapshots_not_kept": snapshots,
    }


def _needed_by(catalog: Catalog, manifest: Manifest | OldManifest) -> set[str]:
    tracks = tracks_from_bytes(catalog.get(manifest.tracks), ["embedding_file"])
    return {
        f"snapshots/{manifest.snapshot}.json",
        *(file.key for file in manifest.files),
        *(entry.record_key for entry in manifest.shards),
        *(f"models/{manifest.model_id}/{name}" for name in BUNDLE_FILES),
        *(key for key in tracks["embedding_file"].unique().to_pylist() if key),
    }
