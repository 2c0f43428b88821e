"""Near duplicates are found with little of a large index, and only those that are near."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import vectors

from grafp.catalog.embeddings import EMBEDDING_SCHEMA, write_embeddings
from grafp.catalog.tracks import TrackRef
from grafp.index.size import EXCERPT, IndexParameters
from pipelines.indexing.duplicates import _excerpts, _pairs, affordable

COPIES = {100: 3, 101: 17, 102: 31}
"""Near duplicates, by the ordinal of what they are made of."""


def worse(track_ND: np.ndarray, noise: float, seed: int) -> np.ndarray:
    added = np.random.default_rng(seed).standard_normal(track_ND.shape)
    return vectors.unit(track_ND + noise * vectors.unit(added))


def test_near_duplicates_are_found_and_others_not() -> None:
    tracks = {n: vectors.on_grid(vectors.recording(400, n)) for n in range(40)}
    tracks |= {copy: worse(tracks[n], 0.4, copy) for copy, n in COPIES.items()}  # 0.93 alike
    tracks[200] = worse(tracks[5], 0.7, 200)  # 0.82 alike
    search = vectors.shards_of(tracks, 2, codec="PQ64x4fs")
    first = (400 - EXCERPT) // 2
    excerpts = [(n, first, track[first : first + EXCERPT]) for n, track in tracks.items()]
    pairs = _pairs(excerpts, search, 0.5)
    found = {(pair["track"], pair["same_as"]) for pair in pairs}
    assert found == {*COPIES.items(), *((n, copy) for copy, n in COPIES.items())}
    assert {pair["track_start_s"] for pair in pairs} == {0.5 * first}
    assert np.allclose([pair["same_as_start_s"] for pair in pairs], 0.5 * first, atol=0.25)


def test_by_default_few_tracks_are_looked_for_in_a_large_catalog() -> None:
    """As many as take a tenth of the time of encoding; of a small catalog, all."""

    def share(fingerprints: int) -> float:
        new = [TrackRef(n, "t", "e", 0, 2000, "") for n in range(1000)]
        index = IndexParameters.for_size(fingerprints)
        counts = {"fingerprints": fingerprints}
        return affordable(SimpleNamespace(parameters=index, counts=counts), new) / len(new)

    assert share(10**6) == share(10**9) == 1.0
    assert 0.0 < share(2 * 10**13) < share(10**13) < 1.0


def row(uri: str, track_ND: np.ndarray) -> dict[str, Any]:
    return {
        **dict.fromkeys(EMBEDDING_SCHEMA.names),
        "uri": uri, "track_id": uri, "n_segments": len(track_ND), "embeddings": track_ND,
    }  # fmt: skip


def test_excerpts_are_the_middles_of_tracks(tmp_path: Path) -> None:
    root, refs, wanted = str(tmp_path), [], {}
    for file in range(2):
        lengths = (EXCERPT + 11, 7, EXCERPT)
        tracks = [vectors.recording(n, n)[::10].astype(np.float16) for n in lengths]
        key, places = write_embeddings(
            root, "e", [row(f"{file} {n}", t) for n, t in enumerate(tracks)]
        )
        for n, (track_ND, place) in enumerate(zip(tracks, places, strict=True)):
            refs.append(TrackRef(10 * file + n, f"{file} {n}", key, place, len(track_ND), ""))
            first = max(0, (len(track_ND) - EXCERPT) // 2)
            wanted[10 * file + n] = first, track_ND[first : first + EXCERPT].astype(np.float32)
    found = _excerpts(root, refs)
    assert [ordinal for ordinal, _, _ in found] == list(wanted)
    for ordinal, first, excerpt_MD in found:
        assert first == wanted[ordinal][0]
        np.testing.assert_array_equal(excerpt_MD, wanted[ordinal][1])
