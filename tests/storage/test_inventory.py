"""S3 Inventories of real objects: the recordings of a bucket, as if it had been listed."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.errors import OptionError
from grafp.storage import FileInfo
from grafp.storage.inventory import source_of
from grafp.storage.sources import list_items
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog

NAMES = ("a b.wav", "sub/ü+1.flac", "cover.jpg")
SCHEMA = ("Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size",
          "LastModifiedDate", "ETag")  # fmt: skip


@pytest.fixture
def bucket(s3: str, request: pytest.FixtureRequest) -> str:
    """A folder of the bucket, of this test alone."""
    base = f"{s3}/inventory/{request.node.name}"
    for name in NAMES:
        storage.write(f"{base}/music/{name}", name.encode())
    return base


def row_of(info: FileInfo, latest: bool = True, deleted: bool = False) -> dict[str, Any]:
    bucket, _, key = info.uri.removeprefix("s3://").partition("/")
    when = datetime.fromtimestamp(info.modified, UTC)
    return dict(zip(SCHEMA, (bucket, key, "v", latest, deleted, info.size, when, info.etag)))


def write_inventory(
    base: str,
    kind: str,
    rows: list[dict[str, Any]],
    date: str = "2026-12-01T01-00Z",
    **changed: Any,
) -> str:
    """As S3 writes it, in two files."""
    bucket, _, folder = base.removeprefix("s3://").partition("/")
    keys = []
    for number in range(2):
        part = rows[number::2]
        if kind == "CSV":
            text = io.StringIO()
            table = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for row in part:
                when = row["LastModifiedDate"].strftime("%Y-%m-%dT%H:%M:%S.000Z")
                truth = {name: str(row[name]).lower() for name in ("IsLatest", "IsDeleteMarker")}
                row = {**row, **truth, "Key": quote_plus(row["Key"]), "LastModifiedDate": when}
                table.writerow(row.values())
            data, name = gzip.compress(text.getvalue().encode()), f"data/{number}.csv.gz"
        else:
            names = ("bucket", "key", "version_id", "is_latest", "is_delete_marker", "size",
                     "last_modified_date", "e_tag")  # fmt: skip
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist([dict(zip(names, r.values())) for r in part]), sink)
            data, name = sink.getvalue().to_pybytes(), f"data/{number}.parquet"
        storage.write(f"{base}/{name}", data)
        keys.append(f"{folder}/{name}")
    manifest = {
        "sourceBucket": bucket, "destinationBucket": f"arn:aws:s3:::{bucket}",
        "version": "2016-11-30", "fileFormat": kind, "files": [{"key": key} for key in keys],
        "fileSchema": ", ".join(SCHEMA) if kind == "CSV" else "message s3.inventory { ... }",
    }  # fmt: skip
    uri = f"{base}/{date}/manifest.json"
    storage.write(uri, json.dumps({**manifest, **changed}).encode())
    return uri


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_an_inventory_names_what_a_listing_does(kind: str, bucket: str) -> None:
    listed = list_items(f"{bucket}/music")
    assert len(listed) == 2
    infos = storage.list_files(f"{bucket}/music")
    gone = FileInfo(f"{bucket}/music/gone.wav", 7, "e", 1.0)
    rows = [*map(row_of, infos), row_of(gone, deleted=True), row_of(gone, latest=False)]
    for name in ("._a b.wav", ".trash/x.wav", "folder.wav/"):  # no listing has them
        rows.append(row_of(FileInfo(f"{bucket}/music/{name}", 7, "e", 1.0)))
    assert list_items(write_inventory(bucket, kind, rows)) == listed
    china = f"arn:aws-cn:s3:::{bucket.removeprefix('s3://').partition('/')[0]}"
    assert list_items(write_inventory(bucket, kind, rows, destinationBucket=china)) == listed


@pytest.mark.slow
def test_the_next_inventory_removes_what_is_gone(bucket: str) -> None:
    def night(date: str) -> dict[str, Any]:
        rows = [row_of(info) for info in storage.list_files(f"{bucket}/music")]
        uri = write_inventory(bucket, "CSV", rows, date=date)
        return index_catalog(uri, f"{bucket}/catalog", encoders=Encoders(0))

    for name in NAMES[:2]:
        storage.write(
            f"{bucket}/music/{name}", encode(synthesis.piece(len(name), 4.0), name[-4:].strip("."))
        )
    assert night("2026-12-01T01-00Z")["tracks"] == 2
    storage.delete(f"{bucket}/music/{NAMES[1]}")
    second = night("2026-12-02T01-00Z")
    assert (second["withdrawn"], second["tracks"]) == (1, 1)


def test_inventories_of_two_days_are_one_source() -> None:
    one, other = (f"s3://b/to/2026-12-0{day}T01-00Z/manifest.json" for day in (1, 2))
    assert source_of(one) == source_of(other) == "s3://b/to/"
    for same in ("s3://b/to/manifest.json", "s3://b/2026-12-01T01-00Z/", "music"):
        assert source_of(same) == same


def test_what_is_no_inventory_is_told(bucket: str) -> None:
    rows = [row_of(info) for info in storage.list_files(f"{bucket}/music")]
    for changed, told in (
        ({"fileFormat": "ORC"}, "an inventory of ORC files"),
        ({"fileSchema": "Bucket, Key, Size"}, "lacks ETag, LastModifiedDate"),
        ({"files": 3}, "not the manifest of an S3 Inventory"),
        ({"sourceBucket": 7}, "not the manifest of an S3 Inventory"),
    ):
        uri = write_inventory(bucket, "CSV", rows, **changed)
        with pytest.raises(OptionError, match=told):
            list_items(uri)
    uri = write_inventory(bucket, "CSV", rows)
    data = storage.read(f"{bucket}/data/1.csv.gz")
    for damaged in (data[: len(data) // 2], data[:14] + b"\xff" * 16 + data[30:]):
        storage.write(f"{bucket}/data/1.csv.gz", damaged)
        with pytest.raises(OptionError, match=r"data/1\.csv\.gz: not a file of the inventory"):
            list_items(uri)
    with pytest.raises(OptionError, match=r"data/0\.parquet: not a file of the inventory"):
        list_items(write_inventory(bucket, "Parquet", [{**rows[0], "Size": None}, *rows[1:]]))
    uri = write_inventory(bucket, "Parquet", rows)
    storage.write(f"{bucket}/data/1.parquet", b"no table")
    with pytest.raises(OptionError, match=r"data/1\.parquet: not a file of the inventory"):
        list_items(uri)
    storage.write(uri, b"no JSON")
    with pytest.raises(OptionError, match="not the manifest of an S3 Inventory"):
        list_items(uri)
