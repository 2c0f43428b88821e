"""Near duplicates: the same recording in another encoding, found with the index, and reported."""

import numpy as np
import pyarrow as pa
import ray

from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import read_fingerprints
from grafp.catalog.manifest import Manifest
from grafp.catalog.opened import open_search
from grafp.catalog.tracks import Row, TrackRef
from grafp.index.alignment import find_matches
from grafp.index.size import EXCERPT
from grafp.storage.tables import table_of, to_parquet
from pipelines.common.search import SpreadSearch, is_small

NEAR = 0.9
"""Mean inner product from which an excerpt of another track counts as the same recording."""
_TRACKS_A_TASK = 500
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


def near_duplicates(
    catalog: Catalog, manifest: Manifest, table: list[Row], new: list[TrackRef]
) -> list[dict]:
    """For each new track the other track, if any, that an excerpt of it also matches, see `NEAR`.

    Returns rows of DUPLICATE_SCHEMA.
    """
    uris = {row["ordinal"]: row["uri"] for row in table if row["status"] == "ok"}
    new = sorted(new, key=lambda ref: ref.embedding_file)
    if not new or len(uris) < 2:
        return []
    search = None if is_small(manifest) else SpreadSearch(catalog.root, manifest, stride=1)
    work = [
        _search.remote(search, catalog.root, manifest.to_json(), new[i : i + _TRACKS_A_TASK])
        for i in range(0, len(new), _TRACKS_A_TASK)
    ]
    found = [
        {**pair, "track": uris[pair["track"]], "same_as": uris[pair["same_as"]]}
        for pairs in ray.get(work)
        for pair in pairs
    ]
    return sorted(found, key=lambda pair: (pair["track"], pair["same_as"]))


@ray.remote(num_cpus=0.5)
def _search(
    spread: SpreadSearch | None, root: str, manifest_json: bytes, new: list[TrackRef]
) -> list[dict]:
    manifest = Manifest.from_json(manifest_json, root)
    search = spread or open_search(root, manifest, stride=1)
    pairs = []
    for key in sorted({ref.embedding_file for ref in new}):
        group = [ref for ref in new if ref.embedding_file == key]
        for ref, vectors_ND in read_fingerprints(root, key, group):
            first = max(0, (len(vectors_ND) - EXCERPT) // 2)
            excerpt_MD = vectors_ND[first : first + EXCERPT].astype(np.float32)
            for match in find_matches([excerpt_MD], search, tried=2, change=0.0)[0]:
                if match.ordinal != ref.ordinal and match.score >= NEAR:
                    pairs.append(
                        {
                            "track": ref.ordinal,
                            "track_start_s": (first + match.first) * manifest.hop_s,
                            "same_as": match.ordinal,
                            "same_as_start_s": (match.start + match.first) * manifest.hop_s,
                            "score": match.score,
                        }
                    )
    return pairs
