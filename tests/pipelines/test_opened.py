"""A catalog opened in a notebook: the answers of the query job, without Ray."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from answers import assert_same

import grafp
from grafp.audio import SAMPLE_RATE, decode, encode, synthesis
from grafp.audio.degrade import cut_degraded
from grafp.catalog.catalog import Catalog
from grafp.errors import (
    AudioError,
    CatalogError,
    EmptyAudio,
    OptionError,
    TooShortAudio,
    UnreadableAudio,
)
from grafp.matches import MATCH_SCHEMA
from pipelines.indexing.flow import index_catalog
from pipelines.querying.flow import query_batch

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture(scope="module")
def root(music: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    root = tmp_path_factory.mktemp("opened")
    index_catalog(str(music), str(root))
    return root


@pytest.fixture(scope="module")
def opened(root: Path) -> grafp.OpenCatalog:
    return grafp.open_catalog(root)


@pytest.fixture(scope="module")
def clips(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A noisy clip of every track, and one of nothing."""
    folder = tmp_path_factory.mktemp("clips")
    for number, path in enumerate(sorted(music.iterdir())):
        clip_S = cut_degraded(
            decode(path.read_bytes()),
            20_000 + 1_000 * number,
            3.0,
            snr_db=10.0,
            noise_S=synthesis.noise(number, 3.0),
            rir_S=synthesis.impulse_response(1),
        )
        (folder / f"clip {number}.flac").write_bytes(encode(0.3 * clip_S, "flac"))
    (folder / "unknown.wav").write_bytes(encode(synthesis.piece(999, 3.0), "wav"))
    return folder


def test_it_answers_as_the_query_job_does(
    opened: grafp.OpenCatalog, root: Path, clips: Path, tmp_path: Path
) -> None:
    _, table = query_batch(str(root), str(clips), str(tmp_path))
    expected = {row["query"]: row for row in table.to_pylist() if row["rank"] == 1}
    assert len(expected) == len(opened) + 1 == 7
    for query, row in expected.items():
        found = opened.identify(query)
        assert found.table.schema == MATCH_SCHEMA
        assert_same(found.table, pa.Table.from_pylist([row], MATCH_SCHEMA))
        assert [match.track for match in found] == [row["track"]] * row["matched"]


def test_a_recording_may_be_a_path_its_bytes_or_samples(
    opened: grafp.OpenCatalog, clips: Path
) -> None:
    path = clips / "clip 2.flac"
    found = opened.identify(path)
    assert found.query == str(path)
    assert str(found).startswith(f"{path}: ")
    for recording in (str(path), path.read_bytes(), decode(path.read_bytes())):
        assert opened.identify(recording).matches == found.matches
    [match] = found
    assert match == found[0] == found.best
    assert match.matched
    assert match.track_start_s == pytest.approx(22_000 / SAMPLE_RATE, abs=0.06)
    assert found.table.to_pandas()["track"].tolist() == [match.track]


def test_what_is_not_in_the_catalog_has_no_match(opened: grafp.OpenCatalog, clips: Path) -> None:
    found = opened.identify(clips / "unknown.wav")
    assert (len(found), list(found), found.matches) == (0, [], ())
    assert "unknown.wav: not in the catalog" in str(found)
    assert found.table.to_pylist()[0]["matched"] is False
    silence = opened.identify(np.zeros(2 * SAMPLE_RATE, np.float32))
    assert (silence.best, str(silence)) == (None, "recording: not in the catalog")


def test_the_rule_of_acceptance_can_be_chosen(root: Path, clips: Path) -> None:
    clip = clips / "clip 1.flac"
    assert not grafp.open_catalog(root, min_score=0.999).identify(clip)
    [match] = grafp.open_catalog(root, min_score=-1.0).identify(clip)
    assert (match.threshold, match.matched) == (-1.0, True)
    with pytest.raises(
        CatalogError, match=r"give min_score \(--min-score\) instead of fpr"
    ):  # it has no calibration
        grafp.open_catalog(root, fpr=0.01)
    with pytest.raises(OptionError, match=r"fpr: 5 is not between 0\.0001 and 0\.1"):
        grafp.open_catalog(root, fpr=5)
    with pytest.raises(OptionError, match="top_k: 0 is not a whole number of 1 or more"):
        grafp.open_catalog(root, top_k=0)
    with pytest.raises(OptionError, match=r"max_speed_change: 5 is not between 0 and 0\.15"):
        grafp.open_catalog(root, max_speed_change=5)


def test_what_cannot_be_opened_or_read_is_one_line(
    opened: grafp.OpenCatalog, tmp_path: Path
) -> None:
    with pytest.raises(CatalogError, match="no catalog here"):
        grafp.open_catalog(tmp_path)
    with pytest.raises(UnreadableAudio):
        opened.identify(b"this is not music")


@pytest.mark.parametrize(
    ("samples", "kind", "reason"),
    [
        (np.zeros(0, np.float32), EmptyAudio, "no samples"),
        (np.ones(8_000, np.float32), TooShortAudio, "lasts 0.50 s; at least 1 s are needed"),
        (np.full(32_000, np.nan, np.float32), UnreadableAudio, "samples that are no numbers"),
        (np.ones((2, 32_000), np.float32), UnreadableAudio, "give 16 kHz mono as float32"),
        (np.ones(32_000, np.int16), UnreadableAudio, "int16 samples of shape (32000,)"),
    ],
)
def test_samples_that_are_no_recording_are_refused(
    samples: np.ndarray, kind: type[AudioError], reason: str, opened: grafp.OpenCatalog
) -> None:
    """Not "not in the catalog": that would be an answer."""
    with pytest.raises(kind) as error:
        opened.identify(samples)
    assert reason in str(error.value)


@pytest.mark.slow
def test_recordings_are_added_and_found_at_once(clips: Path, tmp_path: Path) -> None:
    """Where Ray is joined, over Ray; `test_in_process` has the same flow without."""
    music, root = tmp_path / "music", tmp_path / "catalog"
    music.mkdir()
    (music / "one.flac").write_bytes(encode(synthesis.piece(71, 8.0), "flac"))
    (music / "bad.mp3").write_bytes(b"this is not music")
    opened = grafp.index_catalog(music, root)
    new_S = synthesis.piece(72, 8.0)
    assert (len(opened), len(opened.identify(new_S[32_000:96_000]))) == (1, 0)
    (music / "two.flac").write_bytes(encode(new_S, "flac"))
    added = opened.add(music)
    assert (added.added, added.removed, added.tracks) == (1, 0, 2)
    assert list(added.failed) == [str(music / "bad.mp3")]
    assert str(added).startswith("1 added, 0 changed, 0 removed; 2 tracks in the catalog\n")
    [match] = opened.identify(new_S[32_000:96_000])
    assert match.track == str(music / "two.flac")
    one = tmp_path / "three.wav"
    one.write_bytes(encode(synthesis.piece(73, 8.0), "wav"))
    assert opened.add(one).tracks == len(opened) == 3
    (music / "one.flac").unlink()
    assert (opened.add(music).removed, len(opened)) == (1, 2)


def test_it_prints_briefly(opened: grafp.OpenCatalog, root: Path) -> None:
    manifest = Catalog.open_published(str(root)).manifest
    assert manifest
    assert repr(opened) == f"OpenCatalog({str(root)!r}, 6 tracks, snapshot {manifest.snapshot})"


def test_it_needs_no_ray(root: Path, clips: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = None; import grafp\n"
        "print(grafp.open_catalog(sys.argv[1]).identify(sys.argv[2])[0].track)"
    )
    command = [sys.executable, "-c", code, str(root), str(clips / "clip 0.flac")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
