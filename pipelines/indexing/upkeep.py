"""Which shards a catalog should have: when to add, to compact, and to train anew."""

import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, ShardEntry, StoredFile, index_health
from grafp.catalog.tracks import TrackRef
from grafp.index.size import MAX_SHARD_FINGERPRINTS, IndexParameters
from pipelines.indexing import build

logger = logging.getLogger(__name__)

MAX_DEAD = 0.2
"""A shard is written anew when a larger share of it was withdrawn or replaced."""
MAX_SMALL = 8
"""So many shards of less than a quarter of the full size become one."""
MAX_RECALL_LOST, MAX_IMBALANCE_GROWN = 0.05, 2.0
"""Since training: beyond these the template no longer suits the music, and a new one is trained."""


@dataclass(frozen=True)
class IndexState:
    """A template and the shards that are filled copies of it."""

    parameters: IndexParameters | None = None
    template: StoredFile | None = None
    shards: tuple[ShardEntry, ...] = ()
    when_trained: dict[str, float] | None = None
    """`health` just after training."""

    @classmethod
    def of(cls, manifest: Manifest | None) -> "IndexState":
        if manifest is None:
            return cls()
        return cls(
            manifest.parameters,
            manifest.template,
            tuple(manifest.shards),
            manifest.when_trained,
        )

    @property
    def template_id(self) -> str:
        assert self.template
        return self.template.key.split("/")[1]

    def without(self, shard_ids: set[str]) -> "IndexState":
        return replace(self, shards=tuple(e for e in self.shards if e.shard_id not in shard_ids))

    def plus(self, shards: list[ShardEntry]) -> "IndexState":
        return replace(self, shards=(*self.shards, *shards))

    def health(self) -> dict[str, float]:
        return index_health(self.shards)


def extend(
    catalog: Catalog,
    state: IndexState,
    live: dict[int, TrackRef],
    *,
    retrain: bool = False,
    compact: bool = False,
) -> IndexState:
    """Bring an index to exactly the live tracks.

    New tracks get shards of their own; shards that are due are compacted, or all that can gain
    with `compact`. A template is trained when there is none, when the catalog outgrew it, when
    the index's health fell, or with `retrain`.
    """
    if not live:
        return IndexState()
    if retrain:  # without a look at the old shards, which may be damaged
        return _trained(catalog, live, "asked to")
    sizes = _live_sizes(catalog, state, live)
    state = state.without({shard for shard, size in sizes.items() if size == 0})
    if reason := _why_retrain(state, live):
        return _trained(catalog, live, reason)
    assert state.template
    held = _ordinals(catalog, state.shards)
    new = [ref for ordinal, ref in live.items() if ordinal not in held]
    if new:
        entries = build.fill_shards(catalog, state.template_id, state.template, new)
        state = state.plus(entries)
        sizes |= {entry.shard_id: entry.fingerprints for entry in entries}
    return _compacted(catalog, state, live, sizes, compact)


def _trained(
    catalog: Catalog,
    live: dict[int, TrackRef],
    reason: str,
) -> IndexState:
    """A new template and shards with all live tracks."""
    parameters = IndexParameters.for_size(sum(ref.n_segments for ref in live.values()))
    logger.info(f"training the index ({reason}): {parameters.nlist} lists, {parameters.codec}")
    tracks = sorted(live.values(), key=lambda ref: ref.ordinal)
    template_id, template = build.train(catalog, tracks, parameters)
    shards = build.fill_shards(catalog, template_id, template, tracks)
    trained = IndexState(parameters, template, tuple(shards))
    return replace(trained, when_trained=trained.health())


def _why_retrain(state: IndexState, live: dict[int, TrackRef]) -> str:
    """Empty if the template is still good."""
    if not state.shards or not state.parameters or not state.when_trained:
        return "there is none"
    if state.parameters.outgrown_by(sum(ref.n_segments for ref in live.values())):
        return "the catalog outgrew the old one"
    now, then = state.health(), state.when_trained
    if now["canary"] < then["canary"] - MAX_RECALL_LOST:
        return f"canary recall fell from {then['canary']:.3f} to {now['canary']:.3f}"
    if now["imbalance"] > then["imbalance"] * MAX_IMBALANCE_GROWN:
        return f"list imbalance grew from {then['imbalance']:.2f} to {now['imbalance']:.2f}"
    return ""


def _compacted(
    catalog: Catalog,
    state: IndexState,
    live: dict[int, TrackRef],
    sizes: dict[str, int],
    force: bool,
) -> IndexState:
    small = [e for e in state.shards if sizes[e.shard_id] < MAX_SHARD_FINGERPRINTS // 4]
    due = {e.shard_id for e in small} if len(small) >= (2 if force else MAX_SMALL) else set()
    most = 0.0 if force else MAX_DEAD
    due |= {e.shard_id for e in state.shards if 1 - sizes[e.shard_id] / e.fingerprints > most}
    if not due or not state.template:
        return state
    old = [entry for entry in state.shards if entry.shard_id in due]
    held = _ordinals(catalog, old)
    tracks = [ref for ordinal, ref in live.items() if ordinal in held]
    logger.info(f"compacting {len(old)} shards")
    new = build.fill_shards(catalog, state.template_id, state.template, tracks)
    return state.without(due).plus(new)


def _live_sizes(catalog: Catalog, state: IndexState, live: dict[int, TrackRef]) -> dict[str, int]:
    """Fingerprints of each shard that can still be an answer."""
    return {
        entry.shard_id: sum(
            live[ordinal].n_segments for ordinal in _ordinals(catalog, [entry]) if ordinal in live
        )
        for entry in state.shards
    }


def _ordinals(catalog: Catalog, shards: Iterable[ShardEntry]) -> set[int]:
    found: set[int] = set()
    for entry in shards:
        table = pq.read_table(io.BytesIO(catalog.get(entry.tracks)), columns=["ordinal"])
        found.update(table["ordinal"].to_pylist())
    return found
