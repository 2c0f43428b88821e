"""What a run measured of the paper's results, and what the numbers are based on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grafp.catalog.embeddings import BYTES
from grafp.catalog.manifest import Manifest
from grafp.evaluation import paper
from grafp.evaluation.hit_rates import CONDITIONS, cell_name
from grafp.evaluation.metrics import Rate
from grafp.model.bundle import ModelCard


@dataclass(frozen=True)
class Trained:
    """A model, and how it was trained as far as its card says."""

    name: str
    uri: str
    model_id: str
    preset: str
    parameters: int | None
    steps: int | None
    pairs: int | None
    """Positive pairs in all steps."""
    tracks: int | None
    """Recordings of the training part."""
    offset_ms: float | None
    is_given: bool
    """Whether it was given instead of trained by the run."""

    @classmethod
    def of(cls, name: str, uri: str, model: ModelCard, *, is_given: bool) -> "Trained":
        card = model.card
        training, steps = card.get("training") or {}, (card.get("results") or {}).get("steps")
        batch = training.get("pairs")
        return cls(
            name=name,
            uri=uri,
            model_id=model.model_id,
            preset=card.get("preset", ""),
            parameters=card.get("parameters"),
            steps=steps,
            pairs=steps * batch * max(1, card.get("workers") or 1) if steps and batch else None,
            tracks=(card.get("data") or {}).get("tracks"),
            offset_ms=training.get("offset_ms"),
            is_given=is_given,
        )


@dataclass(frozen=True)
class Measured:
    """One row of a table, or one offset of Fig. 2."""

    result: str
    """table-2, table-3 or figure-2."""
    row: str
    """The paper's name of the method."""
    offset_ms: int
    """The tolerance of a hit."""
    model: str
    """The name of its `Trained`."""
    invented: int | None
    """Invented tracks among `tracks`; None for a database of real tracks only."""
    tracks: int
    fingerprints: int
    hop_s: float
    index_bytes: int
    vectors_bytes: int
    cells: Mapping[str, Rate]
    """Hits within 50 ms by the name of the cell, see `cell_name`."""
    within: Mapping[str, Rate]
    """Hits within `offset_ms` by condition and length, all ratios together."""

    @classmethod
    def of(
        cls,
        result: str,
        row: str,
        offset_ms: int,
        report: Mapping[str, Any],
        manifest: Manifest,
        model: str,
        *,
        invented: bool,
    ) -> "Measured":
        """From the numbers of an evaluation, the catalog's manifest and the name of its model."""
        scale = report["scales"][-1] if invented and report.get("scales") else None
        cells = (scale or report)["cells"]
        return cls(
            result=result,
            row=row,
            offset_ms=offset_ms,
            model=model,
            invented=scale["distractors"] if scale else (0 if invented else None),
            tracks=scale["tracks"] if scale else manifest.counts["tracks"],
            fingerprints=scale["fingerprints"] if scale else manifest.counts["fingerprints"],
            hop_s=manifest.hop_s,
            index_bytes=sum(entry.codes.bytes for entry in manifest.shards),
            vectors_bytes=BYTES * manifest.counts["fingerprints"],
            cells={name: _rate(rates["hit_50ms"]) for name, rates in cells.items()},
            within={name: _rate(r[f"{offset_ms} ms"]) for name, r in report["within"].items()},
        )

    def cell(self, reverb: bool, seconds: float, snr_db: float) -> Rate | None:
        """Hits within 50 ms; None where it was not measured."""
        return self.cells.get(cell_name(reverb, seconds, snr_db))

    def within_offset(self, reverb: bool, seconds: float) -> Rate | None:
        """Hits within the offset; None where it was not measured."""
        return self.within.get(f"{CONDITIONS[reverb]}, {seconds:g} s")

    def paper_cell(self, reverb: bool, seconds: float, snr_db: float) -> float | None:
        """The paper's number for the same cell, %."""
        table = paper.TABLE_3 if self.result == "table-3" else paper.TABLE_2
        return paper.cell(table[self.row], reverb, seconds, snr_db)


def _rate(values: Mapping[str, Any]) -> Rate:
    return Rate(values["hits"], values["total"])
