"""Evaluate a catalog on degraded excerpts of its own recordings: the paper's grid.

    grafp evaluate --catalog catalog/ --audio music/ \\
        --noise noise/ --rir rirs/ --out evaluation/
    grafp evaluate --embeddings exported/ --out evaluation/

Each cut is queried at every length and signal-to-noise ratio, with noise alone and with an impulse
response too. --protocol field cuts clips at random samples, off the fingerprint grid, and measures
the ratio on the clip. --protocol paper cuts on the grid and measures the ratio on the whole track,
as in the literature. Recordings of --unknown, which are not in the catalog, show how many clips
are matched wrongly. --distractors repeats the shortest clips with impulse responses on copies of
the catalog with so many synthetic tracks more. The copies stay in OUT/scaled-N until you delete
them. Only recordings of the split `test` are used; of noise and impulse responses without a column
`split` those that training leaves out. The job writes report.html, report.json and clips.parquet.
Do not choose a model or a setting by this report: training sets a validation part aside for that.

--embeddings evaluates fingerprints and queries that another program exported, instead of a catalog.
They are indexed in OUT/catalog and searched in the same way, without audio and without a model.

Exit code: 0 done, 1 failed, 2 bad arguments.
"""

import os
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, Literal

from grafp.errors import OptionError
from grafp.option_values import (
    Count,
    Kind,
    Natural,
    Uri,
    numbers,
    whole_numbers,
)
from pipelines.common import cli

_NEEDED = ("catalog", "audio", "noise", "rir")
_OF_AUDIO = (*_NEEDED, "unknown", "workers", "gpu", "protocol", "query_hop", "snr")
"""Options that --embeddings does not use."""


@dataclass(kw_only=True)
class Options(cli.EncoderOptions):
    catalog: Uri | None = None
    """The catalog, or GRAFP_CATALOG in the environment (required, except with --embeddings)."""
    audio: Uri | None = None
    """The recordings that were indexed, named in the same way (required, except with
    --embeddings)."""
    noise: Uri | None = None
    """Background noise: a folder, MUSAN as it is unpacked, or a table (required, except with
    --embeddings)."""
    rir: Uri | None = None
    """Impulse responses (RIRs): a folder, AIR as it is unpacked, or a table (required, except with
    --embeddings)."""
    out: Uri
    """Folder or prefix for the report."""
    seconds: Annotated[list[float], Kind("S[,S...]", numbers(1.0, 3600.0))] = field(
        default_factory=lambda: [1.0, 2.0, 3.0, 5.0]
    )
    """Lengths of clips, seconds."""
    snr: Annotated[list[float], Kind("DB[,DB...]", numbers(-60.0, 120.0))] = field(
        default_factory=lambda: [0.0, 5.0, 10.0, 15.0, 20.0]
    )
    """Signal-to-noise ratios, dB."""
    queries: Count = 2000
    """Clips in each cell of the grid."""
    protocol: Literal["field", "paper"] = "field"
    """How clips are cut, see above."""
    search: Literal["index", "lsh"] = "index"
    """How fingerprints are looked up: in the catalog's index, or by random-hyperplane hashes like
    the paper's TE + LSH, which this job computes in memory."""
    query_hop: Literal["fine", "catalog"] = "fine"
    """How often a clip has a fingerprint: every 0.1 s or oftener, or as seldom as the tracks of the
    catalog (the paper's Fig. 2)."""
    seed: Natural = 0
    """Seed of cuts, noise and impulse responses."""
    unknown: Uri | None = None
    """Recordings that are not in the catalog (default: none)."""
    distractors: Annotated[list[int], Kind("N[,N...]", whole_numbers(1, 10**9))] = field(
        default_factory=list
    )
    """Synthetic tracks to add to copies of the catalog, one copy for each number (default: no
    copy)."""
    embeddings: Uri | None = None
    """Folder or prefix with exported fingerprints and queries (default: none)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embeddings is None:
            self.catalog = self.catalog or os.environ.get(cli.CATALOG_VARIABLE, "").strip() or None
            if missing := [f"--{name}" for name in _NEEDED if getattr(self, name) is None]:
                raise OptionError(f"{', '.join(missing)}: required")
            return
        for one in fields(self):
            default = one.default if one.default_factory is MISSING else one.default_factory()
            if one.name in _OF_AUDIO and getattr(self, one.name) != default:
                raise OptionError(f"--{one.name.replace('_', '-')}: not with --embeddings")


def options(arguments: list[str] | None = None, *, prog: str | None = None) -> Options:
    return cli.parse(Options, __doc__, arguments, prog=prog)


def main(chosen: Options) -> tuple[dict[str, Any], int]:
    if chosen.embeddings is not None:
        from pipelines.evaluating.exported import evaluate_embeddings

        summary = evaluate_embeddings(
            chosen.embeddings,
            chosen.out,
            seconds=chosen.seconds,
            queries=chosen.queries,
            seed=chosen.seed,
            search=chosen.search,
            distractors=chosen.distractors,
        )
        return summary, cli.DONE
    from pipelines.evaluating.flow import evaluate_catalog

    catalog, audio, noise, rir = (getattr(chosen, name) for name in _NEEDED)
    summary = evaluate_catalog(
        catalog,
        audio,
        noise,
        rir,
        chosen.out,
        seconds=chosen.seconds,
        snr_db=chosen.snr,
        queries=chosen.queries,
        seed=chosen.seed,
        protocol=chosen.protocol,
        search=chosen.search,
        query_hop=chosen.query_hop,
        unknown=chosen.unknown,
        distractors=chosen.distractors,
        encoders=chosen.encoders,
    )
    return summary, cli.DONE
