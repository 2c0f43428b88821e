"""The steps of the paper's results: models, catalogs, evaluations. Each continues what it began."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.evaluation.reproduced import Measured, Trained
from grafp.model.bundle import ModelCard, read_card
from grafp.training.config import TrainConfig
from pipelines.common.work import Encoders
from pipelines.evaluating.flow import evaluate_catalog
from pipelines.indexing.flow import index_catalog
from pipelines.reproducing.plan import CatalogPlan, EvaluationPlan, Plan, Split
from pipelines.reproducing.sources import Sources
from pipelines.reproducing.steps import Steps
from pipelines.training.flow import train_model


@dataclass(frozen=True)
class Work:
    """The three kinds of steps."""

    out: str
    steps: Steps
    sources: Sources
    tables: Mapping[Split, tuple[str, str]]
    encoders: Encoders
    workers: int

    def model(
        self, name: str, config: TrainConfig | None, given: tuple[str, ModelCard] | None
    ) -> Trained:
        """A model, trained now or given."""
        if config is None:
            assert given is not None
            return Trained.of(name, given[0], given[1], is_given=True)
        music, digest = self.tables["train"]
        inputs = {"music": digest, "noise": self.sources.noise, "rir": self.sources.rir,
                  "workers": self.workers, **config.to_dict()}  # fmt: skip
        root = storage.join(self.out, "models", name)

        def train() -> dict[str, Any]:
            return train_model(
                music, root, config, noise=self.sources.noise, rirs=self.sources.rir,
                data=storage.join(self.out, "data"), num_workers=self.workers,
                gpu=self.encoders.gpu,
                resume=storage.stat(storage.join(root, "run.json")) is not None,
            )  # fmt: skip

        summary = self.steps.once(f"models-{name}", inputs, train)
        return Trained.of(name, summary["model"], read_card(summary["model"]), is_given=False)

    def catalog(self, wanted: CatalogPlan, model: Trained, design: Plan) -> str:
        """A catalog's URI, indexed now or before."""
        audio, digest = self.tables[wanted.split]
        root = storage.join(self.out, "catalogs", wanted.name)
        index = asdict(design.scale.index)
        inputs = {"audio": digest, "model": model.model_id, "hop_s": wanted.hop_s, "index": index}

        def index_now() -> dict[str, Any]:
            summary = index_catalog(
                audio, root, model=model.uri, hop_s=wanted.hop_s, index=design.scale.index,
                encoders=self.encoders,
            )  # fmt: skip
            return {key: summary[key] for key in ("snapshot", "tracks", "fingerprints", "failed")}

        self.steps.once(f"catalogs-{wanted.name}", inputs, index_now)
        return root

    def evaluation(
        self, wanted: EvaluationPlan, catalog: str, model: Trained, design: Plan
    ) -> Measured:
        """The numbers of one row."""
        manifest = Catalog.open_published(catalog).manifest
        assert manifest is not None
        more = len(self.sources.splits.get("larger", ())) - manifest.counts["tracks"]
        settings: dict[str, Any] = {
            "seconds": list(wanted.seconds), "snr_db": list(wanted.snr_db),
            "queries": design.scale.queries, "seed": 0, "protocol": "paper",
            "search": wanted.search, "query_hop": wanted.query_hop,
            "distractors": [more] if wanted.invented and more > 0 else [],
        }  # fmt: skip
        sounds: dict[str, Any] = {"noise": self.sources.noise, "rir": self.sources.rir}
        inputs = {"snapshot": manifest.snapshot, **sounds, **settings}
        folder = storage.join(self.out, "evaluations", wanted.name)

        def evaluate() -> dict[str, Any]:
            audio, _ = self.tables[wanted.catalog.split]
            return evaluate_catalog(
                catalog, audio, out=folder, encoders=self.encoders, **sounds, **settings
            )

        report = self.steps.once(f"evaluations-{wanted.name}", inputs, evaluate)
        return Measured.of(
            wanted.result, wanted.row, wanted.offset_ms, report, manifest, model.name,
            invented=wanted.invented,
        )  # fmt: skip
