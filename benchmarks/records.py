#!/usr/bin/env python3
"""What each track, shard and fingerprint takes where it is listed, and how fast files are decoded.

    python benchmarks/records.py

Bytes are those of files, or of the peak memory of a process that does what an index run or a query
job does on the head. The rates and sizes in `python -m grafp.plan` come from here and from
benchmarks/rates.py.
"""

import argparse
import hashlib
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from grafp.model.fingerprint import DIMENSION
from pipelines.common import cli

_SHARDS = 1_000  # to weigh in a manifest
_SEGMENTS = 2_091  # of a track of 3.5 minutes
_SOURCE = "s3://bucket/music"


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--tracks",
        type=cli.positive_int,
        default=400_000,
        metavar="N",
        help="rows of the track table to measure",
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    sizes = _records(chosen.tracks)
    for name, size in sizes.items():
        print(f"{name:26} {size:9,.1f} bytes")
    decode = round(_decode_rate())
    print(f"one core decodes {decode} s of mp3, stereo at 44.1 kHz, in a second")
    return {"bytes": sizes, "decode": decode}, cli.DONE


def _records(count: int) -> dict[str, float]:
    """Bytes that each track, shard or fingerprint takes where it is listed."""
    from grafp.catalog.changes import known_hashes
    from grafp.catalog.tracks import tracks_to_bytes
    from grafp.model.bundle import SHIPPED

    entries = _entries(_SHARDS)
    with tempfile.TemporaryDirectory() as folder:
        sizes: dict[str, float] = {}
        for number in (count // 2, count):
            table = _table(range(number))
            data = tracks_to_bytes(table)
            Path(_file(folder, number)).write_bytes(data)
        sizes["track_in_table"] = len(data) / count
        sizes["track_in_places"] = _places_bytes(folder, table) / count
        sizes["known_hash"] = known_hashes(table).nbytes / count
        del table, data
        short, long = _embeddings_bytes(folder, 1), _embeddings_bytes(folder, _SEGMENTS)
        sizes["fingerprint_in_embeddings"] = (long - short) / (_SEGMENTS - 1)
        sizes["track_in_embeddings"] = short - sizes["fingerprint_in_embeddings"]
        sizes["track_in_run"] = _more(_run_again, folder, count)
        sizes["new_track_in_run"] = _more(_first_run, folder, count)
        sizes["track_in_query_job"] = _more(_query_job, folder, count)
    sizes["shard_in_manifest"] = _manifest_bytes(entries)
    sizes["shard_in_task"] = len(pickle.dumps(entries)) / _SHARDS
    sizes["model_files"] = sum(path.stat().st_size for path in (SHIPPED / "small").iterdir())
    sizes["list_and_id"] = _list_and_id_bytes(10**8)
    return {name: round(size, 1) for name, size in sizes.items()}


def _more(work: Callable[[str, int], None], folder: str, count: int) -> float:
    """Peak memory that work takes for each track more, in a process of its own."""
    few, many = (_alone(work, folder, number) for number in (count // 2, count))
    return (many - few) / (count - count // 2)


def _alone(work: Callable[[str, int], None], folder: str, count: int) -> int:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(work, folder, count).result()
        return pool.submit(_peak).result()


def _file(folder: str, count: int) -> str:
    return f"{folder}/{count}.parquet"


def _peak() -> int:
    """Of this process, bytes."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in one]
    return int(line.split()[1]) << 10


def _run_again(folder: str, count: int) -> None:
    """What a run does that finds all tracks as they were, but for one in a hundred."""
    from grafp.catalog.changes import find_changes, known_hashes, listing_of
    from grafp.catalog.tracks import tracks_from_bytes

    new = count // 100
    listing = listing_of(_items(range(new, count + new)))
    published = tracks_from_bytes(Path(_file(folder, count)).read_bytes())
    changes = find_changes(listing, published, _SOURCE)
    del listing, published
    known_hashes(changes.published)
    _published(changes, count, range(count, count + new))


def _first_run(_: str, count: int) -> None:
    """What a run does to which all tracks are new."""
    from grafp.catalog.changes import find_changes, listing_of
    from grafp.catalog.tracks import TRACK_SCHEMA

    listing = listing_of(_items(range(count)))
    changes = find_changes(listing, TRACK_SCHEMA.empty_table(), _SOURCE)
    del listing
    live = _published(changes, 0, range(count))
    assert len(live.values()) == count  # of which tasks are made


def _published(changes: Any, first: int, new: range) -> Any:
    """The tracks that a run publishes, as `grafp.catalog.tracks.LiveTracks`."""
    from grafp.catalog.changes import join
    from grafp.catalog.tracks import live_refs, tracks_to_bytes

    later = ("ordinal", "stored_as", "source")
    rows = [{k: v for k, v in _track(n).items() if k not in later} for n in new]
    tracks, _ = join(changes, rows, _SOURCE, first)
    tracks_to_bytes(tracks)
    return live_refs(tracks)


def _query_job(folder: str, count: int) -> None:
    """What a query job does to name the tracks of its answers."""
    from grafp.catalog.catalog import Catalog

    stored = Catalog(folder).put("table.parquet", Path(_file(folder, count)).read_bytes())
    assert len(Catalog(folder, _manifest([], stored)).live_tracks()) == count


def _items(numbers: range) -> list[Any]:
    """What a folder's listing gives."""
    from grafp.storage.s3 import FileInfo
    from grafp.storage.sources import item_of

    tracks = (_track(number) for number in numbers)
    return [item_of(FileInfo(t["uri"], t["size"], t["etag"], t["modified"])) for t in tracks]


def _table(numbers: range) -> pa.Table:
    from grafp.catalog.tracks import TRACK_SCHEMA

    return pa.Table.from_pylist([_track(n) for n in numbers], schema=TRACK_SCHEMA).sort_by("uri")


def _places_bytes(root: str, table: pa.Table) -> int:
    from grafp.catalog.catalog import Catalog
    from grafp.catalog.shard_files import write_positions
    from grafp.catalog.tracks import live_refs

    return write_positions(Catalog(root), "places.parquet", live_refs(table)).bytes


def _embeddings_bytes(root: str, segments: int) -> float:
    """Of each track with so many fingerprints in an embedding file."""
    from grafp.catalog.embeddings import EMBEDDING_SCHEMA, write_embeddings

    names = set(EMBEDDING_SCHEMA.names) - {"embeddings"}
    rows = [{k: v for k, v in _track(n).items() if k in names} for n in range(32)]
    vectors_ND = np.zeros((segments, DIMENSION), np.float16)
    key, _ = write_embeddings(root, "embeddings", [{**r, "embeddings": vectors_ND} for r in rows])
    return os.path.getsize(f"{root}/{key}") / len(rows)


def _list_and_id_bytes(tracks: int) -> float:
    """Of each fingerprint in a shard of a catalog with so many tracks, its code apart."""
    from grafp.catalog.catalog import Catalog
    from grafp.catalog.shard_files import write_shard
    from grafp.index.codes import Codes
    from grafp.index.ids import SEGMENT_BITS
    from grafp.index.size import CODE_BYTES, MAX_SHARD_FINGERPRINTS, IndexParameters

    count = MAX_SHARD_FINGERPRINTS
    parameters = IndexParameters.for_size(tracks * _SEGMENTS)
    lists = range(max(1, round(parameters.nlist * count / (tracks * _SEGMENTS))))
    rng = np.random.default_rng(0)
    ordinal_N, segment_N = rng.integers(0, tracks, count), rng.integers(0, _SEGMENTS, count)
    code_NB = rng.integers(0, 256, (count, CODE_BYTES[parameters.codec]), np.uint8)
    list_N = rng.integers(0, len(lists), count).astype(np.int32)
    codes = Codes(list_N, (ordinal_N << SEGMENT_BITS) + segment_N, code_NB)
    with tempfile.TemporaryDirectory() as root:
        stored = write_shard(Catalog(root), "index/x/y", codes.ordered(), lists, 1.0).codes.bytes
    return stored / count - code_NB.shape[1]


def _entries(shards: int) -> list[Any]:
    """Shards as a manifest names them."""
    from grafp.catalog.manifest import ShardEntry, StoredFile

    def entry(number: int) -> ShardEntry:
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        key = f"index/pq64x4fs-{digest[:12]}/{digest[:16]}"
        codes = StoredFile(f"{key}.codes.parquet", 44_000_000, digest)
        lists = 128 * number, 128 * (number + 1)
        return ShardEntry(digest[:16], codes, *lists, 1_000_000, 1.234, 0.9876)

    return [entry(number) for number in range(shards)]


def _manifest_bytes(entries: list[Any]) -> float:
    """Of each shard in a manifest."""
    return len(_manifest(entries, entries[0].codes).to_json()) / len(entries)


def _manifest(entries: list[Any], file: Any) -> Any:
    from grafp.catalog.manifest import Layer, Manifest

    layers = [Layer(entries, file)] if entries else []
    return Manifest("s", None, "", "m", "", 0.1, None, None, None, layers, file, file, file, 0, {})


def _track(number: int) -> dict[str, Any]:
    """A row of the track table, with names as long as usual ones."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    uri = f"s3://bucket/music/{digest[:2]}/{digest[2:18]}.mp3"
    name = hashlib.sha256(uri.encode()).hexdigest()[:32]
    file = hashlib.sha256(str(number // 32).encode()).hexdigest()[:16]
    return {
        "track_id": name, "stored_as": name, "uri": uri, "ordinal": number,
        "source": _SOURCE, "size": 3_400_000 + number, "etag": digest[:32],
        "modified": 1.7e9 + number, "content_sha256": digest, "duration_s": 200 + number % 97 / 7,
        "status": "ok", "error_kind": None, "error": None, "attempts": 1,
        "model_id": "small-01234567",
        "hop_s": 0.1, "n_segments": 1991 + number % 97,
        "embedding_file": f"embeddings/small-01234567/20260101T000000-abcdef/{file}.parquet",
        "embeddings_at": 520_000 * (number % 32),
    }  # fmt: skip


def _decode_rate() -> float:
    """Seconds of audio that one core decodes in a second: mp3, stereo at 44.1 kHz."""
    from grafp.audio import decode, encode, synthesis

    sound = np.stack([synthesis.piece(seed, 60.0, 44_100) for seed in (1, 2)])
    mp3 = encode(sound, "mp3", rate=44_100, layout="stereo")
    began = time.process_time()
    for _ in range(5):
        decode(mp3)
    return 5 * 60.0 / (time.process_time() - began)


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
