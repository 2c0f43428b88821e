"""Effort by need, on synthetic catalogs: what is searched, and that answers stay as they are."""

from dataclasses import replace

import numpy as np
import pytest
from vectors import clip, on_grid, recording, shards_of, unit

from grafp.index.alignment import QUICK, Effort, find_matches
from grafp.index.evidence import NOTHING, Answer, identify, identify_by_need
from grafp.index.search import IndexSearch

TRACKS = 25


@pytest.fixture(scope="module")
def fine() -> dict[int, np.ndarray]:
    return {ordinal: recording(150, ordinal) for ordinal in range(TRACKS)}


@pytest.fixture
def catalog(fine: dict[int, np.ndarray]) -> IndexSearch:
    shards = shards_of({ordinal: on_grid(one) for ordinal, one in fine.items()})
    return replace(shards, effort=Effort.by_length(64))


def always(_: Answer) -> bool:
    return True


def never(_: Answer) -> bool:
    return False


@pytest.mark.parametrize(
    ("length", "effort", "rows", "lists"),
    [
        (41, Effort.by_length(64), 16, 64),
        (11, Effort.by_length(64), 11, 64),
        (3, Effort.by_length(64), 3, 171),
        (1, Effort.by_length(64), 1, 512),
        (41, Effort(None, 20), 41, 20),
        (1, Effort(None, 20), 1, 20),
        (41, QUICK, 6, 16),
    ],
)
def test_a_short_query_gets_more_lists_for_each_fingerprint(
    length: int, effort: Effort, rows: int, lists: int
) -> None:
    chosen = effort.rows(length)
    assert len(chosen) == rows
    assert (chosen[0], chosen[-1]) == (0, length - 1)
    assert effort.lists_each(length) == lists


def test_what_is_decisive_costs_a_small_part(
    fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    queries = [clip(fine[ordinal], 40.3, 41, noise=0.5) for ordinal in range(TRACKS)]
    quick = identify_by_need(queries, catalog, None, always, change=0.0)
    cost = catalog.spent.codes
    whole = identify(queries, catalog, [NOTHING] * TRACKS, change=0.0)
    assert [found[0].match.ordinal for found in quick] == list(range(TRACKS))
    assert [found[0].match for found in quick] == [found[0].match for found in whole]
    assert cost < 0.25 * (catalog.spent.codes - cost)


def test_what_is_not_decisive_is_searched_whole(
    fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    rng = np.random.default_rng(0)
    queries = [
        clip(fine[3], 40.3, 31, noise=1.2),
        clip(fine[4], 10.0, 4, noise=0.5),
        unit(rng.standard_normal((31, 128))).astype(np.float32),
        np.zeros((0, 128), np.float32),
    ]
    expected = identify(queries, catalog, [NOTHING] * 4, change=0.0)
    assert identify_by_need(queries, catalog, None, never, change=0.0) == expected
    assert identify_by_need([], catalog, None, never) == []


def test_a_query_too_short_for_less_is_searched_once(
    fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    query = clip(fine[4], 10.0, 6, noise=0.5)
    identify_by_need([query], catalog, None, always, change=0.0)
    by_need = catalog.spent.codes
    identify([query], catalog, [NOTHING], change=0.0)
    assert catalog.spent.codes == 2 * by_need


def test_all_copies_are_answers(fine: dict[int, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    tracks = {ordinal: on_grid(one) for ordinal, one in fine.items()}
    for copy in range(6):
        added = 0.25 * unit(rng.standard_normal(tracks[3].shape))
        tracks[1_000 + copy] = unit(tracks[3] + added)
    catalog = replace(shards_of(tracks), effort=Effort.by_length(64))
    [answers] = identify_by_need([clip(fine[3], 40.3, 41, noise=0.5)], catalog, None, always)
    assert {answer.match.ordinal for answer in answers} == {3, *range(1_000, 1_006)}


def test_queries_of_many_lengths_are_answered_as_each_alone(
    fine: dict[int, np.ndarray], catalog: IndexSearch
) -> None:
    queries = [clip(fine[n], 20.3, length, noise=0.5) for n, length in enumerate((1, 4, 11, 41, 4))]
    together = find_matches(queries, catalog, change=0.0)
    assert together == [find_matches([query], catalog, change=0.0)[0] for query in queries]
