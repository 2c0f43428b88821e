#!/usr/bin/env python3
"""What each track and shard takes where all are listed, and how fast files are decoded.

    python benchmarks/records.py

Bytes are those of Python's objects in the process that plans a run, or of files. The rates and
sizes in `python -m grafp.plan` come from here and from benchmarks/scale.py.
"""

import argparse
import gc
import hashlib
import io
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.common import cli

_SHARDS = 1_000  # to weigh in a manifest


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--tracks",
        type=cli.positive_int,
        default=100_000,
        metavar="N",
        help="rows of the track table to measure",
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    sizes = _records(chosen.tracks)
    for name, size in sizes.items():
        print(f"{name:20} {size:9,.1f} bytes")
    decode = round(_decode_rate())
    print(f"one core decodes {decode} s of mp3, stereo at 44.1 kHz, in a second")
    return {"bytes": sizes, "decode": decode}, cli.DONE


def _records(count: int) -> dict[str, float]:
    """Bytes that each track, file or shard takes where it is listed, and the speed of decoding."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from grafp.catalog.changes import find_changes
    from grafp.catalog.tracks import TRACK_SCHEMA, live_refs
    from grafp.storage.s3 import FileInfo
    from grafp.storage.sources import Item

    table = pa.Table.from_pylist([_track(n) for n in range(count)], schema=TRACK_SCHEMA)
    file = io.BytesIO()
    pq.write_table(table, file)
    sizes: dict[str, float] = {"track_in_parquet": len(file.getvalue()) / count}
    held: list[Any] = []

    def weigh(name: str, make: Callable[[], Any]) -> Any:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        held.append(make())
        gc.collect()
        sizes[name] = (tracemalloc.get_traced_memory()[0] - before) / count
        return held[-1]

    def items() -> list[Item]:
        listed = (_track(n) for n in range(count))
        infos = (FileInfo(t["uri"], t["size"], t["etag"], t["modified"]) for t in listed)
        return [Item(info.uri, info.uri, info, {}) for info in infos]

    tracemalloc.start()
    listing = weigh("listed_file", items)
    published = weigh("track_row", table.to_pylist)
    weigh("track_planned", lambda: find_changes(listing, published, published[0]["source"]))
    weigh("track_ref", lambda: live_refs(published))
    weigh("known_hash", lambda: frozenset(_track(n)["content_sha256"] for n in range(count)))
    tracemalloc.stop()
    sizes["shard_in_manifest"] = _manifest_bytes(_entries(_SHARDS))
    return {name: round(size, 1) for name, size in sizes.items()}


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
    from grafp.catalog.manifest import Layer, Manifest

    file = entries[0].codes
    layers = [Layer(entries, file)]
    manifest = Manifest(
        "s", None, "", "m", "", 0.1, None, None, None, layers, file, file, file, 0, {}
    )
    return len(manifest.to_json()) / len(entries)


def _track(number: int) -> dict[str, Any]:
    """A row of the track table, with names as long as usual ones."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    uri = f"s3://bucket/music/{digest[:2]}/{digest[2:18]}.mp3"
    name = hashlib.sha256(uri.encode()).hexdigest()[:32]
    file = hashlib.sha256(str(number // 32).encode()).hexdigest()[:16]
    return {
        "track_id": name, "stored_as": name, "uri": uri, "ordinal": number,
        "source": "s3://bucket/music", "size": 3_400_000 + number, "etag": digest[:32],
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
