"""Synthetic recordings as fingerprints, clips of them, and shards that hold them."""

from dataclasses import replace

import numpy as np

from grafp.index.ids import fingerprint_ids
from grafp.index.ivfpq import parse_index, populate, train_index
from grafp.index.shards import Shard, ShardSearch
from grafp.index.size import IndexParameters

FINE = 10  # points of a synthetic recording per hop


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def recording(hops: int, seed: int) -> np.ndarray:
    """Fingerprints that change smoothly, ten points to a hop; neighbors on the grid are 0.9 alike.

    Shape (FINE * hops, 128).
    """
    rng = np.random.default_rng(seed)
    width = 1.5 * FINE
    kernel = np.exp(-0.5 * (np.arange(-4 * width, 4 * width + 1) / width) ** 2)
    noise = rng.standard_normal((FINE * hops + len(kernel) - 1, 128))
    spectrum = np.fft.rfft(noise, axis=0) * np.fft.rfft(kernel, len(noise))[:, None]
    return unit(np.fft.irfft(spectrum, len(noise), axis=0)[len(kernel) - 1 :])


def on_grid(fine_ND: np.ndarray) -> np.ndarray:
    return fine_ND[::FINE]


def clip(fine_ND: np.ndarray, start: float, hops: int, noise: float = 0.0) -> np.ndarray:
    """A query of `hops` fingerprints from `start`, in hops, with noise of this length added."""
    first = round(start * FINE)
    query = fine_ND[first : first + FINE * hops : FINE]
    assert len(query) == hops
    added = np.random.default_rng(first).standard_normal(query.shape)
    return unit(query + noise * unit(added))


def shards_of(
    tracks: dict[int, np.ndarray], count: int = 1, stride: int = 1, codec: str | None = None
) -> ShardSearch:
    """A catalog of these ordinals, dealt out to `count` shards filled from one trained."""
    everything = np.concatenate(list(tracks.values()))
    parameters = IndexParameters.for_size(len(everything))
    trained = train_index(everything, replace(parameters, codec=codec or parameters.codec))
    parts = [sorted(tracks)[n::count] for n in range(count)]
    shards = [shard_of(trained, {o: tracks[o] for o in part}) for part in parts]
    return ShardSearch(shards, nprobe=32, stride=stride)


def shard_of(trained: bytes, tracks: dict[int, np.ndarray]) -> Shard:
    counts = np.array([len(vectors) for vectors in tracks.values()])
    vectors = np.concatenate(list(tracks.values()))
    ids = np.concatenate([fingerprint_ids(o, np.arange(len(v))) for o, v in tracks.items()])
    return Shard(
        index=parse_index(populate(trained, vectors, ids)),
        vectors_ND=vectors.astype(np.float16),
        ordinals_T=np.array(list(tracks)),
        first_rows_T=np.concatenate([[0], np.cumsum(counts)[:-1]]),
        counts_T=counts,
    )
