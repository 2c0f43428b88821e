"""Objects named by an S3 Inventory: a bucket with millions of them, without listing it.

S3 writes `manifest.json`, which names CSV or Parquet files with a row for each object.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.parquet as pq

from grafp import storage
from grafp.errors import OptionError
from grafp.storage.s3 import FileInfo

MANIFEST = "manifest.json"
_COLUMNS = {
    "Key": "key", "Size": "size", "ETag": "e_tag", "LastModifiedDate": "last_modified_date",
    "IsLatest": "is_latest", "IsDeleteMarker": "is_delete_marker",
}  # fmt: skip
"""Names in CSV files and in Parquet files."""
_NEEDED = ("Key", "Size", "ETag", "LastModifiedDate")
_DATED = re.compile(r"/\d{4}-\d\d-\d\dT\d\d-\d\dZ/" + re.escape(MANIFEST) + "$")
# What the parsers raise for damage; zlib.error and EOFError are no kinds of ValueError or OSError.
_DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, OSError, EOFError,
    zlib.error, csv.Error, pa.ArrowException,
)  # fmt: skip


def is_inventory(uri: str) -> bool:
    """Whether a URI names the manifest of an inventory."""
    return uri.rpartition("/")[2] == MANIFEST


def source_of(uri: str) -> str:
    """What stays the same in the URIs of an inventory: S3 writes each into a folder with its date.

    Other URIs stay as they are.
    """
    return _DATED.sub("/", uri)


def inventory_files(uri: str) -> list[FileInfo]:
    """The objects of an inventory, by its manifest, sorted, hidden ones left out as in a listing;
    not older versions of an object.

    Raises StorageError, and OptionError when it is no inventory, or lacks a column.
    """
    try:
        manifest = json.loads(storage.read(uri))
        bucket, kind = manifest["sourceBucket"], manifest["fileFormat"]
        there = manifest["destinationBucket"].rpartition(":")[2]  # arn:aws:s3:::bucket
        keys = [file["key"] for file in manifest["files"]]
        schema = [name.strip() for name in manifest["fileSchema"].split(",")]
        if not isinstance(bucket, str):
            raise TypeError("sourceBucket is no name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{uri}: not the manifest of an S3 Inventory ({error!r})") from error
    if kind not in ("CSV", "Parquet"):
        raise OptionError(f"{uri}: an inventory of {kind} files; CSV and Parquet can be read")
    missing = [name for name in _NEEDED if kind == "CSV" and name not in schema]
    if missing:
        raise OptionError(f"{uri}: the inventory lacks {', '.join(missing)}; add it to its fields")

    def read(key: str) -> list[FileInfo]:
        file = f"s3://{there}/{key}"
        data = storage.read(file)
        try:
            rows = _csv_rows(data, schema) if kind == "CSV" else _parquet_rows(data)
            return [_info(bucket, row) for row in rows if _is_there(row)]
        except _DAMAGE as error:
            reason = " ".join(repr(error).split())
            raise OptionError(f"{file}: not a file of the inventory {uri} ({reason})") from error

    with ThreadPoolExecutor(max_workers=8) as pool:
        found = [info for infos in pool.map(read, keys) for info in infos]
    return sorted(found, key=lambda info: info.uri)


def _csv_rows(data: bytes, schema: list[str]) -> Iterator[dict[str, Any]]:
    """Keys are URL-encoded there."""
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    for row in csv.reader(io.StringIO(text.decode(), newline="")):
        values = dict(zip(schema, row, strict=True))
        modified = datetime.fromisoformat(values["LastModifiedDate"])
        yield {**values, "Key": unquote_plus(values["Key"]), "LastModifiedDate": modified}


def _parquet_rows(data: bytes) -> Iterator[dict[str, Any]]:
    table = pq.read_table(io.BytesIO(data))
    there = {name: other for name, other in _COLUMNS.items() if other in table.column_names}
    for row in table.select(list(there.values())).to_pylist():
        yield {name: row[other] for name, other in there.items()}


def _is_there(row: dict[str, Any]) -> bool:
    latest, deleted = row.get("IsLatest", True), row.get("IsDeleteMarker", False)
    key = row["Key"]
    listed = not key.endswith("/") and "/." not in f"/{key}"  # a folder's mark; hidden
    return listed and str(latest).lower() != "false" and str(deleted).lower() != "true"


def _info(bucket: str, row: dict[str, Any]) -> FileInfo:
    modified: datetime = row["LastModifiedDate"]
    if modified.tzinfo is None:
        modified = modified.replace(tzinfo=UTC)
    return FileInfo(
        f"s3://{bucket}/{row['Key']}", int(row["Size"]), row["ETag"].strip('"'),
        float(int(modified.timestamp())),
    )  # fmt: skip
