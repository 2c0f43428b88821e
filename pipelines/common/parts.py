"""How a catalog is divided over machines for search, and what of their memory each part takes."""

import itertools

import numpy as np

from grafp.catalog.manifest import Manifest
from grafp.catalog.opened import Part
from grafp.catalog.shard_files import read_positions
from grafp.errors import ClusterError
from grafp.index.size import ACTOR_BYTES, CODE_BYTES, LISTED_BYTES
from grafp.model.fingerprint import DIMENSION
from pipelines.common import placement

ACTOR_CPUS = 0.01
"""Not none, or it would be placed on a head that does no work; little, since it mostly waits."""


def divided(root: str, manifest: Manifest, actors: int | None, decode: bool) -> list[Part]:
    """The catalog divided so that each part has about as many fingerprints, of either side."""
    whole = Part.all_of(manifest)
    total = loaded(manifest, decode) + (0 if decode else _exact(manifest))
    count = min(actors or -(-total // ACTOR_BYTES), len(whole.lists), len(whole.ordinals))
    if count <= 1:
        return [whole]
    positions = read_positions(root, manifest.positions)
    counts_T = positions["n_segments"].to_numpy()
    ordinals = _cuts(positions["ordinal"].to_numpy(), counts_T, whole.ordinals, count)
    base = manifest.layers[0].shards
    after_S = np.array([entry.after_list for entry in base])
    filled_S = np.cumsum([entry.fingerprints for entry in base])
    # Within a shard, lists are as good as equal.
    edges = np.interp(
        np.linspace(0, filled_S[-1], count + 1), [0, *filled_S], [0, *after_S]
    ).astype(int)
    lists = [range(a, b) for a, b in itertools.pairwise(edges.tolist())]
    return [Part(*part) for part in zip(lists, ordinals, strict=True)]


def _cuts(ordinal_T: np.ndarray, count_T: np.ndarray, whole: range, parts: int) -> list[range]:
    """Ranges of ordinals with about as many fingerprints each."""
    before_T = np.cumsum(count_T) - count_T
    wanted = count_T.sum() * np.arange(1, parts) / parts
    inner = ordinal_T[np.searchsorted(before_T, wanted).clip(max=len(ordinal_T) - 1)]
    return [range(a, b) for a, b in itertools.pairwise([0, *inner.tolist(), whole.stop])]


def claim(manifest: Manifest, parts: int, decode: bool, memory: float | None) -> float | None:
    """Memory for each part: with its exact fingerprints, or if need be without.

    They are mapped from disk; where they do not fit into memory, search is slower. None: there is
    no room for all parts at once.
    """
    least = loaded(manifest, decode) / parts
    if memory and least * -(-parts // len(placement.machines())) > memory:
        return None
    whole = least if decode else least + _exact(manifest) / parts
    for each in (whole, least):
        if placement.available([{"CPU": ACTOR_CPUS, "memory": each}] * parts, "memory for search"):
            return each
    return None


def streamed_bytes(memory: float | None) -> float:
    """Of a part where parts are opened one after another. Raises ClusterError."""
    there = [machine.get("memory", 0.0) for machine in placement.machines()]
    if not there:
        raise ClusterError(
            f"no machine for the search came; the cluster has {placement.what_there_is()}"
        )
    return min(memory or min(there) / 2, *there)


def streamed(manifest: Manifest, decode: bool, memory: float) -> int:
    """Parts of which each fits; twice its lists are in memory for a moment while it is opened."""
    return -(-2 * loaded(manifest, decode) // int(memory))


def loaded(manifest: Manifest, decode: bool) -> int:
    """Bytes of the lists, which actors cannot do without, and of codes to decode."""
    assert manifest.parameters
    code = CODE_BYTES[manifest.parameters.codec]
    each = code + LISTED_BYTES + (code + 16 if decode else 0)
    return each * sum(layer.fingerprints for layer in manifest.layers)


def _exact(manifest: Manifest) -> int:
    """Bytes of the exact fingerprints."""
    return 2 * DIMENSION * manifest.counts["fingerprints"]
