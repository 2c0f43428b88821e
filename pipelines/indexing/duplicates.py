"""Near duplicates: the same recording in another encoding, found with the index, and reported."""

import logging
import math
import random
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.catalog.opened import StoredVectors, open_search
from grafp.catalog.tracks import Row, TrackRef
from grafp.index.alignment import NEAR_DUPLICATES, Searcher, find_matches
from grafp.index.size import EXCERPT
from grafp.rates import ENCODED, NEAR_DUPLICATES_SHARE, Search
from grafp.storage.tables import table_of, to_parquet
from pipelines.common.opening import AnySearch, search_of
from pipelines.common.work import gather, is_here, start

logger = logging.getLogger(__name__)
NEAR = 0.9
"""Mean inner product from which an excerpt of another track counts as the same recording."""
_LEAST_S = 10.0  # of a search for near duplicates, however short the encoding was
_TRACKS_A_TASK = 500
_EXCERPTS_AT_ONCE = 32  # the tracks of an embedding file
DUPLICATE_SCHEMA = pa.schema(
    [
        ("track", pa.string()),
        ("track_start_s", pa.float64()),
        ("same_as", pa.string()),
        ("same_as_start_s", pa.float64()),
        ("score", pa.float64()),
    ]
)


def duplicates_to_bytes(pairs: list[Row]) -> bytes:
    """duplicates.parquet. Raises ValueError for a row with other columns."""
    return to_parquet(table_of(pairs, DUPLICATE_SCHEMA))


@dataclass(frozen=True)
class NearDuplicates:
    """What was found, and what that took."""

    pairs: list[Row]
    """Rows of DUPLICATE_SCHEMA."""
    looked_for: int
    """New tracks of which an excerpt was searched."""
    seconds: float

    def told(self) -> dict[str, float | None]:
        """For the summary of a run; how many there are is unknown where none was looked for."""
        return {
            "near_duplicates": len(self.pairs) if self.looked_for else None,
            "near_duplicates_looked_for": self.looked_for,
            "near_duplicates_seconds": self.seconds,
        }


def find_near_duplicates(
    catalog: Catalog,
    manifest: Manifest,
    tracks: pa.Table,
    new: list[TrackRef],
    most: int | None = None,
    encoding_s: float = 0.0,
) -> NearDuplicates:
    """For each new track the other track, if any, that an excerpt of it also matches, see `NEAR`.

    Args:
        tracks: the track table.
        most: of the new tracks, at most so many are looked for, drawn at random; None: as many as
            take a tenth of the time in which the new tracks are encoded, by the rates of
            `grafp.rates`, and none any more once the clock says that it took so long.
        encoding_s: what encoding took in this run, seconds.
    """
    started, until = time.time(), math.inf  # the time of day, which machines share
    if most is None:
        most = affordable(manifest, new)
        until = started + max(_LEAST_S, NEAR_DUPLICATES_SHARE * encoding_s)
    if not new or not most or manifest.counts["tracks"] - manifest.counts["copies"] < 2:
        return NearDuplicates([], 0, 0.0)
    drawn = random.Random(manifest.snapshot)
    if most < len(new):
        new = drawn.sample(new, most)
    new = sorted(new, key=lambda ref: ref.embedding_file)
    tasks = [new[i : i + _TRACKS_A_TASK] for i in range(0, len(new), _TRACKS_A_TASK)]
    drawn.shuffle(tasks)  # those that the clock leaves out are any
    small = manifest.is_small or is_here()
    search = None if small else search_of(catalog.root, manifest, stride=1)
    given = search, catalog.root, manifest.to_json()
    done = gather([start(_search, *given, some, until, cpus=0.5) for some in tasks])
    looked_for = sum(count for count, _ in done)
    found = [pair for _, some in done for pair in some]
    if looked_for < len(new):
        logger.info(f"near duplicates: {looked_for} of {len(new)} tracks in the time for it")
    uris = _uris(tracks, {pair[name] for pair in found for name in ("track", "same_as")})
    found = [
        {**pair, "track": uris[pair["track"]], "same_as": uris[pair["same_as"]]} for pair in found
    ]
    pairs = sorted(found, key=lambda pair: (pair["track"], pair["same_as"]))
    return NearDuplicates(pairs, looked_for, round(time.time() - started, 2))


def affordable(manifest: Manifest, new: list[TrackRef]) -> int:
    """How many of the new tracks are looked for in a tenth of the time of encoding all of them.

    By the rates of `grafp.rates`, so that it is the same on every machine.
    """
    if manifest.parameters is None:
        return 0
    search = Search(manifest.parameters, manifest.counts["fingerprints"])
    encoding_s = sum(ref.n_segments for ref in new) / ENCODED
    return min(len(new), int(NEAR_DUPLICATES_SHARE * encoding_s / search.duplicate_s(EXCERPT)))


def _uris(tracks: pa.Table, ordinals: set[int]) -> dict[int, str]:
    """The URI of each of these live tracks; of copies, the last."""
    wanted = pc.is_in(tracks["ordinal"], pa.array(sorted(ordinals), pa.int64()))
    some = tracks.select(["ordinal", "uri", "status"]).filter(wanted).to_pylist()
    return {row["ordinal"]: row["uri"] for row in some if row["status"] == "ok"}


def _search(
    spread: "AnySearch | None",
    root: str,
    manifest_json: bytes,
    new: list[TrackRef],
    until: float,
) -> tuple[int, list[dict]]:
    """How many were looked for before a time, in Unix seconds; rows with ordinals for URIs."""
    if time.time() >= until:
        return 0, []
    manifest = Manifest.from_json(manifest_json, root)
    search = spread or open_search(root, manifest, stride=1)
    excerpts = _excerpts(root, new)
    pairs: list[dict] = []
    for i in range(0, len(excerpts), _EXCERPTS_AT_ONCE):
        if time.time() >= until:
            return i, pairs
        pairs += _pairs(excerpts[i : i + _EXCERPTS_AT_ONCE], search, manifest.hop_s)
    return len(excerpts), pairs


def _excerpts(root: str, tracks: list[TrackRef]) -> list[tuple[int, int, np.ndarray]]:
    """Of the middle of each track: ordinal, first fingerprint, and float32 (segments, 128)."""
    files = sorted({ref.embedding_file for ref in tracks})
    file_T = np.array([files.index(ref.embedding_file) for ref in tracks])
    position_T = np.array([ref.embeddings_at for ref in tracks])
    count_T = np.array([ref.n_segments for ref in tracks])
    first_row_T = np.cumsum(count_T) - count_T
    vectors = StoredVectors(root, files, file_T, position_T, first_row_T, copied=False)
    first_T = np.maximum(0, (count_T - EXCERPT) // 2)
    after_T = np.minimum(count_T, first_T + EXCERPT)
    return [
        (ref.ordinal, first, vectors[row + np.arange(first, after)])
        for ref, row, first, after in zip(
            tracks, first_row_T, first_T.tolist(), after_T.tolist(), strict=True
        )
    ]


def _pairs(
    excerpts: list[tuple[int, int, np.ndarray]], search: Searcher, hop_s: float
) -> list[dict]:
    """Rows of DUPLICATE_SCHEMA with ordinals for URIs."""
    queries = [excerpt_MD for _, _, excerpt_MD in excerpts]
    found = find_matches(queries, search, change=0.0, effort=NEAR_DUPLICATES)
    return [
        {
            "track": ordinal,
            "track_start_s": (first + match.first) * hop_s,
            "same_as": match.ordinal,
            "same_as_start_s": (match.start + match.first) * hop_s,
            "score": match.score,
        }
        for (ordinal, first, _), matches in zip(excerpts, found, strict=True)
        for match in matches
        if match.ordinal != ordinal and match.score >= NEAR
    ]
