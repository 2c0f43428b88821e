"""What a job writes for Prometheus, when it is done and when it fails."""

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from grafp import storage
from grafp.audio import encode, synthesis
from pipelines.common import cli
from pipelines.jobs import index_catalog, merge_index

pytestmark = pytest.mark.usefixtures("ray_here")


def values(uri: str, job: str) -> dict[str, float]:
    """As Prometheus reads them."""
    families = text_string_to_metric_families(storage.read(uri).decode())
    found = {}
    for family in families:
        [sample] = family.samples
        assert sample.labels == {"job": job}
        found[sample.name.removeprefix("grafp_")] = sample.value
    return found


def run(job: Any, *words: str) -> int:
    return cli.run(job.main, job.options([*words]))


def test_a_job_leaves_its_numbers_and_the_time_of_its_last_success(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    music, root, file = (storage.join(store, name) for name in ("music", "catalog", "grafp.prom"))
    storage.write(f"{music}/0.wav", encode(synthesis.piece(0, 5.0), "wav"))
    words = ["--audio", music, "--catalog", root, "--workers", "0", "--metrics", file]
    assert run(index_catalog, *words) == cli.DONE
    first = values(file, "index_catalog")
    assert (first["exit_code"], first["summary_embedded"], first["summary_tracks"]) == (0, 1, 1)
    assert first["last_success_timestamp_seconds"] == first["finished_timestamp_seconds"]
    assert first["summary_index_recall"] == 1.0
    storage.write(f"{music}/1.wav", b"no music")
    assert run(index_catalog, *words, "--max-failures", "0") == cli.TOO_MANY_FAILURES
    second = values(file, "index_catalog")
    assert (second["exit_code"], second["summary_failed"]) == (3, 1)
    assert second["last_success_timestamp_seconds"] == first["last_success_timestamp_seconds"]
    storage.delete(f"{root}/CURRENT")
    storage.write(f"{root}/CURRENT", b"nothing\n")
    assert run(index_catalog, *words) == cli.FAILED
    third = values(file, "index_catalog")
    assert third["exit_code"] == cli.FAILED
    assert "summary_failed" not in third
    assert third["last_success_timestamp_seconds"] == first["last_success_timestamp_seconds"]
    assert re.search("^error: ", capsys.readouterr().err, re.MULTILINE)


def test_an_index_below_its_limit_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    music, root, file = (f"{tmp_path}/{name}" for name in ("music", "catalog", "grafp.prom"))
    storage.write(f"{music}/0.wav", encode(synthesis.piece(0, 5.0), "wav"))
    words = ["--audio", music, "--catalog", root, "--workers", "0", "--min-recall", "1.01"]
    with pytest.raises(SystemExit):
        run(index_catalog, *words)
    assert run(index_catalog, *words[:-1], "0.9") == cli.DONE
    code = index_catalog.exit_code({"failed": 0, "embedded": 5, "index_recall": 0.89}, "1%", 0.9)
    assert code == cli.INDEX_BELOW_LIMIT
    assert run(merge_index, "--catalog", root, "--workers", "0", "--metrics", file) == cli.DONE
    assert values(file, "merge_index")["summary_tracks"] == 1
