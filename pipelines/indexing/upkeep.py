"""Which shards a catalog should have: when to add, to compact and to retrain."""

import logging
from dataclasses import dataclass, replace

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest, ShardEntry, StoredFile, index_health
from grafp.catalog.shard_files import shard_ordinals
from grafp.catalog.tracks import TrackRef
from grafp.index.size import AUTOMATIC, MAX_SHARD_FINGERPRINTS, IndexOptions, IndexParameters
from pipelines.indexing import build

logger = logging.getLogger(__name__)

MAX_DELETED = 0.2
"""A shard is rewritten when a larger share of it was removed or replaced."""
MAX_SMALL = 8
"""So many shards of less than a quarter of the full size become one."""
MAX_RECALL_LOST, MAX_IMBALANCE_GROWN = 0.05, 2.0
"""Since training: beyond these the trained index no longer suits the music, and is retrained."""


@dataclass(frozen=True)
class IndexState:
    """A trained index and the shards that are copies of it with fingerprints added."""

    parameters: IndexParameters | None = None
    trained_index: StoredFile | None = None
    shards: tuple[ShardEntry, ...] = ()
    when_trained: dict[str, float] | None = None
    """`index_health` just after training."""
    options: IndexOptions = AUTOMATIC

    @classmethod
    def of(cls, manifest: Manifest | None) -> "IndexState":
        if manifest is None:
            return cls()
        return cls(
            manifest.parameters,
            manifest.trained_index,
            tuple(manifest.shards),
            manifest.when_trained,
            manifest.index_options,
        )

    def without(self, shard_ids: set[str]) -> "IndexState":
        return replace(self, shards=tuple(e for e in self.shards if e.shard_id not in shard_ids))

    def plus(self, shards: list[ShardEntry]) -> "IndexState":
        return replace(self, shards=(*self.shards, *shards))


def extend(
    catalog: Catalog,
    state: IndexState,
    live: dict[int, TrackRef],
    *,
    retrain: bool = False,
    compact: bool = False,
) -> IndexState:
    """Bring an index to exactly the live tracks.

    New tracks get shards of their own, a delta. Shards that are due are compacted, or with
    `compact` all that can gain. The index is retrained when there is none, when the catalog
    outgrew it, when its health fell, or with `retrain`.
    """
    if not live:
        return IndexState(options=state.options)
    if retrain:  # without a look at the old shards, which may be damaged
        return _retrained(catalog, live, state.options, "as asked")
    ordinals = {entry.shard_id: shard_ordinals(catalog, entry) for entry in state.shards}
    sizes = {
        shard_id: sum(live[ordinal].n_segments for ordinal in held if ordinal in live)
        for shard_id, held in ordinals.items()
    }
    state = state.without({shard_id for shard_id, size in sizes.items() if size == 0})
    if reason := _why_retrain(state, live):
        return _retrained(catalog, live, state.options, reason)
    assert state.trained_index
    held = {ordinal for entry in state.shards for ordinal in ordinals[entry.shard_id]}
    new = [ref for ordinal, ref in live.items() if ordinal not in held]
    if new:
        entries = build.populate_shards(catalog, state.trained_index, new)
        state = state.plus(entries)
        ordinals |= {entry.shard_id: shard_ordinals(catalog, entry) for entry in entries}
        sizes |= {entry.shard_id: entry.fingerprints for entry in entries}
    due = _due(state, sizes, compact)
    if not due or not state.trained_index:
        return state
    logger.info(f"compacting {len(due)} shards")
    tracks = [live[o] for shard_id in sorted(due) for o in ordinals[shard_id] if o in live]
    return state.without(due).plus(build.populate_shards(catalog, state.trained_index, tracks))


def _retrained(
    catalog: Catalog, live: dict[int, TrackRef], options: IndexOptions, reason: str
) -> IndexState:
    """A newly trained index and shards with all live tracks."""
    parameters = IndexParameters.for_size(sum(ref.n_segments for ref in live.values()), options)
    logger.info(f"training the index ({reason}): {parameters.nlist} lists, {parameters.codec}")
    tracks = sorted(live.values(), key=lambda ref: ref.ordinal)
    trained_index = build.train(catalog, tracks, parameters)
    shards = build.populate_shards(catalog, trained_index, tracks)
    return IndexState(parameters, trained_index, tuple(shards), index_health(shards), options)


def _why_retrain(state: IndexState, live: dict[int, TrackRef]) -> str:
    """Empty if the trained index still suits."""
    if not state.shards or not state.parameters or not state.when_trained:
        return "there is none"
    count = sum(ref.n_segments for ref in live.values())
    if state.parameters.outgrown_by(count, state.options):
        return "the catalog outgrew the old one"
    now, then = index_health(state.shards), state.when_trained
    if now["recall"] < then["recall"] - MAX_RECALL_LOST:
        return f"the recall of its probes fell from {then['recall']:.3f} to {now['recall']:.3f}"
    if now["imbalance"] > then["imbalance"] * MAX_IMBALANCE_GROWN:
        return f"list imbalance grew from {then['imbalance']:.2f} to {now['imbalance']:.2f}"
    return ""


def _due(state: IndexState, sizes: dict[str, int], force: bool) -> set[str]:
    """Ids of the shards to compact; `sizes` are their live fingerprints."""
    small = {e.shard_id for e in state.shards if sizes[e.shard_id] < MAX_SHARD_FINGERPRINTS // 4}
    due = small if len(small) >= (2 if force else MAX_SMALL) else set()
    most = 0.0 if force else MAX_DELETED
    return due | {e.shard_id for e in state.shards if 1 - sizes[e.shard_id] / e.fingerprints > most}
