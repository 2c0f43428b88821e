"""OUT/report.html of a batch: its queries are read once more, and the music they were found in.

A query or a track that cannot be read is left out of the page, with the reason: it costs no answer.
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grafp import storage
from grafp.audio import SAMPLE_RATE
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import read_part
from grafp.catalog.tracks import TrackRef, live_refs
from grafp.errors import GrafpError
from grafp.evaluation.metrics import Answer
from grafp.evaluation.truth import Truth
from grafp.model.bundle import load_bundle
from grafp.model.fingerprint import SEGMENT_SAMPLES
from grafp.model.inference import Fingerprinter
from grafp.reports.answers import write_report
from grafp.reports.excerpts import LONGEST_S, Excerpt, Likeness, Shown
from grafp.storage.sources import Item, read_excerpt
from grafp.storage.tables import Row

logger = logging.getLogger(__name__)
Call = Callable[..., np.ndarray]
_MARGIN_S = 2.0  # of the track, beside what was found


def write_page(
    catalog: Catalog,
    items: Sequence[Item],
    out: str,
    matches: pa.Table,
    truth: Truth | None,
    call: Call,
) -> dict[str, Any]:
    """Write OUT/report.html, and OUT/report.json if there is a truth.

    Args:
        catalog: with the snapshot that was asked.
        items: the queries.
        matches: the rows of OUT/matches.parquet.
        call: calls a function that decodes, so that a hostile file does no harm.

    Returns the rates for the job's summary, none without a truth. Raises StorageError, and
    OptionError when a query has no line in the truth.
    """
    logger.info("Writing the report")
    return write_report(out, matches, truth, Reader(catalog, items, matches, call).shown)


class Reader:
    """Reads what there is to see and to hear of a query and of its best answer."""

    def __init__(
        self, catalog: Catalog, items: Sequence[Item], matches: pa.Table, call: Call
    ) -> None:
        self._catalog, self._call, self._matches = catalog, call, matches
        self._items = {item.uri: item for item in items}

    def shown(self, row: Row, answer: Answer | None = None) -> Shown:
        """Of a row of matches.parquet with rank 1; `answer`: the same beside the truth."""
        try:
            query = self._query(row)
        except GrafpError as error:
            return Shown(why=str(error))
        truth = self._truth(answer, query)
        if row["track"] is None:
            return Shown(query, truth=truth)
        why = None
        try:
            track = self._track(row, query)
        except GrafpError as error:
            track, why = None, f"The file of the track cannot be read here: {error}"
        try:
            likeness = self._likeness(row, query)
        except GrafpError as error:
            likeness = None
            logger.warning(f"{row['query']}: no similarity in the report: {error}")
        return Shown(query, track, why, likeness, truth)

    def _query(self, row: Row) -> Excerpt:
        """A short query whole; of a long one the beginning of what was found."""
        item = self._items[row["query"]]
        begin_s = row["query_start_s"] if row["query_end_s"] > LONGEST_S else 0.0
        size = item.info.size if item.info else None
        samples_S = self._call(read_excerpt, item.location, size, begin_s, LONGEST_S)
        return Excerpt(begin_s, samples_S)

    def _track(self, row: Row, query: Excerpt) -> Excerpt:
        """The music of the query's excerpt."""
        return self._passage(row["track"], *_in_track(row, query))

    def _truth(self, answer: Answer | None, query: Excerpt) -> Excerpt | None:
        """The passage that should have been found, if it is known, was not, and can be read."""
        if answer is None or not answer.true_track or answer.true_start_s is None:
            return None
        if answer.right_offset:
            return None
        begin_s, end_s = (answer.true_start_s + at_s for at_s in (query.begin_s, query.end_s))
        try:
            return self._passage(answer.true_track, begin_s, end_s)
        except GrafpError as error:
            logger.warning(f"{answer.query}: no true passage in the report: {error}")
            return None

    def _passage(self, track: str, begin_s: float, end_s: float) -> Excerpt:
        """Of a track; silence where it has not begun, or is over."""
        samples_S = self._call(
            read_excerpt, storage.absolute(track), None, begin_s, end_s - begin_s
        )
        before = round(max(0.0, -begin_s) * SAMPLE_RATE)
        after = round((end_s - begin_s) * SAMPLE_RATE) - before - len(samples_S)
        return Excerpt(begin_s, np.pad(samples_S, (before, max(0, after))))

    def _likeness(self, row: Row, query: Excerpt) -> Likeness | None:
        if len(query.samples_S) < SEGMENT_SAMPLES or row["track"] not in self._refs:
            return None
        ref, manifest = self._refs[row["track"]], self._catalog.manifest
        assert manifest
        begin_s, end_s = _in_track(row, query)
        first = max(0, math.floor((begin_s - _MARGIN_S) / manifest.hop_s))
        last = min(ref.n_segments, math.ceil((end_s - 1 + _MARGIN_S) / manifest.hop_s) + 1)
        if last <= first:
            return None
        track_ND = read_part(self._catalog.root, ref, range(first, last))
        products_MN = self._fingerprinter(query.samples_S) @ track_ND.astype(np.float32).T
        hop_s = manifest.query_hop_s
        return Likeness(products_MN, query.begin_s, hop_s, first * manifest.hop_s, manifest.hop_s)

    @cached_property
    def _fingerprinter(self) -> Fingerprinter:
        assert self._catalog.manifest
        encoder = load_bundle(self._catalog.model_uri()).encoder
        return Fingerprinter.from_encoder(encoder, "cpu", self._catalog.manifest.query_hop_s)

    @cached_property
    def _refs(self) -> dict[str, TrackRef]:
        """The fingerprints of the tracks that are answers, by URI."""
        tracks = self._catalog.tracks(["uri", "status", *TrackRef.__dataclass_fields__])
        answers = pc.unique(self._matches["track"]).cast(pa.large_string())
        tracks = tracks.filter(pc.is_in(tracks["uri"], answers))
        refs = {ref.ordinal: ref for ref in live_refs(tracks).values()}
        pairs = zip(tracks["uri"].to_pylist(), tracks["ordinal"].to_pylist(), strict=True)
        return {uri: refs[ordinal] for uri, ordinal in pairs if ordinal in refs}


def _in_track(row: Row, query: Excerpt) -> tuple[float, float]:
    """Where in the track the excerpt of the query begins and ends; may be outside of it."""
    begin_s, end_s = (
        row["track_start_s"] + row["speed"] * (at_s - row["query_start_s"])
        for at_s in (query.begin_s, query.end_s)
    )
    return begin_s, end_s
