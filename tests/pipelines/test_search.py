"""Shards on actors: answers do not depend on how a catalog is divided, nor on who holds it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import by_file, read_fingerprints
from grafp.catalog.manifest import Manifest
from grafp.catalog.opened import open_search
from grafp.catalog.tracks import live_refs
from grafp.errors import CatalogError
from grafp.index.alignment import find_matches
from pipelines.common import cli, parts
from pipelines.common.search import SpreadSearch
from pipelines.common.work import Encoders
from pipelines.indexing import build, maintain
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import query_batch

TRACKS = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> str:
    folder = tmp_path_factory.mktemp("search")
    for seed in range(TRACKS):
        storage.write(f"{folder}/music/{seed}.wav", encode(synthesis.piece(seed, 6.0), "wav"))
    index_catalog(f"{folder}/music", f"{folder}/catalog", encoders=Encoders(0))
    return f"{folder}/catalog"


def manifest_of(root: str) -> Manifest:
    manifest = Catalog.open_published(root).manifest
    assert manifest
    return manifest


@pytest.fixture(scope="module")
def divided(root: str) -> dict[int, Manifest]:
    """Snapshots of the same tracks in one shard, in three, and in a shard and seven layers more."""
    snapshots = {}
    for shards, most in ((1, 10**6), (3, 3 * 51)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "MAX_SHARD_FINGERPRINTS", most)
            maintain.maintain(root, retrain=True)
        snapshots[shards] = manifest_of(root)
        assert len(snapshots[shards].shards) == shards
    catalog = Catalog.open_published(root)
    live = list(live_refs(catalog.tracks().to_pylist()).values())
    trained = snapshots[1].trained_index
    layers = [build.build_layer(catalog, trained, [ref]) for ref in live]
    snapshots[TRACKS] = replace(snapshots[1], layers=layers)
    assert len({manifest.trained_index for manifest in snapshots.values()}) == 1
    return snapshots


@pytest.fixture(scope="module")
def queries(root: str, divided: dict[int, Manifest]) -> list[np.ndarray]:
    """Noisy excerpts of every track, and one of nothing."""
    [tracks] = open_search(root, divided[1]).tracks
    rng = np.random.default_rng(0)
    excerpts = [
        tracks.vectors_ND[np.arange(row + 10, row + 30)] + rng.normal(0, 0.06, (20, 128))
        for row in tracks.first_rows_T
    ]
    return [*(e.astype(np.float32) for e in excerpts), rng.normal(0, 0.1, (5, 128)).astype("f4")]


@pytest.mark.parametrize("decode", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_division_into_shards_and_actors_changes_the_answers(
    decode: bool, root: str, divided: dict[int, Manifest], queries: list[np.ndarray]
) -> None:
    answers = [find_matches(queries, open_search(root, divided[1], decode=decode), tried=3)]
    answers += [
        find_matches(
            queries, SpreadSearch(root, divided[shards], actors=actors, decode=decode), tried=3
        )
        for shards, actors in ((1, None), (3, 2), (TRACKS, 3))
    ]
    assert [matches[0].ordinal for matches in answers[0][:-1]] == list(range(TRACKS))
    assert answers[0] == answers[1] == answers[2] == answers[3]


@pytest.mark.parametrize("decode", [False, True])
def test_with_less_memory_than_the_index_takes_the_answers_are_the_same(
    decode: bool, root: str, divided: dict[int, Manifest], queries: list[np.ndarray]
) -> None:
    manifest = divided[3]
    memory = parts.loaded(manifest, decode) / 2
    search = SpreadSearch(root, manifest, memory=memory, decode=decode)
    assert search.streamed
    assert len(search._parts) == 4
    whole = find_matches(queries, open_search(root, manifest, decode=decode), tried=3)
    for _ in range(2):  # the second time from the last part to the first
        assert find_matches(queries, search, tried=3) == whole


def test_exact_fingerprints_are_those_of_the_embedding_files(
    root: str, divided: dict[int, Manifest]
) -> None:
    [tracks] = open_search(root, divided[1]).tracks
    refs = live_refs(Catalog.open_published(root).tracks().to_pylist())
    seen = 0
    for file, group in by_file(refs.values()).items():
        for ref, vectors_ND in read_fingerprints(root, file, group):
            first = tracks.first_rows_T[tracks.positions(np.array([ref.ordinal]))[0]]
            rows = first + np.arange(ref.n_segments)
            np.testing.assert_array_equal(tracks.vectors_ND[rows], vectors_ND.astype(np.float32))
            seen += 1
    assert seen == TRACKS


def test_each_actor_holds_its_own_lists_and_tracks_only(
    root: str, divided: dict[int, Manifest]
) -> None:
    manifest = divided[3]
    opened = [open_search(root, manifest, p) for p in parts.divided(root, manifest, 3, False)]
    tracks = np.concatenate([t.ordinals_T for one in opened for t in one.tracks])
    assert tracks.tolist() == list(range(TRACKS))
    held = [lists for one in opened for lists in one.lists]
    assert [number for lists in held for number in lists.lists] == list(range(held[-1].lists.stop))
    sizes = [sum(int(lists.sizes_L.sum()) for lists in one.lists) for one in opened]
    assert sum(sizes) == sum(entry.fingerprints for entry in manifest.shards)
    assert min(sizes) > 0


def test_a_shard_that_is_damaged_is_an_error_not_fewer_matches(
    root: str, divided: dict[int, Manifest], queries: list[np.ndarray], tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path / "copy")
    path = tmp_path / "copy" / divided[3].shards[1].codes.key
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(Exception, match="damaged") as caught:
        find_matches(queries, SpreadSearch(str(tmp_path / "copy"), divided[3], actors=3))
    assert isinstance(cli.known_error(caught.value), CatalogError)


def test_an_embedding_file_that_is_damaged_is_an_error_not_another_score(
    root: str, divided: dict[int, Manifest], queries: list[np.ndarray], tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path / "copy")
    for path in (tmp_path / "copy" / "embeddings").rglob("*.parquet"):
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole)
    with pytest.raises(CatalogError, match="damaged"):
        find_matches(queries, open_search(str(tmp_path / "copy"), divided[1]))


@pytest.mark.parametrize(
    "where", ["--search-memory 0.0001", pytest.param("--search-actors 3", marks=pytest.mark.slow)]
)
def test_the_job_answers_from_codes_of_several_actors_or_parts(
    where: str, root: str, divided: dict[int, Manifest], tmp_path: Path, capsys
) -> None:
    for seed in (2, 5):
        excerpt = synthesis.piece(seed, 6.0)[16_000:80_000]
        storage.write(f"{tmp_path}/clips/{seed}.wav", encode(excerpt, "wav"))
    options = ["--catalog", root, "--queries", f"{tmp_path}/clips", "--out", f"{tmp_path}/out"]
    options += ["--rerank", "pq", *where.split(), "--min-score", "0.8"]
    assert cli.run(query_batch.main, query_batch.options(options)) == 0
    said = capsys.readouterr().out
    assert '"matched": 2' in said.splitlines()[-1]
    assert ("parts for each batch" in said) == ("memory" in where)
