"""Which layers an index should have: when to add, to compact and to retrain."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Layer, Manifest, ShardEntry, StoredFile, index_health
from grafp.catalog.shard_files import read_ordinals
from grafp.catalog.tracks import LiveTracks
from grafp.index.size import AUTOMATIC, IndexOptions, IndexParameters
from pipelines.indexing import build

logger = logging.getLogger(__name__)

MAX_DELETED = 0.2
"""All layers become one when a larger share of their tracks was removed or replaced."""
MAX_ADDED = 0.25
"""Likewise when later layers hold more than this share of what the base does."""
MAX_LAYERS = 8
"""So many later layers become one."""
MAX_RECALL_LOST, MAX_IMBALANCE_GROWN = 0.05, 2.0
"""Since training: beyond these the trained index no longer suits the music, and is retrained."""


@dataclass(frozen=True)
class IndexState:
    """A trained index and the layers of codes that it made."""

    parameters: IndexParameters | None = None
    trained_index: StoredFile | None = None
    layers: tuple[Layer, ...] = ()
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
            tuple(manifest.layers),
            manifest.when_trained,
            manifest.index_options,
        )

    @property
    def shards(self) -> list[ShardEntry]:
        return [entry for layer in self.layers for entry in layer.shards]


def extend(
    catalog: Catalog,
    state: IndexState,
    live: LiveTracks,
    *,
    retrain: bool = False,
    compact: bool = False,
) -> IndexState:
    """Bring an index to exactly the live tracks.

    New tracks get a layer of their own. Layers that are due are merged, or with `compact` all that
    can gain. The index is retrained when there is none, when the catalog outgrew it, when its
    health fell, or with `retrain`.
    """
    if not live:
        return IndexState(options=state.options)
    if retrain:  # without a look at the old layers, which may be damaged
        return _retrained(catalog, live, state.options, "as asked")
    held = {layer.tracks.key: read_ordinals(catalog, layer.tracks) for layer in state.layers}
    state = replace(
        state,
        layers=tuple(
            one for one in state.layers if np.isin(held[one.tracks.key], live.ordinal_T).any()
        ),
    )
    if reason := _why_retrain(state, live):
        return _retrained(catalog, live, state.options, reason)
    assert state.trained_index
    there_T = np.unique(np.concatenate([held[layer.tracks.key] for layer in state.layers]))
    if new := live.of(np.setdiff1d(live.ordinal_T, there_T)):
        layer = build.build_layer(catalog, state.trained_index, new)
        state = replace(state, layers=(*state.layers, layer))
    gone = len(np.setdiff1d(there_T, live.ordinal_T))
    kept = _due(state, gone / max(1, len(there_T)), compact)
    due = state.layers[kept:]
    if not due:
        return state
    logger.info(f"compacting {len(due)} layers")
    assert state.trained_index
    merged = build.merge_layers(catalog, state.trained_index, due, live.ordinal_T)
    return replace(state, layers=(*state.layers[:kept], merged))


def _retrained(
    catalog: Catalog, live: LiveTracks, options: IndexOptions, reason: str
) -> IndexState:
    """A newly trained index, and one layer with all live tracks."""
    parameters = IndexParameters.for_size(live.fingerprints, options)
    logger.info(f"training the index ({reason}): {parameters.nlist} lists, {parameters.codec}")
    tracks = live.values()
    trained_index = build.train(catalog, tracks, parameters)
    layer = build.build_layer(catalog, trained_index, tracks)
    return IndexState(parameters, trained_index, (layer,), index_health(layer.shards), options)


def _why_retrain(state: IndexState, live: LiveTracks) -> str:
    """Empty if the trained index still suits."""
    if not state.layers or not state.parameters or not state.when_trained:
        return "there is none"
    if state.parameters.outgrown_by(live.fingerprints, state.options):
        return "the catalog outgrew the old one"
    now, then = index_health(state.shards), state.when_trained
    if now["recall"] < then["recall"] - MAX_RECALL_LOST:
        return f"the recall of its probes fell from {then['recall']:.3f} to {now['recall']:.3f}"
    if now["imbalance"] > then["imbalance"] * MAX_IMBALANCE_GROWN:
        return f"list imbalance grew from {then['imbalance']:.2f} to {now['imbalance']:.2f}"
    return ""


def _due(state: IndexState, gone: float, force: bool) -> int:
    """From which layer on they should be merged; `gone`: share of the tracks in the layers."""
    base, later = state.layers[0].fingerprints, state.layers[1:]
    if force and (later or gone):
        return 0
    if gone > MAX_DELETED or sum(layer.fingerprints for layer in later) > MAX_ADDED * base:
        return 0
    return 1 if len(later) >= MAX_LAYERS else len(state.layers)
