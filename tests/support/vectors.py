"""Synthetic recordings as fingerprints, clips of them, and shards that hold them."""

import itertools
from dataclasses import replace

import faiss
import numpy as np

from grafp.index.alignment import Effort
from grafp.index.codes import Codes
from grafp.index.ids import fingerprint_ids
from grafp.index.ivfpq import encode, parse_index, quantizer_of, train_index
from grafp.index.lists import Lists
from grafp.index.scoring import Tracks
from grafp.index.search import IndexSearch
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
) -> IndexSearch:
    """A catalog of these ordinals, in `count` ranges of lists and as many parts of its tracks."""
    index, codes = index_of(tracks, codec)
    edges = [index.nlist * n // count for n in range(count + 1)]
    lists = [range(*edge) for edge in itertools.pairwise(edges)]
    parts = [sorted(tracks)[n::count] for n in range(count)]
    return IndexSearch(
        quantizer_of(index),
        [Lists.filled(index, codes.within(one), one) for one in lists],
        [tracks_of({o: tracks[o] for o in part}) for part in parts],
        effort=Effort(None, 32),
        stride=stride,
    )


def index_of(
    tracks: dict[int, np.ndarray], codec: str | None = None
) -> tuple[faiss.IndexIVF, Codes]:
    """A trained index, and the codes of all fingerprints."""
    everything = np.concatenate(list(tracks.values()))
    parameters = IndexParameters.for_size(len(everything))
    trained = train_index(everything, replace(parameters, codec=codec or parameters.codec))
    ids = np.concatenate([fingerprint_ids(o, np.arange(len(v))) for o, v in tracks.items()])
    return parse_index(trained), encode(trained, everything, ids)


def tracks_of(tracks: dict[int, np.ndarray]) -> Tracks:
    counts = np.array([len(vectors) for vectors in tracks.values()])
    return Tracks(
        np.concatenate(list(tracks.values())).astype(np.float16),
        ordinals_T=np.array(list(tracks)),
        first_rows_T=np.concatenate([[0], np.cumsum(counts)[:-1]]),
        counts_T=counts,
    )
