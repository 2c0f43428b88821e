"""Bring a catalog up to date with a collection of audio.

    grafp index --audio music/ --catalog catalog/
    grafp index --audio s3://bucket/music --catalog s3://bucket/catalog

Run it again, say every night. It fingerprints new and changed recordings only, and removes the
tracks of recordings that are gone from --audio. A recording that cannot be used has a row with the
reason. Queries see the previous snapshot until the new one is complete.

Exit code: 0 done, 1 failed, 2 bad arguments, 3 done but more failed than --max-failures, 4 done but
the index is below --min-recall.
"""

import argparse
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from grafp.errors import OptionError
from grafp.index.size import CODE_BYTES, IndexOptions
from grafp.option_values import (
    Count,
    Kind,
    Price,
    Seconds,
    Uri,
    choice,
    number,
    positive_int,
)
from pipelines.common import cli


def _near_duplicates(text: str) -> int | None:
    """None for auto, 0 for off."""
    if text in ("auto", "off"):
        return None if text == "auto" else 0
    try:
        return positive_int(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; auto and off are possible too") from None


@dataclass(kw_only=True)
class Options(cli.EncoderOptions):
    after_interrupt: ClassVar = "nothing was published; the same command goes on"

    audio: Uri
    """Folder or prefix, searched recursively, CSV / Parquet with a column `path`, or manifest.json
    of an S3 Inventory."""
    catalog: cli.Catalog
    """Where the catalog is or will be, or GRAFP_CATALOG in the environment."""
    model: cli.Model | None = None
    """Shipped model or bundle (default: the catalog's own, or `small` for a new catalog)."""
    hop: Seconds | None = None
    """Seconds between two fingerprints of a new catalog. With 0.5 it is five times smaller, and
    short queries are harder to find (default: 0.1)."""
    codec: Annotated[str, choice(*CODE_BYTES)] | None = None
    """How the index of a new catalog stores a fingerprint (default: by the catalog's size)."""
    lists: Count | None = None
    """Inverted lists in the index of a new catalog (default: by the catalog's size)."""
    probes: Count | None = None
    """Inverted lists that queries search for each of their fingerprints; without a quick search
    first (default: up to 64, more for short queries, and fewer where a quick search is enough)."""
    neighbors: Count | None = None
    """Nearest fingerprints that queries look for, for each of theirs (default: 40)."""
    candidates: Count | None = None
    """Positions in tracks that are scored exactly for each query (default: 64)."""
    max_failures: cli.FailureLimit = "1%"
    """Exit with 3 when more recordings than this cannot be used."""
    min_recall: Annotated[float, Kind("R", number(0.0, 1.0))] = 0.0
    """Exit with 4 when the recall of probes, of the whole index, is lower than this, 0 to 1."""
    metrics: cli.Metrics | None = None
    """Write the outcome for Prometheus to this file, also that of a failed run (default: none)."""
    max_seconds: Seconds = 10_800.0
    """Refuse recordings longer than this, seconds."""
    near_duplicates: Annotated[int | None, Kind("auto|off|N", _near_duplicates)] = None
    """New tracks, drawn at random, of which an excerpt is looked for in the catalog: the same
    recording in another encoding (default: auto, as many as take a tenth of the time of
    encoding)."""
    allow_empty: bool = False
    """Let an empty --audio remove all tracks that came from there."""
    dry_run: bool = False
    """Only show what would be done, and what it would take."""
    price_node_hour: Price | None = None
    """With --dry-run: price of a machine with 8 CPUs for an hour (default: no cost)."""
    price_gb_month: Price | None = None
    """With --dry-run: price of storage, for a GB and a month (default: no cost)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, price in (("node-hour", self.price_node_hour), ("gb-month", self.price_gb_month)):
            if price is not None and not self.dry_run:
                raise OptionError(f"--price-{name}: only with --dry-run")
        self.index_options()

    def index_options(self) -> IndexOptions:
        """Raises OptionError for options that do not go together."""
        return IndexOptions(
            codec=self.codec,
            lists=self.lists,
            probes=self.probes,
            neighbors=self.neighbors,
            candidates=self.candidates,
        )


def options(arguments: list[str] | None = None, *, prog: str | None = None) -> Options:
    return cli.parse(Options, __doc__, arguments, prog=prog)


def main(chosen: Options) -> tuple[dict[str, Any], int]:
    from pipelines.indexing.flow import index_catalog
    from pipelines.indexing.planned import Prices

    summary = index_catalog(
        chosen.audio,
        chosen.catalog,
        model=chosen.model,
        hop_s=chosen.hop,
        index=chosen.index_options(),
        encoders=chosen.encoders,
        max_seconds=chosen.max_seconds,
        near_duplicates=chosen.near_duplicates,
        allow_empty=chosen.allow_empty,
        dry_run=chosen.dry_run,
        prices=Prices(chosen.price_node_hour, chosen.price_gb_month),
    )
    for failure in summary["failures"]:
        print(f"  failed: {failure['uri']}: {failure['reason']}")
    return summary, exit_code(summary, chosen.max_failures, chosen.min_recall)


def exit_code(summary: dict[str, Any], max_failures: str, min_recall: float) -> int:
    """Of a run that did not fail; too many failures come first."""
    tried = summary["failed"] + summary["embedded"]
    if cli.too_many(summary["failed"], tried, max_failures):
        return cli.TOO_MANY_FAILURES
    below = summary.get("index_recall", 1.0) < min_recall
    return cli.INDEX_BELOW_LIMIT if below else cli.DONE
