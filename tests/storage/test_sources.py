"""Which recordings a folder or a table names, and where they are."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grafp import storage
from grafp.errors import OptionError, StorageError
from grafp.storage.sources import list_items, read_table


@pytest.fixture
def music(store: str) -> str:
    """Four recordings and a file of another kind."""
    for name in ("b.wav", "a.MP3", "sub/c.flac", "sub/Ænima é.ogg", "cover.jpg"):
        storage.write(storage.join(store, "music", name), b"x" * (3 + len(name)))
    return storage.join(store, "music")


def write_table(uri: str, rows: list[dict]) -> str:
    if uri.lower().endswith(".csv"):
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        storage.write(uri, "\n".join(lines).encode())
    else:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        storage.write(uri, sink.getvalue().to_pybytes())
    return uri


def test_a_folder_is_searched_for_recordings(music: str) -> None:
    items = list_items(music)
    names = ["a.MP3", "b.wav", "sub/c.flac", "sub/Ænima é.ogg"]
    assert [item.uri for item in items] == [storage.join(music, name) for name in names]
    assert [item.location for item in items] == [item.uri for item in items]
    assert [item.info.size for item in items if item.info] == [8, 8, 13, 18]
    assert all(item.row == {} for item in items)
    assert [item.uri for item in list_items(items[1].uri)] == [items[1].uri]


def test_files_with_other_extensions_are_counted_in_one_line(
    music: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("notes.txt", "sub/MORE.TXT", "README", ".hidden.txt"):
        storage.write(storage.join(music, name), b"text")
    with caplog.at_level("INFO", logger="grafp"):
        assert len(list_items(music)) == 4
    [line] = [record.getMessage() for record in caplog.records]
    assert line == f"{music}: ignored 4 files with other extensions: .txt 2, .jpg 1, none 1"
    assert len(list_items(storage.join(music, "b.wav"))) == 1
    with pytest.raises(OptionError, match="README: neither a folder, nor a recording"):
        list_items(storage.join(music, "README"))


def test_a_folder_that_is_not_there_is_an_error(store: str) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        list_items(storage.join(store, "nowhere"))


@pytest.mark.parametrize("column", ["path", "uri"])
@pytest.mark.parametrize("name", ["list.csv", "list.parquet", "LIST.CSV"])
def test_a_table_names_recordings_from_its_own_folder(name: str, column: str, music: str) -> None:
    absolute = storage.join(music, "a.MP3")
    rows = [
        {"split": "train", column: "sub/c.flac", "group": "one"},
        {"split": "test", column: absolute, "group": ""},
        {"split": "train", column: "gone.wav", "group": "two"},
    ]
    uri = write_table(storage.join(music, name), rows)
    first, second, missing = list_items(uri)
    assert (first.uri, first.location) == ("sub/c.flac", storage.join(music, "sub/c.flac"))
    assert (second.uri, second.location) == (absolute, absolute)
    assert first.info == storage.stat(storage.join(music, "sub/c.flac"))
    assert second.info == storage.stat(absolute)
    assert missing.info is None
    assert missing.location == storage.join(music, "gone.wav")
    assert first.row == {"split": "train", "group": "one"}


def test_a_local_tables_entries_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write(f"{tmp_path}/lists/deep/x.wav", b"x")
    storage.write(f"{tmp_path}/lists/y.wav", b"y")
    storage.write(f"{tmp_path}/lists/list.csv", b"path\ndeep/x.wav\ndeep/../y.wav\n")
    monkeypatch.chdir(tmp_path / "lists" / "deep")
    items = list_items("../list.csv")
    assert [item.uri for item in items] == ["deep/x.wav", "deep/../y.wav"]
    assert [storage.read(item.location) for item in items] == [b"x", b"y"]
    monkeypatch.chdir("/")
    assert [storage.read(item.location) for item in items] == [b"x", b"y"]


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_a_recording_named_twice_is_refused_and_blank_rows_do_not_count(
    name: str, tmp_path: Path
) -> None:
    names = ["b.wav", "a.wav", " ", "", " c.wav "]
    rows = [{"path": path, "number": number} for number, path in enumerate(names)]
    items = list_items(write_table(f"{tmp_path}/{name}", rows))
    assert [(item.uri, int(item.row["number"])) for item in items] == [
        ("b.wav", 0), ("a.wav", 1), ("c.wav", 4),
    ]  # fmt: skip
    rows.append({"path": "a.wav", "number": 9})
    with pytest.raises(OptionError, match=r"row 6: a\.wav is named a second time"):
        list_items(write_table(f"{tmp_path}/{name}", rows))


@pytest.mark.parametrize("name", ["../b.wav", "..", "sub/../../b.wav"])
def test_a_table_does_not_lead_out_of_its_folder(name: str, store: str) -> None:
    storage.write(storage.join(store, "b.wav"), b"not meant")
    uri = write_table(storage.join(store, "lists", "list.csv"), [{"path": "a"}, {"path": name}])
    with pytest.raises(OptionError, match=rf"row 2: {re.escape(name)} is outside the table's"):
        list_items(uri)


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_a_table_without_the_column_is_refused_with_those_it_has(name: str, tmp_path: Path) -> None:
    uri = write_table(f"{tmp_path}/{name}", [{"file": "a.wav", "split": "train"}])
    with pytest.raises(OptionError, match=r"needs a column named path or uri, has file, split"):
        list_items(uri)


def test_a_csv_without_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.wav\nb.wav\nc.wav,train\n")
    with pytest.raises(OptionError, match="needs a column named path or uri"):
        list_items(f"{tmp_path}/list.csv")
    (tmp_path / "list.csv").write_text("a.wav\nb.wav,train\n")
    with pytest.raises(OptionError, match="needs a column named path or uri"):
        list_items(f"{tmp_path}/list.csv")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("list.csv", "path\nÆnima.wav\n".encode("latin-1"), id="latin-1"),
        pytest.param("list.csv", "path\nx.wav\n".encode("utf-16"), id="utf-16"),
        pytest.param("list.csv", b'path\n"' + b"x" * 200_000, id="a quote that never ends"),
        pytest.param("list.parquet", b"", id="empty parquet"),
        pytest.param("list.parquet", b"path\nx.wav\n", id="csv called parquet"),
        pytest.param("list.parquet", b"PAR1" + bytes(200) + b"PAR1", id="damaged parquet"),
    ],
)
def test_what_is_not_a_table_is_refused_in_one_line(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(OptionError, match=rf"{name}: not a readable table") as error:
        list_items(f"{tmp_path}/{name}")
    assert "\n" not in str(error.value)


def test_a_csv_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """With a byte order mark, Windows line ends, quotes, commas and line ends in fields."""
    text = 'path,title\r\n"a, b.wav","two\nlines"\r\nÆ.wav,"say ""hi"""\r\n'
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8-sig"))
    assert read_table(f"{tmp_path}/list.csv") == [
        {"path": "a, b.wav", "title": "two\nlines"},
        {"path": "Æ.wav", "title": 'say "hi"'},
    ]


def test_an_empty_table_names_nothing_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\n")
    assert list_items(f"{tmp_path}/list.csv") == []
    with pytest.raises(StorageError, match=r"missing\.csv: not found"):
        list_items(f"{tmp_path}/missing.csv")


def test_an_address_that_cannot_work_is_left_to_the_reading_step(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\ngs://bucket/x.wav\n")
    [item] = list_items(f"{tmp_path}/list.csv")
    assert (item.location, item.info) == ("gs://bucket/x.wav", None)
