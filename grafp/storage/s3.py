"""What is particular to S3: its client, requests, listings and error texts.

Only grafp.storage imports this. Exceptions leave as they come; storage turns them into
StorageErrors with the help of `failures` and `explain`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from grafp.errors import StorageError, StoreUnreachable

# An unreachable endpoint fails after 4 tries of 3 s with pauses of at most 1, 2 and 4 s.
_RETRIES = {"mode": "standard", "total_max_attempts": 4}
_LISTED_AT_ONCE = 16
CONFIG = {"connect_timeout": 3, "read_timeout": 15, "retries": _RETRIES}
# What S3 answers to a conditional PUT when somebody else was first.
_LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict", "NoSuchKey"}


@dataclass(frozen=True)
class FileInfo:
    """One file: `etag` changes with its content, `modified` is in Unix seconds."""

    uri: str
    size: int
    etag: str
    modified: float


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def read(uri: str) -> bytes:
    """The whole content in one request: an object replaced meanwhile is not read half and half."""
    return bytes(client().cat_file(path(uri), max_concurrency=1))


def read_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    starts, ends = [one for one, _ in ranges], [other for _, other in ranges]
    return list(client().cat_ranges([path(uri)] * len(ranges), starts, ends, on_error="raise"))


def write(uri: str, data: bytes) -> None:
    client().pipe_file(path(uri), data)


def create(uri: str, data: bytes) -> bool:
    return _put_if(uri, data, IfNoneMatch="*")


def replace(uri: str, data: bytes, expected_etag: str) -> bool:
    return _put_if(uri, data, IfMatch=f'"{expected_etag}"')


def _put_if(uri: str, data: bytes, **condition: str) -> bool:
    """Store `data` under S3's condition IfMatch or IfNoneMatch; whether it held."""
    bucket, key = _bucket_key(uri)
    try:
        client().call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
    except OSError as error:
        if _code(error) in _LOST:
            return False
        raise
    return True


def stat(uri: str) -> FileInfo:
    """Raises FileNotFoundError if there is none."""
    bucket, key = _bucket_key(uri)
    head = client().call_s3("head_object", Bucket=bucket, Key=key)
    return _info(uri, head["ContentLength"], head)


def delete(uri: str) -> None:
    bucket, key = _bucket_key(uri)
    client().call_s3("delete_object", Bucket=bucket, Key=key)


def download(uri: str, local_path: str) -> None:
    client().get_file(path(uri), local_path)


def list_files(uri: str) -> Iterator[FileInfo]:
    """All objects under a prefix in no promised order, hidden ones left out; one object as itself.

    A prefix of more than a page is listed by its folders, several at a time.

    Raises FileNotFoundError if there is nothing.
    """
    bucket, key = _bucket_key(uri)
    prefix = f"{key.rstrip('/')}/" if key else ""
    first = _page(bucket, prefix)
    entries: Iterable[dict[str, Any]] = first.get("Contents", ())
    if first.get("IsTruncated"):
        entries = _entries_by_folder(bucket, prefix)
    exists = not prefix
    for entry in entries:
        exists, below = True, entry["Key"][len(prefix) :]
        if not below.endswith("/") and "/." not in f"/{below}":  # a folder's mark; hidden
            yield _info(f"{uri.rstrip('/')}/{below}", entry["Size"], entry)
    if not exists:
        yield stat(uri)


def _entries_by_folder(bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    folders: list[str] = []
    for page in _pages(bucket, prefix, Delimiter="/"):
        yield from page.get("Contents", ())
        folders += [one["Prefix"] for one in page.get("CommonPrefixes", ())]

    def entries(folder: str) -> list[dict[str, Any]]:
        return [entry for page in _pages(bucket, folder) for entry in page.get("Contents", ())]

    with ThreadPoolExecutor(max_workers=_LISTED_AT_ONCE) as pool:
        for found in pool.map(entries, folders):
            yield from found


def _pages(bucket: str, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
    page: dict[str, Any] = {"IsTruncated": True}
    while page.get("IsTruncated"):
        page = _page(bucket, prefix, **more)
        more["ContinuationToken"] = page.get("NextContinuationToken", "")
        yield page


def _page(bucket: str, prefix: str, **more: str) -> dict[str, Any]:
    page: dict[str, Any] = client().call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
    return page


def path(uri: str) -> str:
    """bucket/key, as s3fs and pyarrow want it."""
    return "/".join(_bucket_key(uri))


def client() -> Any:
    """The s3fs filesystem for this process and the AWS_* variables as they are now."""
    endpoint = _endpoint()
    if endpoint and "amazonaws.com" not in endpoint:
        # Only AWS machines have an instance role; asking for one elsewhere can take long.
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    settings = tuple(sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_")))
    return _client(os.getpid(), settings)


@lru_cache(maxsize=4)
def _client(_pid: int, _settings: tuple[tuple[str, str], ...]) -> Any:
    """One client per process and environment: s3fs itself looks at the variables only once."""
    import s3fs  # takes a second, which those on local disk need not spend

    options = {"use_listings_cache": False, "skip_instance_cache": True}
    filesystem = s3fs.S3FileSystem(config_kwargs=CONFIG, **options)
    filesystem.retries = 2  # times those of _RETRIES, for bodies that break off
    return filesystem


def failures() -> tuple[type[Exception], ...]:
    """Every kind of exception with which a request can fail."""
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError
    from botocore.parsers import ResponseParserError

    # The last two come of a server that answers, but not as S3 does.
    return (OSError, ValueError, BotoCoreError, ClientError, ResponseParserError, KeyError)


def is_missing_bucket(error: BaseException) -> bool:
    return _code(error) == "NoSuchBucket"


def explain(_uri: str, error: Exception) -> StorageError | None:
    """What happened and what to do about it, without passwords; None if it is not S3's doing."""
    code, name = _code(error), type(error).__name__
    if code == "NoSuchBucket":
        return StorageError("no such bucket; check its name and AWS_ENDPOINT_URL")
    if isinstance(error, FileNotFoundError):
        return None
    if code == "RequestTimeTooSkewed":
        return StorageError(
            "refused, since this machine's clock and the store's are too far apart; set them"
        )
    if code in ("400", "InvalidToken") or (code and isinstance(error, PermissionError)):
        keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return StorageError(f"access denied ({code}); check {keys}")
    if "Credentials" in name:
        return StorageError(
            "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL "
            "for a store that is not AWS's"
        )
    if name in ("ParamValidationError", "InvalidRegionError", "ProfileNotFound"):
        return StorageError(str(error)[:160])
    if isinstance(error, OSError) and error.strerror and not code.startswith("5"):
        return None  # the disk to which it was downloaded, or a text of S3's own
    host = _endpoint().split("://")[-1].rpartition("@")[2] or "AWS"
    return StoreUnreachable(
        f"no usable answer from {host} ({code or name}); check AWS_ENDPOINT_URL and the network"
    )


def _bucket_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or "@" in bucket:  # not repeated here: it may hold a password
        raise StorageError(
            "s3:// without a bucket, or with credentials in it; use s3://bucket/prefix, and "
            "the AWS_ variables for credentials"
        )
    return bucket, key


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _info(uri: str, size: int, answer: dict[str, Any]) -> FileInfo:
    # Whole seconds, because some stores give fractions in listings only.
    modified = float(int(answer["LastModified"].timestamp()))
    return FileInfo(uri, size, answer["ETag"].strip('"'), modified)


def _code(error: BaseException) -> str:
    """S3's own code: s3fs turns its errors into Python's and keeps the first as the cause."""
    response = getattr(error.__cause__ or error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
