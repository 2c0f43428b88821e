"""Identify a batch of recordings: which track, from which second, or not in the catalog.

    grafp query --catalog catalog/ --queries clips/ --out answers/
    grafp query --catalog s3://bucket/catalog --queries clips.csv --out s3://bucket/answers
    grafp query --timeline --catalog catalog/ --queries radio/ --out answers/

The job writes OUT/matches.parquet, one row per query and rank. With --report it also writes
OUT/report.html, to look at the answers and to listen to them. With --truth (CSV: query, track,
start_s; an empty track means not in the catalog) it writes the report with the rates, and
OUT/report.json. With --timeline it writes one row per detection, and a cue sheet per recording.

Exit code: 0 done, 1 failed, 2 bad arguments, 3 done but more failed than --max-failures.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from grafp.errors import OptionError
from grafp.index.acceptance import HIGHEST_FPR, LOWEST_FPR
from grafp.index.alignment import HIGHEST_SPEED_CHANGE
from grafp.option_values import (
    Count,
    Kind,
    Seconds,
    Uri,
    number,
    positive_float,
)
from pipelines.common import cli


@dataclass(kw_only=True)
class Options(cli.EncoderOptions):
    after_interrupt: ClassVar = "the same command goes on, with the answers that were found"
    exclusive: ClassVar = (("fpr", "min_score"),)

    catalog: cli.Catalog
    """A catalog made by `grafp index`, or GRAFP_CATALOG in the environment."""
    queries: Uri
    """Folder or prefix, searched recursively, or CSV / Parquet with a column `path`."""
    out: Uri
    """Folder or prefix for the answers."""
    top_k: Count = 1
    """Pieces of music per query; tracks with the same music count once."""
    fpr: Annotated[float, Kind("RATE", number(LOWEST_FPR, HIGHEST_FPR))] | None = None
    """Target false-positive rate, 0.0001 to 0.1: the share of recordings not in the catalog that
    may be matched; with --timeline, false detections in an hour (default: 0.001)."""
    min_score: Annotated[float, Kind("X", number(-1.0, 1.0))] | None = None
    """Instead of --fpr: match from this score on, the mean inner product, -1 to 1 (default: by
    --fpr)."""
    max_speed_change: Annotated[float, Kind("SHARE", number(0.0, HIGHEST_SPEED_CHANGE))] = 0.05
    """How much faster or slower than cataloged music may play: 0.05 is 5 % either way; 0 asks for
    its own speed."""
    rerank: Literal["exact", "pq"] = "exact"
    """Score with the exact fingerprints, 256 bytes each, or with the index's codes."""
    search_actors: Count | None = None
    """Number of actors that share the catalog's lists and tracks (default: by its size)."""
    search_memory: Annotated[float, Kind("GB", positive_float)] | None = None
    """Memory for the index's lists on each machine; what does not fit is read part by part, for
    thousands of queries at a time (default: what Ray has)."""
    timeline: bool = False
    """Find all detections in long recordings, with their times."""
    report: bool = False
    """Write OUT/report.html: listen to the queries and to where they were found; with --timeline,
    see the detections over time."""
    truth: Annotated[str, Kind("CSV")] | None = None
    """Right answers, to score the answers with; with a report (default: no scores)."""
    max_failures: cli.FailureLimit = "100%"
    """Exit with 3 when more queries than this cannot be used."""
    max_seconds: Seconds = 0.0
    """Refuse queries longer than this, seconds (default: 10800, with --timeline 86400)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeline and (self.truth or self.top_k != 1):
            raise OptionError("--timeline: not with --truth or --top-k")
        if self.in_process and (self.timeline or self.search_actors):
            raise OptionError("--workers 0: not with --timeline or --search-actors")
        if not self.max_seconds:
            self.max_seconds = 86_400.0 if self.timeline else 10_800.0


def options(arguments: list[str] | None = None, *, prog: str | None = None) -> Options:
    return cli.parse(Options, __doc__, arguments, prog=prog)


def main(chosen: Options) -> tuple[dict[str, Any], int]:
    asked: dict[str, Any] = {
        "fpr": chosen.fpr,
        "min_score": chosen.min_score,
        "decode": chosen.rerank == "pq",
        "search_actors": chosen.search_actors,
        "search_memory": chosen.search_memory and chosen.search_memory * 1e9,
        "encoders": chosen.encoders,
        "max_seconds": chosen.max_seconds,
        "max_speed_change": chosen.max_speed_change,
        "report": chosen.report,
    }
    uris = chosen.catalog, chosen.queries, chosen.out
    if chosen.timeline:
        from pipelines.querying.timeline import timeline_batch

        summary, _ = timeline_batch(*uris, **asked)
    else:
        from grafp.evaluation.truth import read_truth
        from pipelines.querying.flow import query_batch

        truth = read_truth(chosen.truth) if chosen.truth else None
        summary, _ = query_batch(*uris, **asked, top_k=chosen.top_k, truth=truth)
    over = cli.too_many(summary["errors"], summary["queries"], chosen.max_failures)
    return summary, cli.TOO_MANY_FAILURES if over else cli.DONE
