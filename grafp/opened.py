"""A catalog in a notebook or a service: opened once, then asked, without Ray."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from grafp import storage
from grafp.audio import SAMPLE_RATE, checked, decode
from grafp.catalog.identify import (
    Identifier,
    background_of,
    open_for_queries,
    rows_of,
    searched_by_need,
)
from grafp.catalog.opened import open_search
from grafp.errors import OptionError
from grafp.index.alignment import HIGHEST_SPEED_CHANGE, MAX_SPEED_CHANGE
from grafp.matches import MATCH_SCHEMA
from grafp.model.bundle import load_bundle
from grafp.model.inference import Fingerprinter
from grafp.storage.tables import Row, table_of

Recording = str | Path | bytes | np.ndarray


@dataclass(frozen=True)
class Match:
    """A track that a recording may come from, as in `matches.parquet`."""

    track: str
    """Its URI."""
    track_start_s: float
    """Where in the track `query_start_s` lies."""
    speed: float
    """Speed of the track in the recording; 1.04 is 4 % faster."""
    score: float
    """Mean inner product over the aligned fingerprints, -1..1."""
    threshold: float
    """The least score of an answer that is accepted."""
    matched: bool
    """Whether it is accepted."""
    false_positive_rate: float | None
    """A recording that is not in the catalog scores this high in so many cases; None if the
    snapshot has no calibration."""
    query_start_s: float
    query_end_s: float
    """The part of the recording that lies within the track."""

    def __str__(self) -> str:
        rate = self.false_positive_rate
        told = [f"score {self.score:.2f}"] + ([] if rate is None else [f"rate {rate:.1g}"])
        if abs(self.speed - 1) >= 0.0005:
            told.insert(0, f"speed {self.speed:.3f}")
        return f"{self.track} at {self.track_start_s:.2f} s ({', '.join(told)})"


@dataclass(frozen=True)
class Identified(Sequence[Match]):
    """What a recording was identified as: its accepted matches, best first; none: not in there."""

    query: str
    """Path or URI of the recording; "" for samples and bytes."""
    duration_s: float
    best: Match | None
    """The best answer, accepted or not."""
    matches: tuple[Match, ...]
    _rows: list[Row] = field(repr=False, compare=False)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        return self.matches[number]

    def __len__(self) -> int:
        return len(self.matches)

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches)

    def __str__(self) -> str:
        name = self.query or "recording"
        if self.matches:
            return "\n".join(f"{name}: {match}" for match in self.matches)
        nearest = f"; the nearest is {self.best}" if self.best else ""
        return f"{name}: not in the catalog{nearest}"

    @property
    def table(self) -> pa.Table:
        """The rows of `matches.parquet`; `.to_pandas()` makes a data frame of it."""
        return table_of(self._rows, MATCH_SCHEMA)


@dataclass(frozen=True)
class Added:
    """What bringing a catalog up to date with recordings changed."""

    added: int
    """New recordings."""
    changed: int
    """Recordings whose files changed."""
    removed: int
    """Tracks whose recordings are gone."""
    failed: dict[str, str]
    """Why recordings cannot be used, by URI; a hundred at most."""
    tracks: int
    """In the catalog now."""
    snapshot: str

    def __str__(self) -> str:
        counts = f"{self.added} added, {self.changed} changed, {self.removed} removed"
        failed = [f"\n{uri}: {reason}" for uri, reason in self.failed.items()]
        return f"{counts}; {self.tracks} tracks in the catalog" + "".join(failed)


class OpenCatalog:
    """A published snapshot, opened for search in this process; see `open_catalog`."""

    def __init__(
        self,
        uri: str,
        *,
        top_k: int = 1,
        fpr: float | None = None,
        min_score: float | None = None,
        max_speed_change: float = MAX_SPEED_CHANGE,
        device: str = "cpu",
    ) -> None:
        if top_k < 1:
            raise OptionError(f"top_k: {top_k} is not a whole number of 1 or more")
        if not 0 <= max_speed_change <= HIGHEST_SPEED_CHANGE:
            raise OptionError(
                f"max_speed_change: {max_speed_change} is not between 0 and {HIGHEST_SPEED_CHANGE}"
            )
        self._uri, self._top_k, self._fpr, self._min_score = uri, top_k, fpr, min_score
        self._max_speed_change, self._device = max_speed_change, device
        self._open()

    def _open(self) -> None:
        """Open the snapshot that is published now."""
        self.catalog, manifest = open_for_queries(self._uri)
        acceptance = self.catalog.acceptance(self._fpr, self._min_score)
        hop_s, bundle = manifest.query_hop_s, load_bundle(self.catalog.model_uri())
        correction = bundle.offset_correction_s / hop_s
        search = open_search(self.catalog.root, manifest, offset_correction=correction)
        self.identifier = Identifier(
            search,
            background_of(self.catalog),
            acceptance,
            hop_s,
            self._top_k,
            self._max_speed_change,
            searched_by_need(manifest, acceptance),
        )
        self.fingerprinter = Fingerprinter.from_encoder(bundle.encoder, self._device, hop_s)
        self.uris = self.catalog.live_tracks()

    def __repr__(self) -> str:
        assert self.catalog.manifest
        snapshot = self.catalog.manifest.snapshot
        return f"OpenCatalog({self.catalog.root!r}, {len(self)} tracks, snapshot {snapshot})"

    def __len__(self) -> int:
        """Tracks, exact copies counted."""
        return sum(map(len, self.uris.values()))

    def identify(self, recording: Recording) -> Identified:
        """The tracks that a recording comes from.

        Args:
            recording: path or URI of an audio file, the bytes of one, or 16 kHz mono samples
                (float32, at least 1 s).

        Raises AudioError or StorageError when it cannot be used.
        """
        query, samples_S = _read(recording)
        duration_s = len(samples_S) / SAMPLE_RATE
        # Rounded as a job keeps them, so that both give the same answer.
        query_MD = self.fingerprinter(samples_S).astype(np.float16).astype(np.float32)
        [answers] = self.identifier.answers([query_MD])
        acceptance = self.identifier.acceptance
        rows = rows_of(query, duration_s, answers, self.uris, acceptance)
        names = [one.name for one in fields(Match)]
        found = [Match(**{name: row[name] for name in names}) for row in rows if row["track"]]
        accepted = tuple(match for match in found if match.matched)
        return Identified(query, duration_s, found[0] if found else None, accepted, rows)

    def add(self, audio: str | Path) -> Added:
        """Bring the catalog up to date with recordings, as `grafp index` does.

        The new snapshot is published, and is the one that this object searches from now on. Much
        work is done over Ray, which is started then.

        Args:
            audio: a folder or prefix, a table of recordings, or one recording. Tracks that came
                from the same folder and are not there any more are removed.

        Raises StorageError, CatalogError or OptionError with nothing published.
        """
        summary = _indexed(audio, self._uri)
        self._open()
        return Added(
            added=summary["added"],
            changed=summary["changed"],
            removed=summary["withdrawn"],
            failed={failure["uri"]: failure["reason"] for failure in summary["failures"]},
            tracks=summary["tracks"],
            snapshot=summary["snapshot"],
        )


def index_catalog(audio: str | Path, uri: str | Path) -> OpenCatalog:
    """Make a catalog of recordings, or bring one up to date, and open it; see `OpenCatalog.add`.

    Raises StorageError, CatalogError or OptionError.
    """
    _indexed(audio, uri)
    return open_catalog(uri)


def _indexed(audio: str | Path, uri: str | Path) -> dict[str, Any]:
    from pipelines.indexing import flow  # here, since flows are made of the library

    return flow.index_catalog(os.fspath(audio), os.fspath(uri))


def open_catalog(
    uri: str | Path,
    *,
    top_k: int = 1,
    fpr: float | None = None,
    min_score: float | None = None,
    max_speed_change: float = MAX_SPEED_CHANGE,
    device: str = "cpu",
) -> OpenCatalog:
    """Open a catalog that `grafp index` made. Its index is read into memory.

    Args:
        uri: its folder, or its prefix in object storage.
        top_k: pieces of music for each recording.
        fpr: target false-positive rate, default 0.001.
        min_score: accept from this score on, instead.
        max_speed_change: how much faster or slower than cataloged music may play, as a share.
        device: of the encoder, "cpu" or "cuda".

    Raises CatalogError, ModelError, StorageError, or OptionError for a value that cannot work.
    """
    return OpenCatalog(
        os.fspath(uri),
        top_k=top_k,
        fpr=fpr,
        min_score=min_score,
        max_speed_change=max_speed_change,
        device=device,
    )


def _read(recording: Recording) -> tuple[str, np.ndarray]:
    """The name and the samples of a recording."""
    if isinstance(recording, np.ndarray):
        return "", checked(recording)
    if isinstance(recording, bytes):
        return "", decode(recording)
    query = os.fspath(recording)
    return query, decode(storage.read(query))
