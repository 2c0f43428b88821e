"""The report of a query batch, from real recordings: what it reads once more, and what it bears."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import loads_nothing

from grafp.audio import SAMPLE_RATE, decode, encode, synthesis
from grafp.audio.speed import change_speed
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import read_fingerprints, read_part
from grafp.catalog.tracks import live_refs
from grafp.errors import CatalogError, StorageError, TooShortAudio
from grafp.evaluation.metrics import Answer
from grafp.reports import shown as shown_module
from grafp.reports.excerpts import LONGEST_S, Excerpt, Shown
from grafp.storage.sources import list_items, read_excerpt
from pipelines.common.apart import Apart
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import query_batch as query_job
from pipelines.querying.flow import query_batch

pytestmark = [pytest.mark.usefixtures("ray_here"), pytest.mark.slow]
EARLY_S, BEFORE_S, FAST = 2.0, 12.0, 1.04


@pytest.fixture(scope="module")
def tracks(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tracks of their own: tests remove their files."""
    folder = tmp_path_factory.mktemp("tracks")
    for path in sorted(music.iterdir())[:4]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def root(tracks: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> str:
    root = str(tmp_path_factory.mktemp("catalog"))
    index_catalog(str(tracks), root)
    return root


@pytest.fixture(scope="module")
def clips(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that begins before its track, a fast one, a long one, and one that is text."""
    folder = tmp_path_factory.mktemp("clips")
    one_S, two_S, three_S, _ = (decode(path.read_bytes()) for path in sorted(tracks.iterdir()))
    fast_S = change_speed(torch.from_numpy(two_S)[None], torch.tensor([[FAST]]), 0.0)[0].numpy()
    sounds = {
        "early": np.concatenate([0.01 * synthesis.noise(0, EARLY_S), one_S[:80_000]]),
        "fast": fast_S[32_000:112_000],
        "long": np.concatenate([0.01 * synthesis.noise(3, BEFORE_S), three_S]),
    }
    for name, samples_S in sounds.items():
        (folder / f"{name}.wav").write_bytes(encode(0.5 * samples_S, "wav"))
    (folder / "text.mp3").write_bytes(b"this is not music")
    return folder


@pytest.fixture(scope="module")
def shown(
    root: str, clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict, Shown]]:
    """The best answer to each clip, and what there is to see and to hear of it."""
    out = str(tmp_path_factory.mktemp("answers"))
    _, matches = query_batch(root, str(clips), out, encoders=Encoders(0))
    assert matches["matched"].to_pylist() == [True, False, True, False]  # "fast" is refused
    catalog, items = Catalog.open_published(root), list_items(str(clips))
    with Apart() as process:
        reader = shown_module.Reader(catalog, items, matches, process.call)
        return {Path(row["query"]).stem: (row, reader.shown(row)) for row in matches.to_pylist()}


def test_the_music_runs_beside_the_query(shown: dict[str, tuple[dict, Shown]]) -> None:
    """As long as the query at the speed that was found, and silent before it begins."""
    row, seen = shown["early"]
    assert len(seen.query.samples_S) == len(seen.track.samples_S) == 7 * SAMPLE_RATE
    assert seen.track.begin_s == pytest.approx(-EARLY_S, abs=0.1)
    assert not seen.track.samples_S[: round(1.8 * SAMPLE_RATE)].any()
    at = round((EARLY_S + 0.2) * SAMPLE_RATE)
    assert correlation(seen.query.samples_S[at:], seen.track.samples_S[at:]) > 0.9
    row, seen = shown["fast"]
    assert row["speed"] == pytest.approx(FAST, abs=0.005)
    seconds = len(seen.track.samples_S) / SAMPLE_RATE
    assert seconds == pytest.approx(5.0 * row["speed"], abs=1e-3)


def correlation(one_S: np.ndarray, other_S: np.ndarray) -> float:
    """The greatest within 50 ms."""
    lag = round(0.05 * SAMPLE_RATE)
    count = min(len(one_S), len(other_S)) - 2 * lag
    still_S = one_S[lag : lag + count]
    pairs = ((still_S, other_S[k : k + count]) for k in range(2 * lag))
    return max(float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs)


def test_of_a_long_query_the_part_that_was_found_is_shown(
    shown: dict[str, tuple[dict, Shown]],
) -> None:
    row, seen = shown["long"]
    assert row["query_start_s"] > BEFORE_S - 2
    assert seen.query.begin_s == row["query_start_s"]
    assert len(seen.query.samples_S) == round(LONGEST_S * SAMPLE_RATE)


@pytest.mark.parametrize("clip", ["early", "fast", "long"])
def test_the_line_runs_along_the_greatest_similarity(
    clip: str, shown: dict[str, tuple[dict, Shown]]
) -> None:
    row, seen = shown[clip]
    products_MN = seen.likeness.products_MN
    along = []
    for m, line_MN in enumerate(products_MN):
        query_s = seen.likeness.query_s + m * seen.likeness.query_hop_s
        if row["query_start_s"] <= query_s <= row["query_end_s"] - 1:
            track_s = row["track_start_s"] + row["speed"] * (query_s - row["query_start_s"])
            column = seen.likeness.share(query_s, track_s)[0] * products_MN.shape[1] - 0.5
            along.append(line_MN[round(min(column, products_MN.shape[1] - 1))])
    assert len(along) > 10
    assert np.mean(along) == pytest.approx(row["score"], abs=0.1)
    assert np.mean(along) > np.mean(products_MN) + 0.2


def test_of_a_wrong_answer_the_true_passage_can_be_heard(
    root: str, clips: Path, tracks: Path, shown: dict[str, tuple[dict, Shown]]
) -> None:
    """The music of another track, from the second that the truth says."""
    row, _ = shown["early"]
    other = sorted(tracks.iterdir())[3]
    gone = str(other.with_name("gone.wav"))
    catalog, items = Catalog.open_published(root), list_items(str(clips))
    with Apart() as process:
        reader = shown_module.Reader(catalog, items, None, process.call)
        reader._likeness = lambda *_: None

        def true_passage(track: str, start_s: float | None) -> Excerpt | None:
            answer = Answer(
                row["query"], row["track"], row["track_start_s"] - row["query_start_s"], 0.9, True,
                None, track, start_s, None,
            )  # fmt: skip
            return reader.shown(row, answer).truth

        truth = true_passage(str(other), 3.0)
        assert true_passage(str(other), None) is None  # only the track is known
        assert true_passage(gone, 3.0) is None
        assert true_passage(row["track"], row["track_start_s"] - row["query_start_s"]) is None
    assert truth is not None
    assert (truth.begin_s, truth.end_s) == (3.0, 10.0)
    assert np.array_equal(truth.samples_S, decode(other.read_bytes())[48_000:160_000])


def test_what_cannot_be_read_is_left_out(
    root: str, clips: Path, tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a job: text as a query, a track that is gone, one that crashes the decoder."""
    queries = tmp_path / "queries"
    shutil.copytree(clips, queries)
    gone, deadly = sorted(tracks.iterdir())[:2]
    kept = tmp_path / "kept"
    shutil.move(gone, kept)
    monkeypatch.setenv("DEADLY", deadly.name)
    monkeypatch.setattr(shown_module, "read_excerpt", crashes_on_the_deadly)
    out = tmp_path / "out"
    words = ["--catalog", root, "--queries", str(queries), "--out", str(out), "--report"]
    try:
        summary, code = query_job.main(query_job.options([*words, "--workers", "0"]))
    finally:
        shutil.move(kept, gone)
    assert (code, summary["matched"], summary["errors"]) == (0, 2, 1)
    assert not (out / "report.json").exists()
    html = (out / "report.html").read_text(encoding="utf-8")
    loads_nothing(html)
    assert html.count("<audio") == 3 + 1
    assert html.count("<svg") == 3
    assert html.count("The file of the track cannot be read here: ") == 2
    assert "the decoder crashes on it" in html
    assert "This query could not be used" in html
    assert (out / "report.html").stat().st_size < 4 * 150_000


def crashes_on_the_deadly(location: str, *rest: Any) -> np.ndarray:
    if location.endswith(os.environ["DEADLY"]):
        os._exit(1)
    return read_excerpt(location, *rest)


def test_an_excerpt_is_a_part_of_what_is_decoded(tracks: Path) -> None:
    path = sorted(tracks.iterdir())[0]
    whole_S = decode(path.read_bytes())

    def same(begin_s: float, seconds: float, first: int, last: int) -> bool:
        excerpt_S = read_excerpt(str(path), None, begin_s, seconds)
        return np.array_equal(excerpt_S, whole_S[first:last])

    assert same(0.0, 2.0, 0, 32_000)
    assert same(9.5, 2.0, 152_000, 184_000)  # across two chunks
    assert same(-1.0, 3.0, 0, 32_000)
    assert same(11.0, 5.0, 176_000, len(whole_S))
    with pytest.raises(TooShortAudio, match=r"ends before 20\.00 s"):
        read_excerpt(str(path), None, 20.0, 1.0)
    with pytest.raises(StorageError, match="nothing"):
        read_excerpt(str(tracks / "nothing.wav"), None, 0.0, 1.0)


def test_a_part_of_the_fingerprints_is_read_by_itself(root: str) -> None:
    refs = live_refs(Catalog.open_published(root).tracks()).values()
    for ref in refs:
        [(_, whole_ND)] = read_fingerprints(root, ref.embedding_file, [ref])
        part_ND = read_part(root, ref, range(3, 20))
        assert np.array_equal(part_ND, whole_ND[3:20])
    with pytest.raises(CatalogError, match="cut off"):
        read_part(root, refs[0], range(0, 1 << 20))
    with pytest.raises(CatalogError, match="cannot be read"):
        read_part(f"{root}-x", refs[0], range(3))
