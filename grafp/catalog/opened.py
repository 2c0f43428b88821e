"""A snapshot opened for search: its lists filled, its exact fingerprints mapped from files."""

import hashlib
import logging
import mmap
import os
import tempfile
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

import faiss
import numpy as np

from grafp import storage
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import BYTES, damage
from grafp.catalog.manifest import Manifest
from grafp.catalog.shard_files import codes_within, read_codes, read_ordinals, read_positions
from grafp.errors import CatalogError, DiskFull
from grafp.index.codes import Codes
from grafp.index.ivfpq import parse_index, quantizer_of
from grafp.index.lists import Lists
from grafp.index.scoring import Tracks, Vectors
from grafp.index.search import DecodedVectors, IndexSearch, decoded_halves

logger = logging.getLogger(__name__)
_FINGERPRINTS = 1 << 24  # of lists that are filled at once: a gigabyte for a moment
_MAPPED = 256  # embedding files at a time


@dataclass(frozen=True)
class Part:
    """What of a catalog a process holds: some of its lists, and the exact side of some tracks."""

    lists: range
    ordinals: range

    @classmethod
    def all_of(cls, manifest: Manifest) -> "Part":
        nlist = manifest.parameters.nlist if manifest.parameters else 1
        return cls(range(nlist), range(manifest.next_ordinal))


def open_search(
    root: str,
    manifest: Manifest,
    part: Part | None = None,
    *,
    stride: int | None = None,
    offset_correction: float = 0.0,
    decode: bool = False,
    choosing: bool = True,
    method: type[IndexSearch] = IndexSearch,
) -> IndexSearch:
    """Open a snapshot, or a part of it, for search.

    Args:
        root: of the catalog; the manifest's snapshot need not be published.
        stride: 1 if queries come at the catalog's hop; default: the manifest's.
        offset_correction: of the model, see `Searcher`.
        decode: take fingerprints from the index's codes, and leave the exact ones where they are.
        choosing: hold what chooses lists; without it, others choose, and ask for `within`.

    Raises CatalogError when a file is not what was written.
    """
    part = part or Part.all_of(manifest)
    catalog = Catalog(root, manifest)
    assert manifest.trained_index
    trained = parse_index(catalog.get(manifest.trained_index))
    gone_T = read_ordinals(catalog, manifest.gone)
    decoder = trained if decode else None
    tracks = [_tracks(root, manifest, part.ordinals, decoder)] if len(part.ordinals) else []
    return method(
        quantizer=quantizer_of(trained) if choosing else None,
        lists=[_filled(root, manifest, trained, lists) for lists in _chunks(manifest, part.lists)],
        tracks=[one for one in tracks if len(one.ordinals_T)],
        effort=manifest.effort,
        stride=stride or manifest.stride,
        offset_correction=offset_correction,
        neighbors=manifest.neighbors,
        candidates=manifest.candidates,
        gone_T=gone_T,
    )


def _chunks(manifest: Manifest, lists: range) -> list[range]:
    """Lists to fill at once; the shards of the base say where fingerprints are many."""
    chunks: list[range] = []
    held = 0
    for entry in manifest.layers[0].shards:
        here = range(max(lists.start, entry.first_list), min(lists.stop, entry.after_list))
        if not len(here):
            continue
        if chunks and held + entry.fingerprints <= _FINGERPRINTS:
            chunks[-1], held = range(chunks[-1].start, here.stop), held + entry.fingerprints
        else:
            chunks.append(here)
            held = entry.fingerprints
    return chunks


def _filled(root: str, manifest: Manifest, trained: faiss.IndexIVF, lists: range) -> Lists:
    return Lists.filled(trained, codes_within(root, manifest.shards, lists), lists)


def _tracks(
    root: str, manifest: Manifest, ordinals: range, trained: faiss.IndexIVF | None
) -> Tracks:
    """`trained`: decode the codes of these tracks, instead of reading exact fingerprints."""
    positions = read_positions(root, manifest.positions, ordinals)
    ordinal_T, count_T = positions["ordinal"].to_numpy(), positions["n_segments"].to_numpy()
    first_row_T = np.cumsum(count_T) - count_T
    vectors: Vectors
    if trained is not None:
        parts = [read_codes(root, entry).of(ordinal_T) for entry in manifest.shards]
        vectors = DecodedVectors(trained, Codes.together(parts), ordinal_T, first_row_T)
    else:
        file = positions["embedding_file"].combine_chunks().dictionary_encode()
        vectors = StoredVectors(
            root,
            file.dictionary.to_pylist(),
            file.indices.to_numpy(),
            positions["embeddings_at"].to_numpy(),
            first_row_T,
        )
    return Tracks(vectors, ordinal_T, first_row_T, count_T)


class StoredVectors:
    """Exact fingerprints of tracks in embedding files, of which only what is asked for is read.

    From object storage, an embedding file is copied here when it is first needed. When this
    machine's disk is full, what is asked for is read from the store by ranges.
    """

    def __init__(
        self,
        root: str,
        files: list[str],
        file_T: np.ndarray,
        position_T: np.ndarray,
        first_row_T: np.ndarray,
        *,
        copied: bool = True,
    ) -> None:
        """For each track its file, by number, the byte where it begins, and its first row.

        `copied`: whether files are mapped from copies. Without, what is asked for is read by ranges
        at once: for little of many files, each asked once.
        """
        self._root, self._files, self._copied = root, files, copied
        self._file_T, self._position_T, self._first_row_T = file_T, position_T, first_row_T
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()
        self._paths: dict[int, str] = {}
        self._not_here: set[int] = set()

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float32 (rows, 128)."""
        track_N = np.searchsorted(self._first_row_T, rows, "right") - 1
        byte_N = self._position_T[track_N] + BYTES * (rows - self._first_row_T[track_N])
        file_N = self._file_T[track_N]
        halves_NB = np.empty((len(rows), BYTES), np.uint8)
        for number in np.unique(file_N).tolist():
            here = file_N == number
            windows_NB = self._windows(number)
            if windows_NB is None:
                halves_NB[here] = self._from_store(number, byte_N[here])
            else:
                halves_NB[here] = windows_NB[byte_N[here]]
        return decoded_halves(halves_NB)

    def _windows(self, number: int) -> np.ndarray | None:
        """From each byte of a file on, as many bytes as a fingerprint has; None: no copy of it."""
        if number in self._mapped:
            self._mapped.move_to_end(number)
            return self._mapped[number]
        if number in self._not_here or not self._copied:
            return None
        try:
            windows_NB = self._map(number)
        except DiskFull as error:
            if not self._not_here:
                logger.warning(f"{error}; until then, fingerprints are read from the store")
            self._not_here.add(number)
            return None
        self._mapped[number] = windows_NB
        if len(self._mapped) > _MAPPED:
            self._mapped.popitem(last=False)
        return windows_NB

    def _map(self, number: int) -> np.ndarray:
        """Files do not change, so the store is asked once for each; others may remove a copy."""
        if number in self._paths:
            with suppress(FileNotFoundError):
                return _mapped(self._paths[number])
        self._paths[number] = _checked_copy(self._root, self._files[number])
        return _mapped(self._paths[number])

    def _from_store(self, number: int, byte_N: np.ndarray) -> np.ndarray:
        """uint8 (fingerprints, BYTES) that begin at these bytes; neighbors in one request."""
        start_U, row_N = np.unique(byte_N, return_inverse=True)
        first_R = np.flatnonzero(np.diff(start_U, prepend=-1 - BYTES) != BYTES)
        after_R = np.append(first_R[1:], len(start_U)) - 1
        ranges = [(int(start_U[f]), int(start_U[a]) + BYTES) for f, a in zip(first_R, after_R)]
        uri = storage.join(self._root, self._files[number])
        data = b"".join(storage.read_ranges(uri, ranges))
        if len(data) != len(start_U) * BYTES:
            raise CatalogError(f"{uri}: damaged (it is cut off)")
        return np.frombuffer(data, np.uint8).reshape(-1, BYTES)[row_N]


def _mapped(path: str) -> np.ndarray:
    """uint8: from each byte of a file on, as many bytes as a fingerprint has."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Reading ahead would take megabytes for each candidate of some kilobytes.
    mapped.madvise(mmap.MADV_RANDOM)
    return np.lib.stride_tricks.sliding_window_view(np.frombuffer(mapped, np.uint8), BYTES)


def _checked_copy(root: str, key: str) -> str:
    """A local path to an embedding file whose checksums were compared, once on this machine."""
    cache_dir = os.path.join(tempfile.gettempdir(), f"grafp-cache-{os.getuid()}")
    path = storage.local_copy(storage.join(root, key), cache_dir)
    info = storage.stat(path)
    identity = f"{path}\n{info and info.etag}"
    mark = os.path.join(cache_dir, hashlib.sha256(identity.encode()).hexdigest()[:32] + ".ok")
    if storage.stat(mark) is None:
        if damage(os.path.dirname(path), os.path.basename(path), []):
            if path.startswith(cache_dir):
                storage.delete(path)  # the next try copies it again
            raise CatalogError(f"{root}/{key}: damaged (its checksums differ)")
        storage.write(mark, b"")
    return path
