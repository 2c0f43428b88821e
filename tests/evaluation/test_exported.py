"""Exported fingerprints: both layouts are read, and what is wrong is one line that names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from exports import write_memory_map, write_settings, write_table, write_tables
from vectors import unit

from grafp import storage
from grafp.errors import OptionError
from grafp.evaluation.exported.arrays import UNDIVIDED
from grafp.evaluation.exported.common import Query, Settings, placed
from grafp.evaluation.exported.reader import open_export

SECONDS = [1.0, 2.0]


def made_up(count: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, 128)))


TRACKS = {"a": made_up(30, 1), "b": made_up(20, 2)}


def asked(**changes: Any) -> dict[str, Any]:
    query = {"query": "q", "vectors": TRACKS["a"][5:16], "track": "a", "start_s": 0.5}
    return query | {"snr_db": 10.0, "reverb": False} | changes


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    unknown = asked(query="other", vectors=made_up(1, 3), track=None, start_s=None, reverb=True)
    write_tables(tmp_path / "tables", TRACKS, [asked(), unknown])
    write_settings(tmp_path / "tables")
    return tmp_path / "tables"


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    folder = tmp_path / "arrays"
    db_ND = np.concatenate(list(TRACKS.values()))
    write_memory_map(folder, "db", db_ND)
    write_memory_map(folder, "query", unit(db_ND + 0.01 * made_up(50, 4)))
    write_memory_map(folder, "dummy_db", made_up(8, 5))
    (folder / "db_tracks.csv").write_text("track,fingerprints\na,30\nb,20\n")
    write_settings(folder, snr_db=5, reverb=True)
    return folder


def everything(folder: Path) -> tuple[dict[str, np.ndarray], list[Query]]:
    export = open_export(str(folder))
    tracks, queries = dict(export.tracks()), export.queries(SECONDS, 10, 0)
    sizes = {name: len(vectors) for name, vectors in tracks.items()}
    return tracks, placed(str(folder), queries, sizes, export.settings.hop_s)


def test_tables_are_read(tables: Path) -> None:
    tracks, queries = everything(tables)
    assert tracks.keys() == TRACKS.keys()
    for name, vectors in tracks.items():
        assert vectors.dtype == np.float16
        assert vectors == pytest.approx(TRACKS[name], abs=1e-3)
    known, other = queries
    assert (known.name, known.track, known.start_s) == ("q", "a", 0.5)
    assert (known.clip.seconds, known.clip.snr_db, known.clip.reverb) == (2.0, 10.0, False)
    assert known.clip.position == pytest.approx(0.5 / 3.9)
    assert known.vectors_MD == pytest.approx(TRACKS["a"][5:16], abs=1e-3)
    assert (other.track, other.start_s) == (None, None)
    assert (other.clip.seconds, other.clip.reverb) == (1.0, True)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.float64(), 128)),
        pa.large_list(pa.list_(pa.float16())),
        pa.list_(pa.list_(pa.float16(), 128)),
    ],
    ids=str,
)
def test_vectors_may_have_any_list_type_of_arrow(kind: pa.DataType, tables: Path) -> None:
    number = np.float16 if "half" in str(kind) else np.float64
    rows = [{"track": name, "vectors": v.astype(number)} for name, v in TRACKS.items()]
    write_table(tables / "tracks.parquet", rows, vectors=kind)
    assert everything(tables)[0]["b"] == pytest.approx(TRACKS["b"], abs=1e-3)


def test_tables_on_s3_are_read(s3: str, tables: Path) -> None:
    prefix = f"{s3}/exported"
    for path in tables.iterdir():
        storage.write(f"{prefix}/{path.name}", path.read_bytes())
    assert dict(open_export(prefix).tracks())["a"] == pytest.approx(TRACKS["a"], abs=1e-3)


def test_arrays_of_the_official_code_are_read(arrays: Path) -> None:
    tracks, queries = everything(arrays)
    assert {name: len(vectors) for name, vectors in tracks.items()} == {
        "a": 30, "b": 20, "dummy_db 0": 8,
    }  # fmt: skip
    assert len(queries) == 10 * len(SECONDS)
    starts = {(query.track, query.start_s) for query in queries}
    assert len(starts) == 10
    for query in queries:
        assert query.track
        assert query.start_s is not None
        assert query.clip.seconds in SECONDS
        assert len(query.vectors_MD) == {1.0: 1, 2.0: 11}[query.clip.seconds]
        first = round(query.start_s * 10)
        own = TRACKS[query.track][first : first + len(query.vectors_MD)]
        assert len(own) == len(query.vectors_MD)  # it does not cross into the next track
        assert query.vectors_MD == pytest.approx(own, abs=0.02)
        assert (query.clip.snr_db, query.clip.reverb) == (5.0, True)
    again = everything(arrays)[1]
    assert [query.name for query in again] == [query.name for query in queries]


def test_npy_arrays_are_read_and_what_an_evaluation_appended_is_not(arrays: Path) -> None:
    np.save(arrays / "db.npy", np.concatenate(list(TRACKS.values())))
    (arrays / "db.mm").unlink()
    with (arrays / "dummy_db.mm").open("ab") as file:  # as eval.py of the official code does
        file.write(made_up(50, 6).tobytes())
    tracks, _ = everything(arrays)
    assert len(tracks["dummy_db 0"]) == 8
    assert tracks["b"] == pytest.approx(TRACKS["b"], abs=1e-3)


def test_an_array_without_a_table_of_tracks_is_cut_into_parts(arrays: Path) -> None:
    (arrays / "db_tracks.csv").unlink()
    long_ND = np.resize(made_up(64, 7), (UNDIVIDED + 5, 128))
    write_memory_map(arrays, "dummy_db", long_ND)
    tracks, _ = everything(arrays)
    sizes = {name: len(vectors) for name, vectors in tracks.items()}
    assert sizes == {"db 0": 50, "dummy_db 0": UNDIVIDED, "dummy_db 1": 5}


NAN = np.where(np.arange(11)[:, None] == 4, np.nan, TRACKS["a"][:11])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"track": "c"}, "queries.parquet, query q: its track c is not in tracks.parquet; leave"),
        ({"start_s": 30.0}, "query q begins at 30 s, but its track a ends at 3.9 s"),
        ({"start_s": -1.0}, "query q: start_s is -1; a query begins within its track"),
        ({"start_s": float("nan")}, "query q: start_s is nan, not a number"),
        (
            {"vectors": NAN},
            "query q: fingerprint 4 has NaN or an infinite number; silence is zeros",
        ),
        ({"vectors": 3 * TRACKS["a"]}, "query q: fingerprint 0 has the length 3; divide each"),
        ({"vectors": TRACKS["a"][:, :64]}, "query q: a fingerprint of 64 numbers; all have 128"),
        ({"vectors": []}, "query q: has no fingerprints"),
        ({"vectors": None}, "query q: has no fingerprints"),
        ({"snr_db": None}, "query q: needs snr_db (a number of dB) and reverb"),
    ],
)
def test_a_wrong_query_is_named(changes: dict[str, Any], reason: str, tables: Path) -> None:
    types = {"snr_db": pa.float64(), "start_s": pa.float64()}
    write_table(tables / "queries.parquet", [asked(**changes)], **types)
    refused(tables, reason)


def refused(folder: Path, reason: str) -> None:
    with pytest.raises(OptionError) as error:
        everything(folder)
    text = str(error.value)
    assert text.startswith("--embeddings ")
    assert reason in text
    assert "\n" not in text


def rewrite(rows: list[dict[str, Any]], **types: pa.DataType) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_table(folder / "tracks.parquet", rows, **types)

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda f: (f / "embeddings.json").unlink(),
            'embeddings.json: missing; it has at least the hop, such as {"hop_s": 0.1}',
        ),
        (lambda f: (f / "embeddings.json").write_text("{}"), "embeddings.json: damaged (hop_s"),
        (lambda f: write_settings(f, hop_s=-1), "embeddings.json: hop_s: -1 is not above 0"),
        (
            lambda f: write_settings(f, hop_s=0.5, query_hop_s=0.2),
            "query_hop_s: 0.2 is not hop_s (0.5) or a whole part",
        ),
        (lambda f: write_settings(f, hop_s="0.1"), "embeddings.json: damaged (hop_s"),
        (lambda f: (f / "tracks.parquet").unlink(), "tracks.parquet: missing"),
        (lambda f: (f / "queries.parquet").unlink(), "queries.parquet: missing"),
        (
            lambda f: (f / "tracks.parquet").write_bytes(b"PAR1 no"),
            "tracks.parquet: not a readable Parquet file",
        ),
        (rewrite([{"track": "a"}]), "needs the columns track, vectors; has no vectors"),
        (
            rewrite([{"track": "a", "vectors": [1]}], vectors=pa.list_(pa.int64())),
            "vectors must be a list of lists of 128 numbers",
        ),
        (
            rewrite([{"track": "", "vectors": TRACKS["a"]}]),
            "tracks.parquet: every row needs a track",
        ),
        (
            rewrite([{"track": "a", "vectors": NAN}]),
            "tracks.parquet, track a: fingerprint 4 has NaN",
        ),
        (rewrite([{"track": "a", "vectors": TRACKS["a"]}] * 2), "track a is there twice"),
    ],
)
def test_wrong_tables_are_refused(damage: Callable[[Path], Any], reason: str, tables: Path) -> None:
    damage(tables)
    refused(tables, reason)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda f: (f / "db_shape.npy").unlink(),
            "db_shape.npy is missing; it has the shape of db.mm",
        ),
        (
            lambda f: np.save(f / "db_shape.npy", (50, 64)),
            "db has the shape (50, 64), not (fingerprints, 128)",
        ),
        (
            lambda f: np.save(f / "db_shape.npy", (60, 128)),
            "db.mm has 25,600 bytes; 60 x 128 float32, which db_shape.npy says, are 30,720",
        ),
        (
            lambda f: np.save(f / "db_shape.npy", np.array([{}, 128])),
            "db_shape.npy has no two whole numbers",
        ),
        (
            lambda f: write_memory_map(f, "query", made_up(49, 1)),
            "query has the shape (49, 128) and db (50, 128)",
        ),
        (lambda f: (f / "db.mm").unlink(), "has neither db.npy nor db.mm"),
        (
            lambda f: write_memory_map(f, "query", np.resize(NAN, (50, 128))),
            "has NaN or an infinite number",
        ),
        (lambda f: write_settings(f), "embeddings.json needs snr_db and reverb"),
        (
            lambda f: write_settings(f, hop_s=0.5, query_hop_s=0.1, snr_db=0, reverb=True),
            "query_hop_s must be hop_s",
        ),
        (
            lambda f: (f / "db_tracks.csv").write_text("track,fingerprints\na,30\n"),
            "db_tracks.csv has 30 fingerprints in all, but db has 50",
        ),
        (
            lambda f: (f / "db_tracks.csv").write_text("track,fingerprints\na,30\nb,x\n"),
            "db_tracks.csv, line 3: needs track and fingerprints",
        ),
        (
            lambda f: (f / "db_tracks.csv").write_text("track,fingerprints\na,30\na,20\n"),
            "a track is named twice",
        ),
        (
            lambda f: [path.unlink() for path in f.glob("query*")],
            "has neither tracks.parquet and queries.parquet, nor db and query",
        ),
    ],
)
def test_wrong_arrays_are_refused(damage: Callable[[Path], Any], reason: str, arrays: Path) -> None:
    damage(arrays)
    refused(arrays, reason)


def test_an_array_of_objects_is_not_unpickled(arrays: Path) -> None:
    np.save(arrays / "db.npy", np.array([{"a": 1}], dtype=object))
    refused(arrays, "db.npy is no array that NumPy reads")


def test_lengths_must_fit_the_tracks_and_the_tables(arrays: Path, tables: Path) -> None:
    with pytest.raises(OptionError, match=r"^--seconds: no track of db is as long as 60 s$"):
        open_export(str(arrays)).queries([1.0, 60.0], 10, 0)
    queries = [asked(query=f"{n}", vectors=TRACKS["a"][: n + 1]) for n in range(21)]
    write_table(tables / "queries.parquet", queries)
    refused(tables, "the queries have 21 lengths")


def test_a_finer_hop_of_queries_is_a_stride() -> None:
    settings = Settings(hop_s=0.5, query_hop_s=0.1, offset_correction_s=0.02)
    assert (settings.stride, settings.offset_correction) == (5, pytest.approx(0.2))
    assert Settings(hop_s=0.096).stride == 1
