"""Shards on actors: answers do not depend on how a catalog is divided, nor on who holds it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.catalog.manifest import Manifest
from grafp.catalog.shard_files import open_shards
from grafp.errors import CatalogError
from grafp.index.alignment import find_matches
from jobs import query_batch
from pipelines.common import cli
from pipelines.common.placement import Encoders
from pipelines.common.search import SpreadSearch
from pipelines.indexing import build, maintain
from pipelines.indexing.flow import index_catalog

TRACKS = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> str:
    folder = tmp_path_factory.mktemp("search")
    for seed in range(TRACKS):
        storage.write(f"{folder}/music/{seed}.wav", encode(synthesis.piece(seed, 6.0), "wav"))
    index_catalog(f"{folder}/music", f"{folder}/catalog", encoders=Encoders(1))
    return f"{folder}/catalog"


@pytest.fixture(scope="module")
def divided(root: str) -> dict[int, Manifest]:
    """Snapshots of the same tracks in one, three and eight shards of one trained index."""
    snapshots = {}
    for shards, most in ((1, 10**6), (3, 3 * 51), (TRACKS, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "MAX_SHARD_FINGERPRINTS", most)
            maintain.maintain(root, retrain=True)
        manifest = Catalog.open_published(root).manifest
        assert manifest
        assert len(manifest.shards) == shards
        snapshots[shards] = manifest
    assert len({manifest.trained_index for manifest in snapshots.values()}) == 1
    return snapshots


@pytest.fixture(scope="module")
def queries(root: str, divided: dict[int, Manifest]) -> list[np.ndarray]:
    """Noisy excerpts of every track, and one of nothing."""
    [shard] = open_shards(root, divided[1])
    rng = np.random.default_rng(0)
    excerpts = [
        shard.vectors_ND[row + 10 : row + 30] + rng.normal(0, 0.06, (20, 128))
        for row in shard.first_rows_T
    ]
    return [*(e.astype(np.float32) for e in excerpts), rng.normal(0, 0.1, (5, 128)).astype("f4")]


@pytest.mark.parametrize("decode", [False, True])
def test_no_division_into_shards_and_actors_changes_the_answers(
    decode: bool, root: str, divided: dict[int, Manifest], queries: list[np.ndarray]
) -> None:
    answers = [
        find_matches(
            queries, SpreadSearch(root, divided[shards], actors=actors, decode=decode), tried=3
        )
        for shards, actors in ((1, None), (3, 2), (TRACKS, 3))
    ]
    assert [matches[0].ordinal for matches in answers[0][:-1]] == list(range(TRACKS))
    assert answers[0] == answers[1] == answers[2]


def test_each_actor_holds_its_own_shards_only(root: str, divided: dict[int, Manifest]) -> None:
    manifest = divided[3]
    parts = [open_shards(root, manifest, only=[entry.shard_id]) for entry in manifest.shards]
    held = np.concatenate([part.ordinals_T for [part] in parts])
    assert sorted(held.tolist()) == list(range(TRACKS))


def test_a_shard_that_is_missing_in_mid_search_is_an_error_not_fewer_matches(
    root: str, divided: dict[int, Manifest], queries: list[np.ndarray]
) -> None:
    broken = replace(
        divided[3].shards[1], index=replace(divided[3].shards[1].index, sha256="0" * 64)
    )
    manifest = replace(divided[3], shards=[divided[3].shards[0], broken, divided[3].shards[2]])
    with pytest.raises(Exception, match="hash differs") as caught:
        find_matches(queries, SpreadSearch(root, manifest, actors=3))
    assert isinstance(cli.known_error(caught.value), CatalogError)


def test_the_job_answers_from_codes_and_several_actors(
    root: str, divided: dict[int, Manifest], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for seed in (2, 5):
        excerpt = synthesis.piece(seed, 6.0)[16_000:80_000]
        storage.write(f"{tmp_path}/clips/{seed}.wav", encode(excerpt, "wav"))
    options = ["--catalog", root, "--queries", f"{tmp_path}/clips", "--out", f"{tmp_path}/out"]
    options += ["--rerank", "pq", "--search-actors", "3", "--min-score", "0.8"]
    assert cli.run(query_batch.main, query_batch.options(options)) == 0
    assert '"matched": 2' in capsys.readouterr().out.splitlines()[-1]
