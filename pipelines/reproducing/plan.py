"""What the paper's results take: models, catalogs and evaluations, and how much of each by scale.

This module only lists; it imports neither Ray nor PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from grafp.errors import OptionError
from grafp.evaluation import paper
from grafp.index.size import AUTOMATIC, IndexOptions
from grafp.training.recipes import settings_of

Result = Literal["table-2", "table-3", "figure-2"]
RESULTS: tuple[Result, ...] = ("table-2", "table-3", "figure-2")
Split = Literal["train", "database", "larger"]

_PAPER_INDEX = IndexOptions(codec="PQ64", lists=256, neighbors=20)  # Table I, authors' code


@dataclass(frozen=True)
class Part:
    """Tracks of FMA: a subset, and how many of it at most (None: all)."""

    subset: str
    most: int | None = None
    validation: bool = True
    """Whether training has FMA's validation split, to choose the weights."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    splits: Mapping[Split, Part]
    training: Mapping[str, Any]
    """Settings of every training run that differ from the recipe and from the model's own."""
    num_workers: int
    """Of a training run; 0 trains without Ray, which starts sooner."""
    queries: int
    seconds: tuple[float, ...]
    snr_db: tuple[float, ...]
    index: IndexOptions


SCALES: Mapping[str, Scale] = {
    "tiny": Scale(
        {
            "train": Part("small", 64, validation=False),
            "database": Part("small", 12),
            "larger": Part("small", 24),
        },
        {"steps": 3, "pairs": 4},
        num_workers=0,
        queries=2,
        seconds=(1.0, 2.0),
        snr_db=(0.0, 20.0),
        index=AUTOMATIC,
    ),
    "medium": Scale(
        {"train": Part("small"), "database": Part("small", 2000), "larger": Part("small")},
        {"steps": 2000, "pairs": 128},
        num_workers=1,
        queries=250,
        seconds=(1.0, 2.0, 3.0, 5.0),
        snr_db=paper.SNR_DB,
        index=_PAPER_INDEX,
    ),
    "large": Scale(  # section III-B
        {"train": Part("small"), "database": Part("medium"), "larger": Part("large")},
        {},
        num_workers=1,
        queries=2000,
        seconds=(1.0, 2.0, 3.0, 5.0),
        snr_db=paper.SNR_DB,
        index=_PAPER_INDEX,
    ),
}

_MODELS: Mapping[str, Mapping[str, Any]] = {
    "nafp": {"preset": "nafp"},
    "ast": {  # as its authors trained it, see docs/guide/recipes.md
        "preset": "ast-published",
        "pairs": 512,
        "temperature": 0.1,
        "learning_rate": 1e-4,
        "final_learning_rate": 5e-5,
        "offset_ms": 200.0,
    },
    "grafprint": {"preset": "grafprint"},
    **{
        f"grafprint-{offset}": {"preset": "grafprint", "offset_ms": float(offset)}
        for offset in paper.FIGURE_2_OFFSETS_MS[1:]
    },
}
"""By name, what differs from the recipe `paper`."""
MODEL_NAMES = tuple(_MODELS)


@dataclass(frozen=True)
class CatalogPlan:
    """A catalog to index."""

    split: Split
    model: str
    hop_s: float = paper.FIGURE_2_HOPS_S[0]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.model}"


@dataclass(frozen=True)
class EvaluationPlan:
    """One row of a table, or one offset of Fig. 2."""

    result: Result
    row: str
    """The paper's name of the method."""
    name: str
    catalog: CatalogPlan
    seconds: tuple[float, ...]
    snr_db: tuple[float, ...]
    search: str = "index"
    query_hop: str = "fine"
    invented: bool = False
    """Whether invented tracks make the catalog as large as the split `larger`."""
    offset_ms: int = 50
    """The tolerance of a hit."""


@dataclass(frozen=True)
class Plan:
    """All of it, in the order of work."""

    scale: Scale
    models: Sequence[str]
    catalogs: Sequence[CatalogPlan]
    evaluations: Sequence[EvaluationPlan]
    splits: frozenset[Split] = field(default=frozenset())


def plan(results: Sequence[Result], scale: str) -> Plan:
    """What the chosen results take; each model and catalog once."""
    chosen = SCALES[scale]
    evaluations = [
        one for result in RESULTS if result in results for one in _EVALUATIONS[result](chosen)
    ]
    catalogs = list(dict.fromkeys(one.catalog for one in evaluations))
    models = list(dict.fromkeys(one.model for one in catalogs))
    splits: set[Split] = {"train", *(one.split for one in catalogs)}
    return Plan(chosen, models, catalogs, evaluations, frozenset(splits))


def training_settings(model: str, scale: Scale) -> dict[str, Any]:
    """The settings of TrainConfig for one of MODEL_NAMES."""
    settings = {**settings_of("paper"), **_MODELS[model], **scale.training}
    if "steps" in scale.training:
        del settings["epochs"]
    return settings


def in_workers(settings: Mapping[str, Any], num_workers: int) -> dict[str, Any]:
    """The same with the pairs of a batch divided among workers. Raises OptionError."""
    pairs, workers = settings["pairs"], max(1, num_workers)
    if pairs % workers:
        raise OptionError(
            f"--num-workers {num_workers}: does not divide a batch of {pairs} pairs evenly"
        )
    return {**settings, "pairs": pairs // workers}


def _table_2(scale: Scale) -> list[EvaluationPlan]:
    rows = (
        ("NAFP", "nafp", "index"),
        ("TE + LSH", "ast", "lsh"),
        (paper.GRAFPRINT, "grafprint", "index"),
    )
    return [
        EvaluationPlan(
            "table-2", row, f"table-2-{model}", CatalogPlan("database", model),
            scale.seconds, scale.snr_db, search=search,
        )
        for row, model, search in rows
    ]  # fmt: skip


def _table_3(scale: Scale) -> list[EvaluationPlan]:
    found = []
    for row, model in (("AST + IVFPQ", "ast"), (paper.GRAFPRINT, "grafprint")):
        real = EvaluationPlan(
            "table-3", row, f"table-3-{model}", CatalogPlan("larger", model),
            (1.0,), scale.snr_db,
        )  # fmt: skip
        invented = replace(
            real,
            name=f"{real.name}-invented",
            catalog=CatalogPlan("database", model),
            invented=True,
        )
        found += [real, invented]
    return found


def _figure_2(scale: Scale) -> list[EvaluationPlan]:  # noqa: ARG001 - like the others
    """Noise and reverberation at 0 dB, see `paper.FIGURE_2_GAPS`."""
    found = []
    for offset, hop_s in zip(paper.FIGURE_2_OFFSETS_MS, paper.FIGURE_2_HOPS_S, strict=True):
        model = "grafprint" if offset == 50 else f"grafprint-{offset}"
        found.append(
            EvaluationPlan(
                "figure-2", paper.GRAFPRINT, f"figure-2-{offset}",
                CatalogPlan("database", model, hop_s), (1.0, 2.0), (0.0,),
                query_hop="catalog", offset_ms=offset,
            )
        )  # fmt: skip
    return found


_EVALUATIONS = {"table-2": _table_2, "table-3": _table_3, "figure-2": _figure_2}
