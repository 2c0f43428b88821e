"""Every writer of a table fills every column of its schema, and no other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grafp.catalog.embeddings import EMBEDDING_SCHEMA, write_embeddings
from grafp.catalog.tracks import TRACK_SCHEMA, tracks_to_bytes
from grafp.matches import MATCH_SCHEMA, unmatched, write_matches
from grafp.storage.tables import Row, table_of
from pipelines.indexing.duplicates import DUPLICATE_SCHEMA, duplicates_to_bytes

Writer = Callable[[list[Row], str], object]
WRITERS: dict[str, tuple[pa.Schema, Writer]] = {
    "matches": (MATCH_SCHEMA, lambda rows, out: write_matches(out, table_of(rows, MATCH_SCHEMA))),
    "tracks": (TRACK_SCHEMA, lambda rows, _: tracks_to_bytes(rows)),
    "embeddings": (EMBEDDING_SCHEMA, lambda rows, out: write_embeddings(out, "e", rows)),
    "duplicates": (DUPLICATE_SCHEMA, lambda rows, _: duplicates_to_bytes(rows)),
}


def row_of(schema: pa.Schema) -> Row:
    row: Row = dict.fromkeys(schema.names)
    if "embeddings" in row:
        row |= {"uri": "a", "embeddings": np.zeros((2, 128), np.float16)}
    return row


@pytest.mark.parametrize("name", WRITERS)
def test_a_forgotten_and_an_unknown_column_are_refused(name: str, tmp_path: Path) -> None:
    schema, write = WRITERS[name]
    write([row_of(schema)], str(tmp_path))
    for column in schema.names:
        if column in ("uri", "embeddings") and name == "embeddings":
            continue  # the writer itself needs these two
        row = row_of(schema)
        del row[column]
        with pytest.raises(ValueError, match=column):
            write([row], str(tmp_path))
    with pytest.raises(ValueError, match="colour"):
        write([row_of(schema) | {"colour": "red"}], str(tmp_path))


def test_a_row_without_an_answer_has_all_columns() -> None:
    row = unmatched("q", 3.0, 0.5, "silent")
    assert set(row) == set(MATCH_SCHEMA.names)
    assert table_of([row], MATCH_SCHEMA).to_pylist()[0]["track"] is None


def test_matches_are_written_as_they_are_documented(tmp_path: Path) -> None:
    write_matches(str(tmp_path), table_of([unmatched("q", 3.0, 0.5, None)], MATCH_SCHEMA))
    assert pq.read_schema(tmp_path / "matches.parquet").equals(MATCH_SCHEMA)
