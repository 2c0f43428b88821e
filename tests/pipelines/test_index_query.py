"""The flows of indexing and querying: real Ray, real audio of every format, local disk and S3."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_runs import run_job

import grafp
from grafp import storage
from grafp.audio import SAMPLE_RATE, decode, encode, synthesis
from grafp.audio.degrade import cut_degraded
from grafp.catalog.catalog import Catalog
from grafp.errors import CatalogError, GrafpError, ModelError, OptionError, StorageError
from grafp.matches import MATCH_SCHEMA
from grafp.model.bundle import DEFAULT_MODEL, load_bundle, save_bundle
from grafp.model.encoder import Encoder
from grafp.model.presets import PRESETS
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import index_catalog as index_job
from pipelines.jobs import query_batch
from pipelines.querying.flow import query_batch as ask
from pipelines.querying.timeline import timeline_batch

pytestmark = pytest.mark.usefixtures("ray_here")


def upload(folder: Path, uri: str) -> str:
    """The same recordings under a URI of the store."""
    for path in folder.iterdir():
        storage.write(storage.join(uri, path.name), path.read_bytes())
    return uri


@pytest.fixture(scope="module")
def catalog(music: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> str:
    root = str(tmp_path_factory.mktemp("catalog"))
    index_catalog(str(music), root, encoders=Encoders(0))
    return root


def test_index_and_query_on_local_disk_and_s3(store: str, music: Path, capsys, tmp_path) -> None:
    audio = upload(music, storage.join(store, "music"))
    root, queries = storage.join(store, "catalog"), storage.join(store, "queries")
    storage.write(storage.join(audio, "cover.jpg"), b"a picture")
    code, summary, _ = run_job(index_job, capsys, "--audio", audio, "--catalog", root)
    storage.delete(storage.join(audio, "cover.jpg"))
    assert code == 0
    assert summary["ignored"] == {".jpg": 1}
    assert {k: summary[k] for k in ("added", "embedded", "failed", "tracks")} == {
        "added": 6, "embedded": 6, "failed": 0, "tracks": 6,
    }  # fmt: skip
    truth = [["query", "track", "start_s"]]
    for number, file in enumerate(storage.list_files(audio)):
        track_S = decode(storage.read(file.uri))
        start = 31_337 + 1_000 * number
        clip_S = cut_degraded(
            track_S,
            start,
            4.0,
            snr_db=10.0,
            noise_S=synthesis.noise(number, 4.0),
            rir_S=synthesis.impulse_response(1),
        )
        name = storage.join(queries, f"clip {number}.flac")
        storage.write(name, encode(0.3 * clip_S, "flac"))
        truth.append([name, file.uri, str(start / SAMPLE_RATE)])
    stranger = storage.join(queries, "unknown.wav")
    storage.write(stranger, encode(synthesis.piece(999, 4.0), "wav"))
    truth.append([stranger, "", ""])
    text = io.StringIO(newline="")
    csv.writer(text).writerows(truth)
    (tmp_path / "truth.csv").write_text(text.getvalue(), encoding="utf-8")
    out = storage.join(store, "answers")
    code, summary, _ = run_job(
        query_batch, capsys, "--catalog", root, "--queries", queries, "--out", out,
        "--truth", str(tmp_path / "truth.csv"),
    )  # fmt: skip
    assert code == 0
    assert summary["queries"] == 7
    assert summary["hit_track"]["hits"] == 6
    assert summary["hit_50ms"]["hits"] >= 5
    table = pq.read_table(io.BytesIO(storage.read(storage.join(out, "matches.parquet"))))
    assert table.schema == MATCH_SCHEMA
    refused = [row for row in table.to_pylist() if row["query"] == stranger]
    assert [row["matched"] for row in refused] == [False]
    assert json.loads(storage.read(storage.join(out, "report.json")))["queries"] == 7
    page = storage.read(storage.join(out, "report.html"))
    assert page.count(b"<audio") == 2 * 7  # each query, and the place where it was found
    assert page.count(b"<svg") == 7
    assert len(page) < 7 * 150_000


def test_bad_recordings_cost_their_own_row(tmp_path: Path, capsys) -> None:
    good_S = synthesis.piece(50, 6.0)
    files = {
        "good one é.mp3": encode(good_S, "mp3"),
        "low rate.wav": encode(good_S[::2], "wav", rate=8_000),
        "surround.flac": encode(
            np.stack([synthesis.piece(51, 3.0, 96_000)] * 6), "flac", rate=96_000, layout="5.1"
        ),
        "empty.mp3": b"",
        "text.mp3": b"this is not music\n" * 50,
        "truncated.flac": encode(good_S, "flac")[:20_000],
        "short.wav": encode(good_S[:4_800], "wav"),
        "silent.ogg": encode(np.zeros(48_000, np.float32), "ogg"),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / "music").mkdir(exist_ok=True)
        (tmp_path / "music" / name).write_bytes(data)
    audio, root = str(tmp_path / "music"), str(tmp_path / "catalog")
    code, summary, _ = run_job(index_job, capsys, "--audio", audio, "--catalog", root)
    assert code == cli.TOO_MANY_FAILURES
    assert summary["tracks"] == 3
    assert summary["failed"] == 5
    rows = {Path(row["uri"]).name: row for row in Catalog.open(root).tracks().to_pylist()}
    assert {
        name: rows[name]["error_kind"] for name in rows if rows[name]["status"] == "failed"
    } == {
        "empty.mp3": "empty",
        "text.mp3": "unreadable",
        "truncated.flac": "truncated",
        "short.wav": "too_short",
        "silent.ogg": "silent",
    }
    assert all(row["error"] for row in rows.values() if row["status"] == "failed")
    code, summary, _ = run_job(
        index_job, capsys, "--audio", audio, "--catalog", root, "--max-failures", "5"
    )
    assert (code, summary["retried"], summary["added"]) == (0, 5, 0)
    summary, table = ask(root, audio, str(tmp_path / "answers"))
    assert (summary["queries"], summary["errors"]) == (8, 5)
    for row in table.to_pylist():
        if row["error"] is None:
            assert row["matched"]
            assert row["score"] > 0.9
            assert row["track_start_s"] == pytest.approx(0.0, abs=0.05)
        else:
            assert row["track"] is None


@pytest.mark.slow
def test_a_second_night_does_only_the_new_work(tmp_path: Path, music: Path) -> None:
    audio, root = upload(music, str(tmp_path / "music")), str(tmp_path / "catalog")
    first = index_catalog(audio, root)
    again = index_catalog(audio, root)
    assert again["snapshot"] == first["snapshot"]
    assert again["embedded"] == 0
    names = sorted(Path(audio).iterdir())
    gone, changed = names[0], names[1]
    old_S, gone_S = decode(changed.read_bytes()), decode(gone.read_bytes())
    gone.unlink()
    changed.write_bytes(encode(synthesis.piece(70, 9.0), changed.suffix[1:]))
    (Path(audio) / "new.wav").write_bytes(encode(synthesis.piece(71, 9.0), "wav"))
    second = index_catalog(audio, root)
    counts = [second[name] for name in ("added", "changed", "withdrawn", "embedded", "tracks")]
    assert counts == [1, 1, 1, 2, 6]
    manifest = Catalog.open(root).manifest
    assert manifest is not None
    assert manifest.parent == first["snapshot"]
    for name, samples_S in {"old": old_S, "gone": gone_S, "new": synthesis.piece(71, 9.0)}.items():
        (tmp_path / "queries").mkdir(exist_ok=True)
        (tmp_path / "queries" / f"{name}.wav").write_bytes(encode(samples_S[8_000:80_000], "wav"))
    _, table = ask(root, str(tmp_path / "queries"), str(tmp_path / "answers"))
    matched = {Path(row["query"]).stem: row["track"] for row in table.to_pylist() if row["matched"]}
    assert matched == {"new": str(Path(audio) / "new.wav")}


@pytest.mark.slow
def test_one_track_is_a_catalog(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "only.wav").write_bytes(encode(synthesis.piece(5, 3.0), "wav"))
    root = str(tmp_path / "catalog")
    assert index_catalog(str(tmp_path / "music"), root)["tracks"] == 1
    summary, table = ask(root, str(tmp_path / "music"), str(tmp_path / "answers"), top_k=3)
    assert summary["matched"] == 1
    assert table.num_rows == 1


@pytest.mark.slow
def test_queries_timelines_and_locate_have_the_offset_correction(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "only.wav").write_bytes(encode(synthesis.piece(5, 12.0), "wav"))
    (tmp_path / "clip").mkdir()
    clip_S = synthesis.piece(5, 12.0)[32_000:128_000]
    (tmp_path / "clip" / "clip.wav").write_bytes(encode(clip_S, "wav"))
    bundle, root = str(tmp_path / "model"), str(tmp_path / "catalog")
    card = {"preset": "small", "offset_correction_s": -0.1}
    save_bundle(bundle, load_bundle(DEFAULT_MODEL).encoder, card)
    index_catalog(str(tmp_path / "music"), root, model=bundle)
    _, table = ask(root, str(tmp_path / "clip"), str(tmp_path / "answers"))
    assert table["track_start_s"].to_pylist() == pytest.approx([2.1], abs=0.02)
    _, plays = timeline_batch(root, str(tmp_path / "clip"), str(tmp_path / "timeline"))
    [row] = plays.to_pylist()
    assert row["track_start_s"] - row["query_start_s"] == pytest.approx(2.1, abs=0.02)
    model = grafp.load_model(bundle)
    files = ("music/only.wav", "clip/clip.wav")
    song, clip = (model.fingerprint(str(tmp_path / name)) for name in files)
    located = grafp.locate(clip, song, model=model)
    assert located is not None
    assert located.start_s == pytest.approx(table["track_start_s"][0].as_py(), abs=0.002)


def test_dry_run_writes_nothing(tmp_path: Path, music: Path, capsys) -> None:
    root = tmp_path / "catalog"
    code, summary, _ = run_job(
        index_job, capsys, "--audio", str(music), "--catalog", str(root), "--dry-run"
    )
    assert (code, summary["added"], root.exists()) == (0, 6, False)


def test_a_model_that_does_not_fit_is_refused(catalog: str, music: Path, tmp_path: Path) -> None:
    other = str(tmp_path / "model")
    save_bundle(other, Encoder(PRESETS["small"]), {"preset": "small"})
    before = storage.read(f"{catalog}/CURRENT")
    with pytest.raises(ModelError, match=load_bundle(DEFAULT_MODEL).model_id):
        index_catalog(str(music), catalog, model=other)
    assert storage.read(f"{catalog}/CURRENT") == before


@pytest.mark.parametrize(
    ("asked", "queries", "error"),
    [
        ("nowhere", "music", CatalogError),
        ("catalog", "nowhere", StorageError),
        ("s3://no-such-bucket/catalog", "music", GrafpError),
    ],
)
def test_query_errors_are_one_line_and_write_nothing(
    asked: str, queries: str, error: type, catalog: str, music: Path, tmp_path, capsys, s3: str
) -> None:
    places = {"catalog": catalog, "music": str(music), "nowhere": str(tmp_path / "nowhere")}
    out = tmp_path / "answers"
    with pytest.raises(error):
        ask(places.get(asked, asked), places[queries], str(out))
    code, _, stderr = run_job(
        query_batch, capsys, "--catalog", places.get(asked, asked),
        "--queries", places[queries], "--out", str(out),
    )  # fmt: skip
    assert code == cli.FAILED
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert not out.exists()


def test_wrong_credentials_are_one_line_without_the_secret(
    s3: str, music: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    code, _, stderr = run_job(
        index_job, capsys, "--audio", f"{s3}/music", "--catalog", f"{s3}/denied"
    )
    assert code == cli.FAILED
    assert "access denied" in stderr
    assert "not-the-secret" not in stderr
    assert stderr.count("\n") == 1


def test_newer_and_damaged_catalogs_are_refused(catalog: str, music: Path, tmp_path) -> None:
    root = str(tmp_path / "copy")
    shutil.copytree(catalog, root)
    snapshot = storage.read(f"{root}/CURRENT").decode().strip()
    manifest = json.loads(storage.read(f"{root}/snapshots/{snapshot}.json"))
    shard = f"{root}/{manifest['layers'][0]['shards'][0]['codes']['key']}"
    whole = storage.read(shard)
    for damage in (whole[:-100], bytes(100) + whole[100:]):
        storage.write(shard, damage)
        with pytest.raises(Exception, match="damaged") as raised:
            ask(root, str(music), str(tmp_path / "out"))
        assert isinstance(cli.known_error(raised.value), CatalogError)
    storage.write(shard, whole)
    manifest["trained_index"]["key"] = "index/other/trained.faiss"
    storage.write(f"{root}/snapshots/{snapshot}.json", json.dumps(manifest).encode())
    with pytest.raises(CatalogError, match="another trained"):
        ask(root, str(music), str(tmp_path / "out"))
    storage.write(
        f"{root}/snapshots/{snapshot}.json", json.dumps(manifest | {"format_version": 99}).encode()
    )
    with pytest.raises(CatalogError, match="format 99"):
        ask(root, str(music), str(tmp_path / "out"))


def test_truth_must_name_every_query(catalog: str, music: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "truth.csv").write_text("query,track,start_s\n")
    code, _, stderr = run_job(
        query_batch, capsys, "--catalog", catalog, "--queries", str(music),
        "--out", str(tmp_path / "out"), "--truth", str(tmp_path / "truth.csv"),
    )  # fmt: skip
    assert code == cli.BAD_ARGUMENTS
    assert "no line for the query" in stderr


@pytest.mark.slow
def test_a_table_of_paths_keeps_the_names_it_gives(music: Path, tmp_path: Path, catalog) -> None:
    names = sorted(path.name for path in music.iterdir())[:2]
    table = music.parent / "list.csv"
    table.write_text("path\n" + "\n".join(f"{music.name}/{name}" for name in names))
    _, matches = ask(catalog, str(table), str(tmp_path / "out"))
    assert matches["query"].to_pylist() == [f"{music.name}/{name}" for name in names]
    assert matches["matched"].to_pylist() == [True, True]


def test_no_audio_is_a_clear_option_error(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name\nx.wav\n")
    with pytest.raises(OptionError, match="path or uri"):
        index_catalog(str(tmp_path / "list.csv"), str(tmp_path / "catalog"))
