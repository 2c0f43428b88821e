"""What an owner may ask of an index: what it becomes, what is refused, what queries make of it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from vectors import clip, on_grid, recording, shards_of

from grafp.errors import OptionError
from grafp.index.alignment import CANDIDATES, NEIGHBORS, Effort, find_matches
from grafp.index.ivfpq import parse_index, train_index
from grafp.index.proposals import Alignments
from grafp.index.scoring import Match
from grafp.index.search import IndexSearch
from grafp.index.size import AUTOMATIC, IndexOptions, IndexParameters
from grafp.timeline.detection import find_detections

PAPER = IndexOptions(codec="PQ64", lists=256, neighbors=20)


@pytest.mark.parametrize("fingerprints", [300, 9_999, 10**6, 10**9])
def test_what_is_asked_for_does_not_depend_on_the_size(fingerprints: int) -> None:
    asked = IndexParameters.for_size(fingerprints, PAPER)
    assert (asked.codec, asked.nlist) == ("PQ64", 256)
    assert asked.training_points == min(fingerprints, 20_000)
    automatic = IndexParameters.for_size(fingerprints)
    assert IndexParameters.for_size(fingerprints, AUTOMATIC) == automatic
    only_codec = IndexParameters.for_size(fingerprints, IndexOptions(codec="PQ64"))
    assert only_codec == replace(automatic, codec="PQ64")
    many = IndexParameters.for_size(fingerprints, IndexOptions(lists=8192))
    assert many.training_points == min(fingerprints, 8192 * 78)


def test_lists_that_were_asked_for_stay_and_are_trained_again_with_more_points() -> None:
    large = IndexParameters.for_size(10**6, PAPER)
    assert not large.outgrown_by(10**9, PAPER)
    assert large.outgrown_by(10**9)
    small = IndexParameters.for_size(300, PAPER)
    assert not small.outgrown_by(1_199, PAPER)
    assert small.outgrown_by(1_200, PAPER)
    coded = IndexOptions(codec="SQfp16", lists=8)
    assert not IndexParameters.for_size(9_000, coded).outgrown_by(10**6, coded)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"codec": "PQ7"}, "--codec PQ7: not one of PQ64x4fs, PQ64, SQfp16"),
        ({"lists": 0}, "--lists 0: not a whole number of 1 to 16,777,216"),
        ({"candidates": -1}, "--candidates -1: not a whole number of 1 to 10,000"),
        ({"neighbors": 1001}, "--neighbors 1001: not a whole number of 1 to 1,000"),
        ({"lists": 8, "probes": 9}, "--probes 9: more than the 8 lists"),
    ],
)
def test_options_that_cannot_work_are_refused(values: dict, line: str) -> None:
    with pytest.raises(OptionError) as refused:
        IndexOptions(**values)
    assert str(refused.value) == line


def test_only_search_settings_change_later() -> None:
    trained = IndexParameters.for_size(1_000, PAPER)
    later = PAPER.given_later(IndexOptions(probes=8, neighbors=30), trained)
    assert later == replace(PAPER, probes=8, neighbors=30)
    assert PAPER.given_later(PAPER, trained) == PAPER
    assert PAPER.given_later(AUTOMATIC, trained) == PAPER
    # What an automatic index is already may be asked of it, and then stays.
    assert AUTOMATIC.given_later(IndexOptions(lists=256), trained) == IndexOptions(lists=256)
    assert AUTOMATIC.given_later(IndexOptions(lists=9), None) == IndexOptions(lists=9)
    end = "leave the option out, or use another --catalog"
    for given, line in {
        IndexOptions(codec="SQfp16"): f"--codec SQfp16: the catalog's index has PQ64; {end}",
        IndexOptions(lists=512): f"--lists 512: the catalog's index has 256; {end}",
        IndexOptions(probes=257): "--probes 257: more than the 256 lists",
    }.items():
        with pytest.raises(OptionError) as refused:
            AUTOMATIC.given_later(given, trained)
        assert str(refused.value) == line


@pytest.mark.parametrize(
    ("asked", "points", "line"),
    [
        (IndexOptions(lists=256), 200, "--lists 256: takes 256 fingerprints"),
        (IndexOptions(lists=1 << 24), 200, "--lists 16777216: takes 16,777,216 fingerprints"),
        (IndexOptions(codec="PQ64", lists=2), 200, "--codec PQ64: takes 256 fingerprints"),
        (IndexOptions(codec="PQ64x4fs", lists=2), 15, "--codec PQ64x4fs: takes 16 fingerprints"),
    ],
)
def test_too_few_fingerprints_to_train_are_refused(
    asked: IndexOptions, points: int, line: str
) -> None:
    sample_ND = np.random.default_rng(0).standard_normal((points, 128)).astype(np.float32)
    with pytest.raises(OptionError, match=line) as refused:
        train_index(sample_ND, IndexParameters.for_size(points, asked))
    assert f"the catalog has {points} that are not silent" in str(refused.value)


def test_the_papers_index_is_trained_on_what_it_takes_and_no_more() -> None:
    sample_ND = np.random.default_rng(0).standard_normal((256, 128)).astype(np.float32)
    index = parse_index(train_index(sample_ND, IndexParameters.for_size(256, PAPER)))
    assert (index.nlist, index.pq.M, index.pq.nbits) == (256, 64, 8)


class Counted(IndexSearch):
    """A search that keeps how many neighbors and proposals it was asked for."""

    def nearest(
        self, queries_QD: np.ndarray, k: int, nprobe: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        self.asked_neighbors = k
        return super().nearest(queries_QD, k, nprobe)

    def matches(self, asked: Sequence[Alignments], tried: int, change: float) -> list[list[Match]]:
        self.asked_candidates = max(len(one.start_C) for one in asked)
        return super().matches(asked, tried, change)


def test_queries_and_timelines_find_as_many_neighbors_and_score_as_many_candidates() -> None:
    tracks = {seed: recording(300, seed) for seed in range(4)}
    shards = shards_of({seed: on_grid(track) for seed, track in tracks.items()}, 2)
    query = clip(tracks[2], 100, 80, noise=0.5)
    found = {}
    for settings in ({}, {"neighbors": 5, "candidates": 3}):
        search = Counted(
            shards.quantizer, shards.lists, shards.tracks, effort=Effort(None, 32), **settings
        )
        # At the cataloged speed: other speeds have a few proposals of their own.
        [matches] = find_matches([query], search, change=0.0)
        assert matches[0].ordinal == 2
        counts = [(search.asked_neighbors, search.asked_candidates)]
        [detection] = find_detections(
            query, search, None, 0.1, lambda answer: answer.match.score >= 0.5, change=0.0
        )
        assert detection.ordinal == 2
        counts.append((search.asked_neighbors, search.asked_candidates))
        found[bool(settings)] = counts
    assert found[True] == [(5, 3)] * 2
    assert found[False] == [(NEIGHBORS, CANDIDATES)] * 2
