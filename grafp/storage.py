"""Where bytes live: the only module that knows local disk from S3.

A URI is a local path (relative, absolute or file://) or s3://bucket/prefix; the usual AWS_*
variables reach any S3-compatible store. Every failure is a StorageError: one line with the URI
and what to do. A file appears whole or not at all.
"""

import contextlib
import fcntl
import hashlib
import os
import stat as modes
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from grafp.errors import StorageError

# An unreachable endpoint fails after 4 tries of 3 s with pauses of at most 1, 2 and 4 s.
_RETRIES = {"mode": "standard", "total_max_attempts": 4}
_S3_CONFIG = {"connect_timeout": 3, "read_timeout": 15, "retries": _RETRIES}
# What S3 answers to a conditional PUT when somebody else was first.
_LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict", "NoSuchKey"}


@dataclass(frozen=True)
class FileInfo:
    """One file: `etag` changes with its content, `modified` is in Unix seconds."""

    uri: str
    size: int
    etag: str
    modified: float


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    tail = [part.strip("/") for part in parts if part.strip("/")]
    return "/".join([uri.rstrip("/"), *tail]) if tail else uri


def absolute(uri: str) -> str:
    """The same place, whatever the working directory. Raises StorageError like all below."""
    return uri if _is_s3(uri) else os.path.abspath(_path(uri))


def read(uri: str) -> bytes:
    """The whole content."""
    with _explained(uri):
        if _is_s3(uri):  # one request: an object replaced meanwhile is not read half and half
            return bytes(_s3().cat_file("/".join(_bucket_key(uri)), max_concurrency=1))
        with open(_path(uri), "rb") as file:
            return file.read()


def write(uri: str, data: bytes) -> None:
    """Store `data`, over what is there."""
    with _explained(uri):
        if _is_s3(uri):
            _s3().pipe_file("/".join(_bucket_key(uri)), data)
            return
        with _staged(_path(uri), data) as temporary:
            os.replace(temporary, _path(uri))


def create(uri: str, data: bytes) -> bool:
    """Store `data` unless something is there; return whether it was stored.

    When S3's reply is lost and the request repeated, False can mean that this call stored it.
    """
    with _explained(uri):
        if _is_s3(uri):
            return _put_if(uri, data, IfNoneMatch="*")
        with _staged(_path(uri), data) as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, _path(uri))  # unlike a rename, it never overwrites
            return True
    return False


def replace(uri: str, data: bytes, expected_etag: str | None) -> bool:
    """Store `data` if the etag is still this one (None: nothing there); whether it was stored.

    False may follow a lost reply, as in `create`. On local disk, `write` does not wait for it.
    """
    if expected_etag is None:
        return create(uri, data)
    with _explained(uri):
        if _is_s3(uri):
            return _put_if(uri, data, IfMatch=f'"{expected_etag}"')
        with _locked(_path(uri)):
            info = stat(uri)
            if info is None or info.etag != expected_etag:
                return False
            write(uri, data)
    return True


def stat(uri: str) -> FileInfo | None:
    """Size, etag and time of a file; None if there is none (or it is a folder)."""
    with _explained(uri), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not _is_s3(uri):
            return _local_info(uri, _path(uri))
        bucket, key = _bucket_key(uri)
        head = _s3().call_s3("head_object", Bucket=bucket, Key=key)
        return _s3_info(uri, head["ContentLength"], head)
    return None


def list_files(uri: str, extensions: tuple[str, ...] = ()) -> list[FileInfo]:
    """All files in a folder and below, sorted; hidden files and folders are left out.

    Their URIs start with `uri` as given; `extensions` such as (".wav",) ignore case. A missing
    folder, bucket or prefix is an error; a single file lists as itself.
    """
    suffixes = tuple(extension.lower() for extension in extensions)
    with _explained(uri):
        found = list(_list_s3(uri) if _is_s3(uri) else _list_local(uri))
    wanted = [info for info in found if not suffixes or info.uri.lower().endswith(suffixes)]
    return sorted(wanted, key=lambda info: info.uri)


def delete(uri: str) -> None:
    """Remove a file; one that does not exist is no error."""
    with _explained(uri), contextlib.suppress(FileNotFoundError):
        if not _is_s3(uri):
            return os.unlink(_path(uri))
        bucket, key = _bucket_key(uri)
        _s3().call_s3("delete_object", Bucket=bucket, Key=key)


def local_copy(uri: str, cache_dir: str) -> str:
    """A local path with the same bytes, downloaded once for all processes on `cache_dir`."""
    info = stat(uri)
    if info is None:
        raise StorageError(f"{uri}: not found")
    if not _is_s3(uri):
        return _path(uri)
    digest = hashlib.sha256(f"{uri}\n{info.etag}".encode()).hexdigest()[:32]
    path = os.path.join(cache_dir, digest + os.path.splitext(uri)[1][:16])
    with _explained(uri), _locked(path):
        if not os.path.exists(path):
            with _staged(path, b"") as temporary:
                _s3().get_file("/".join(_bucket_key(uri)), temporary)
                if stat(uri) != info:  # large objects come in parts
                    raise StorageError(f"{uri}: was replaced while it was read; run again")
                os.replace(temporary, path)
    return path


def _is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def _path(uri: str) -> str:
    path = uri.removeprefix("file://")
    if "://" in path:
        raise StorageError(f"{uri}: unknown kind of address; use a path or s3://bucket/prefix")
    return path


def _bucket_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or "@" in bucket:  # not repeated here: it may hold a password
        raise StorageError("use s3://bucket/prefix, with credentials in the AWS_ variables")
    return bucket, key


@contextlib.contextmanager
def _staged(path: str, data: bytes) -> Iterator[str]:
    """A complete temporary file beside `path`, hidden from listings, gone afterwards."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # The kernel's clock ticks every few ms: two writes in one tick need different etags.
        before = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        now = max(time.time_ns(), before + 1)
        os.utime(temporary, ns=(now, now))
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Only one holder among all threads and processes; the system frees it when one dies."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.lock"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _local_info(uri: str, path: str) -> FileInfo | None:
    status = os.stat(path)
    if not modes.S_ISREG(status.st_mode):
        return None
    etag = f"{status.st_mtime_ns}-{status.st_size}"
    return FileInfo(uri, status.st_size, etag, status.st_mtime)


def _list_local(uri: str) -> Iterator[FileInfo]:
    root = _path(uri)
    if info := _local_info(uri, root):
        yield info
        return
    seen = set()  # linked folders are followed, but not round in circles
    for folder, folders, names in os.walk(root, onerror=_fail, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = os.path.join(folder, name)
            # A name that is not UTF-8 fits no table: listed readably, it fails when it is read.
            shown = os.fsencode(os.path.relpath(path, root)).decode(errors="replace")
            with contextlib.suppress(FileNotFoundError):  # a dangling link
                if not name.startswith(".") and (info := _local_info(join(uri, shown), path)):
                    yield info


def _fail(error: OSError) -> None:
    raise error  # os.walk would skip a folder it may not read, and its tracks would be withdrawn


def _list_s3(uri: str) -> Iterator[FileInfo]:
    bucket, key = _bucket_key(uri)
    prefix = f"{key.rstrip('/')}/" if key else ""
    page: dict[str, Any] = {"IsTruncated": True}
    more: dict[str, str] = {}
    exists = not prefix
    while page.get("IsTruncated"):
        page = _s3().call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        more = {"ContinuationToken": page.get("NextContinuationToken", "")}
        for entry in page.get("Contents", ()):
            exists, below = True, entry["Key"][len(prefix) :]
            if not below.endswith("/") and "/." not in f"/{below}":  # a folder's mark; hidden
                yield _s3_info(f"{uri.rstrip('/')}/{below}", entry["Size"], entry)
    if not exists:
        info = stat(uri)
        if info is None:
            raise StorageError(f"nothing under {uri}; check the prefix")
        yield info


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _s3() -> Any:
    endpoint = _endpoint()
    if endpoint and "amazonaws.com" not in endpoint:
        # Only AWS machines have an instance role; asking for one elsewhere can take long.
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    settings = tuple(sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_")))
    return _filesystem(os.getpid(), settings)


@lru_cache(maxsize=4)
def _filesystem(_pid: int, _settings: tuple[tuple[str, str], ...]) -> Any:
    """One client per process and environment: s3fs itself looks at the variables only once."""
    import s3fs  # takes a second, which those on local disk need not spend

    options = {"use_listings_cache": False, "skip_instance_cache": True}
    filesystem = s3fs.S3FileSystem(config_kwargs=_S3_CONFIG, **options)
    filesystem.retries = 2  # times those of _RETRIES, for bodies that break off
    return filesystem


def _s3_info(uri: str, size: int, answer: dict[str, Any]) -> FileInfo:
    # Whole seconds, because some stores give fractions in listings only.
    modified = float(int(answer["LastModified"].timestamp()))
    return FileInfo(uri, size, answer["ETag"].strip('"'), modified)


def _put_if(uri: str, data: bytes, **condition: str) -> bool:
    bucket, key = _bucket_key(uri)
    try:
        _s3().call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
    except OSError as error:
        if _s3_code(error) in _LOST:
            return False
        raise
    return True


def _s3_code(error: BaseException) -> str:
    """S3's own code: s3fs turns its errors into Python's and keeps the first as the cause."""
    response = getattr(error.__cause__ or error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except _failures(uri) as error:
        text = " ".join(f"{uri}: {_explain(uri, error)}".split())
        raise StorageError(text) from error


def _failures(uri: str) -> tuple[type[Exception], ...]:
    if not _is_s3(uri):
        return (OSError, ValueError)
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError
    from botocore.parsers import ResponseParserError

    # The last two come of a server that answers, but not as S3 does.
    return (OSError, ValueError, BotoCoreError, ClientError, ResponseParserError, KeyError)


def _explain(uri: str, error: Exception) -> str:
    """What happened and what to do about it; never a text that can hold a password."""
    code, name = _s3_code(error), type(error).__name__
    text = (isinstance(error, OSError) and error.strerror) or ""
    if code == "NoSuchBucket":
        return "no such bucket; check its name and AWS_ENDPOINT_URL"
    if isinstance(error, FileNotFoundError):
        return "not found" + ("; its name is not UTF-8, rename it" if "\ufffd" in uri else "")
    if code in ("400", "InvalidToken") or (code and isinstance(error, PermissionError)):
        return f"access denied ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, PermissionError):
        return f"{text}: {error.filename}; check the owner and mode"
    if "Credentials" in name:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if name in ("ParamValidationError", "InvalidRegionError", "ProfileNotFound"):
        return str(error)[:160]
    if not _is_s3(uri) or (text and not code.startswith("5")):
        return text or str(error)
    host = _endpoint().split("://")[-1].rpartition("@")[2] or "AWS"
    return f"no usable answer from {host} ({code or name}); check AWS_ENDPOINT_URL and the network"
