"""Batches of queries that are killed: the next run goes on, and each query is answered once.

GRAFP_KILLS sets how often, as in test_kill.
"""

import os
from pathlib import Path

import kills
import numpy as np
import pyarrow as pa
import pytest
import ray
from kills import Moment

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.matches import unmatched
from grafp.storage.tables import from_parquet
from jobs import query_batch as query_job
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.querying import unfinished
from pipelines.querying.flow import query_batch

KILLS = (int(os.environ.get("GRAFP_KILLS", "1")) + 1) // 2
QUERIES = 360
MOMENTS = (
    Moment("answers kept", written="unfinished/*.parquet"),
    kills.ANY_TIME,
    Moment("matches written", written="matches.parquet"),
)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """A catalog, clips of its music, and all answers."""
    folder = tmp_path_factory.mktemp("batch")
    rng = np.random.default_rng(0)
    for seed in range(6):
        piece = synthesis.piece(seed, 20.0)
        storage.write(f"{folder}/music/{seed}.wav", encode(piece, "wav"))
        for number in range(QUERIES // 6):
            first = int(rng.integers(len(piece) - 48_000))
            clip = encode(piece[first : first + 48_000], "wav")
            storage.write(f"{folder}/clips/{seed}-{number}.wav", clip)
    index_catalog(f"{folder}/music", f"{folder}/catalog", encoders=Encoders(0))
    answer(folder, folder / "undisturbed")
    return folder


def answer(folder: Path, out: Path) -> pa.Table:
    queries, encoders = f"{folder}/clips", Encoders(1)
    return query_batch(f"{folder}/catalog", queries, str(out), encoders=encoders)[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_batch_goes_on_and_answers_each_query_once(
    number: int, batch: Path, tmp_path: Path, record_property, caplog: pytest.LogCaptureFixture
) -> None:
    out, moment = tmp_path / "out", MOMENTS[number % len(MOMENTS)]
    run = kills.start(
        query_job.__file__,
        *("--catalog", f"{batch}/catalog", "--queries", f"{batch}/clips"),
        *("--out", str(out), "--workers", "1"),
        output=tmp_path / "output.txt",
        RAY_ADDRESS=ray.get_runtime_context().gcs_address,
    )
    in_time = kills.wait_for(moment, run, str(out), tmp_path / "output.txt")
    run.kill()
    run.communicate()
    kept = len(list(out.rglob("unfinished/*/*.parquet")))
    with caplog.at_level("INFO"):
        table = answer(batch, out)
    assert ("answered by a run that was interrupted" in caplog.text) == (kept > 0)
    if moment is MOMENTS[0] and in_time:
        assert kept
    assert table.num_rows == QUERIES
    assert table.equals(answers_of(batch / "undisturbed"))
    assert answers_of(out).equals(table)
    assert not list(out.rglob("unfinished/*/*"))
    record_property("kill", (moment.name if in_time else "too late", 0, 0, 0))


def answers_of(out: Path) -> pa.Table:
    return from_parquet(storage.read(f"{out}/matches.parquet"))


def test_another_list_or_another_option_begins_anew(tmp_path: Path) -> None:
    kept = unfinished.Unfinished(str(tmp_path), ["a job"])
    assert not kept.done
    row = unmatched("clip.wav", 3.0, 0.5, None)
    kept._written -= 60
    kept.add([row | {"number": 3, "codes_scanned": 1.0, "search_seconds": 0.1}])
    assert unfinished.Unfinished(str(tmp_path), ["a job"]).done == {3}
    assert not unfinished.Unfinished(str(tmp_path), ["another job"]).done
    assert unfinished.Unfinished(str(tmp_path), ["a job"]).table().num_rows == 1
