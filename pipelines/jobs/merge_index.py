"""Maintain a published catalog: compact, remove tracks, verify, roll back, clean up, upgrade.

    grafp merge --catalog s3://bucket/catalog
    grafp merge --catalog catalog/ --remove removed.txt
    grafp merge --catalog catalog/ --verify
    grafp merge --catalog catalog/ --rollback 20261122T030000-1a2b3c
    grafp merge --catalog catalog/ --clean --dry-run
    grafp merge --catalog catalog/ --upgrade

With --catalog alone the job compacts the index, or retrains it, when that is due. Every change
is a new snapshot: readers keep the one that they opened, and you can roll back to an older one.

Exit code: 0 done, 1 failed, or --verify found damage, 2 bad arguments.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from grafp.errors import OptionError
from grafp.option_values import Count, Kind, Natural, number
from pipelines.common import cli


@dataclass(kw_only=True)
class Options:
    after_interrupt: ClassVar = "nothing was published; the same command goes on"
    exclusive: ClassVar = (("rollback", "verify", "clean", "upgrade"),)

    catalog: cli.Catalog
    """The catalog, or GRAFP_CATALOG in the environment."""
    remove: Annotated[str, Kind("FILE")] | None = None
    """Remove the tracks that FILE lists from the catalog. FILE has one URI per line, or is a CSV /
    Parquet with a column `uri`; it is only read."""
    compact: bool = False
    """Merge all layers, and drop the codes of removed tracks."""
    retrain: bool = False
    """Train the index again, and encode all fingerprints with it."""
    rollback: Annotated[str, Kind("SNAPSHOT")] | None = None
    """Publish this older snapshot again."""
    verify: bool = False
    """Read all files of the snapshot and report damage."""
    clean: bool = False
    """Delete old snapshots, and files that no snapshot needs."""
    workers: Natural | None = None
    """0: all work in this process, without Ray; otherwise over Ray (default: 0 for small catalogs,
    where no cluster is named and nothing is upgraded)."""
    upgrade: bool = False
    """Make a catalog of an earlier version readable: store its fingerprints in the new format and
    build its index again. Needs no audio; run it again if it was interrupted."""
    keep: Count = 14
    """With --clean: number of newest snapshots to keep."""
    grace_hours: Annotated[float, Kind("H", number(low=0.0))] = 336.0
    """With --clean: keep files younger than this, hours. Go below 168 only while no other job
    writes to the catalog."""
    metrics: cli.Metrics | None = None
    """Write the outcome for Prometheus to this file, also that of a failed run (default: none)."""
    dry_run: bool = False
    """With --clean: only show what would be deleted."""

    def __post_init__(self) -> None:
        alone = [f"--{name}" for name in self.exclusive[0] if getattr(self, name)]
        if alone and (self.remove or self.compact or self.retrain):
            raise OptionError(f"{alone[0]}: not with --remove, --compact or --retrain")
        if self.dry_run and not self.clean:
            raise OptionError("--dry-run: only with --clean")


def options(arguments: list[str] | None = None, *, prog: str | None = None) -> Options:
    return cli.parse(Options, __doc__, arguments, prog=prog)


def main(chosen: Options) -> tuple[dict[str, Any], int]:
    from pipelines.indexing import maintain, upgrade

    if chosen.verify:
        summary = maintain.verify(chosen.catalog)
        return summary, cli.FAILED if summary["damaged"] else cli.DONE
    if chosen.rollback:
        return maintain.rollback(chosen.catalog, chosen.rollback), cli.DONE
    if chosen.upgrade:
        return upgrade.upgrade(chosen.catalog, workers=chosen.workers), cli.DONE
    if chosen.clean:
        summary = maintain.clean_up(
            chosen.catalog,
            keep_snapshots=chosen.keep,
            grace_hours=chosen.grace_hours,
            dry_run=chosen.dry_run,
        )
        return summary, cli.DONE
    summary = maintain.maintain(
        chosen.catalog,
        remove=chosen.remove,
        compact=chosen.compact,
        retrain=chosen.retrain,
        workers=chosen.workers,
    )
    return summary, cli.DONE
