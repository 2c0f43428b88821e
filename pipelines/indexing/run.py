"""One run over one catalog: its id, its files, and the manifest of the snapshot that it makes."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.catalog.shard_files import read_ordinals, write_ordinals, write_positions
from grafp.catalog.tracks import Row, as_table, has_status, live_refs, tracks_to_bytes
from pipelines.indexing.upkeep import IndexState


@dataclass(frozen=True)
class Run:
    """A run, for its catalog to name files after."""

    catalog: Catalog
    model_id: str
    model_sha256: str
    hop_s: float
    run_id: str

    @classmethod
    def begin(cls, catalog: Catalog, model_id: str, model_sha256: str, hop_s: float) -> "Run":
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        return cls(catalog, model_id, model_sha256, hop_s, run_id)

    def manifest(
        self, tracks: pa.Table | list[Row], state: IndexState, next_ordinal: int
    ) -> Manifest:
        """Write the tables of a new snapshot; the snapshot is not published yet."""
        table = as_table(tracks)
        live = live_refs(table)
        held = [read_ordinals(self.catalog, layer.tracks) for layer in state.layers]
        gone_T = np.setdiff1d(np.concatenate([np.zeros(0, np.int64), *held]), live.ordinal_T)
        name = f"snapshots/{self.run_id}"
        count = {one: int(has_status(table, one).sum()) for one in ("ok", "failed", "removed")}
        old = self.catalog.manifest
        return Manifest(
            snapshot=self.run_id,
            parent=old.snapshot if old else None,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model_id=self.model_id,
            model_sha256=self.model_sha256,
            hop_s=self.hop_s,
            # It is of the search that it was measured with.
            calibration=old.calibration if old and old.index_options == state.options else None,
            index_options=state.options,
            trained_index=state.trained_index,
            parameters=state.parameters,
            when_trained=state.when_trained,
            layers=list(state.layers),
            tracks=self.catalog.put(f"{name}.tracks.parquet", tracks_to_bytes(table)),
            positions=write_positions(self.catalog, f"{name}.positions.parquet", live),
            gone=write_ordinals(self.catalog, f"{name}.gone.parquet", gone_T),
            next_ordinal=next_ordinal,
            counts={
                "tracks": count["ok"],
                "copies": count["ok"] - len(live),
                "fingerprints": live.fingerprints,
                "failed": count["failed"],
                "withdrawn": count["removed"],
            },
        )

    @property
    def first_ordinal(self) -> int:
        """Of the next new recording, until the run's snapshot is published."""
        return self.catalog.manifest.next_ordinal if self.catalog.manifest else 0

    def put(self, name: str, data: bytes) -> None:
        """Keep something of the run for its owner."""
        self.catalog.put(f"runs/{self.run_id}/{name}", data)
