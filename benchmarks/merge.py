#!/usr/bin/env python3
"""Embedding files to a published catalog, beside one FAISS process that builds the same index.

    python benchmarks/merge.py --fingerprints 2000000

Makes synthetic fingerprints (random walks between cluster centers) as embedding files, without
audio; then trains, populates and publishes, removes every tenth track, and compacts. In the same
run one plain FAISS process trains and populates the same kind of index from the same files.
Memory is proportional (PSS), of this process and all that it started, Ray's own included."""

import argparse
import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from memory import memory_by_kind

from pipelines.common import cli

TRACK_SEGMENTS, TRACKS_A_FILE = 1_000, 32


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--fingerprints",
        type=cli.positive_int,
        default=2_000_000,
        metavar="N",
        help="fingerprints of the catalog",
    )
    parser.add_argument("--plain", metavar="DIR", help=argparse.SUPPRESS)  # the FAISS process
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    if chosen.plain:
        return _plain_build(Path(chosen.plain)), cli.DONE
    with tempfile.TemporaryDirectory() as folder:
        rows = _make_embeddings(Path(folder), chosen.fingerprints // TRACK_SEGMENTS)
        print(f"{len(rows) * TRACK_SEGMENTS:,} fingerprints, {len(rows):,} tracks")
        with _measured("plain FAISS, one process") as plain:
            command = [sys.executable, __file__, "--plain", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {"plain": plain, **_catalog_steps(folder, rows)}, cli.DONE


def _catalog_steps(root: str, rows: list[dict]) -> dict:
    from grafp.catalog.catalog import Catalog
    from grafp.catalog.manifest import index_health
    from grafp.catalog.tracks import live_refs
    from pipelines.common.runtime import connect
    from pipelines.indexing.maintain import verify
    from pipelines.indexing.run import Run
    from pipelines.indexing.upkeep import IndexState, extend

    connect()
    catalog = Catalog.open(root)
    results: dict = {}

    def publish(state: IndexState) -> None:
        run = Run.begin(catalog, "synthetic", "0" * 64, 0.1)
        catalog.publish(run.manifest(rows, state, len(rows)))

    with _measured("train, populate, publish") as results["build"]:
        state = extend(catalog, IndexState(), live_refs(rows))
        publish(state)
    index = sum(entry.codes.bytes for entry in state.shards)
    count = sum(entry.fingerprints for entry in state.shards)
    print(
        f"    {len(state.shards)} shards, {index / count:.0f} bytes a fingerprint in the index; "
        f"{index_health(state.shards)}"
    )
    with _measured("remove every tenth track") as results["withdraw"]:
        for row in rows[::10]:
            row["status"] = "removed"
        publish(extend(catalog, state, live_refs(rows)))
    with _measured("compact") as results["compact"]:
        publish(extend(catalog, state, live_refs(rows), compact=True))
    with _measured("verify") as results["verify"]:
        damage = [p for p in verify(root)["problems"] if "/models/" not in p]
    results["damaged"] = len(damage)
    return {**results, "index_bytes": index / count}


def _make_embeddings(folder: Path, tracks: int) -> list[dict]:
    """Rows of a track table, and the embedding files that they point to."""
    from grafp.catalog.embeddings import EMBEDDING_SCHEMA, write_embeddings

    rng = np.random.default_rng(0)
    centers = rng.standard_normal((2_000, 128)).astype(np.float32)
    rows: list[dict] = []
    for first in range(0, tracks, TRACKS_A_FILE):
        group: list[dict] = []
        for ordinal in range(first, min(tracks, first + TRACKS_A_FILE)):
            digest = hashlib.sha256(str(ordinal).encode()).hexdigest()
            group.append({**dict.fromkeys(EMBEDDING_SCHEMA.names),
                          "track_id": digest[:32], "uri": f"{ordinal:09d}.wav", "size": 1,
                          "content_sha256": digest, "duration_s": TRACK_SEGMENTS / 10,
                          "status": "ok", "attempts": 1, "model_id": "synthetic", "hop_s": 0.1,
                          "n_segments": TRACK_SEGMENTS,
                          "embeddings": walk(rng, centers)})  # fmt: skip
        key, places = write_embeddings(str(folder), "embeddings/synthetic/run", group)
        for ordinal, (row, place) in enumerate(zip(group, places, strict=True), first):
            del row["embeddings"]
            row |= {"ordinal": ordinal, "stored_as": row["track_id"], "source": None}
            rows.append({**row, "embedding_file": key, "embeddings_at": place})
    return rows


def walk(rng: np.random.Generator, centers: np.ndarray) -> np.ndarray:
    """Fingerprints of a track: float16 (segments, 128), changing a little from hop to hop."""
    stops = centers[rng.integers(len(centers), size=TRACK_SEGMENTS // 20 + 2)]
    at = np.arange(TRACK_SEGMENTS) / 20
    left, share = at.astype(int), (at % 1)[:, None].astype(np.float32)
    vectors = (1 - share) * stops[left] + share * stops[left + 1]
    vectors += 0.5 * rng.standard_normal(vectors.shape).astype(np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def _plain_build(folder: Path) -> dict:
    """What a script would do: read everything, train, add, write."""
    import faiss

    from grafp.index.size import IndexParameters

    parts = []
    for path in sorted((folder / "embeddings").rglob("*.parquet")):
        column = pq.read_table(io.BytesIO(path.read_bytes()), columns=["embeddings"])["embeddings"]
        flat = column.combine_chunks().flatten().flatten().to_numpy(zero_copy_only=False)
        parts.append(flat.reshape(-1, 128))
    vectors = np.concatenate(parts).astype(np.float32)
    parameters = IndexParameters.for_size(len(vectors))
    name = f"IVF{parameters.nlist},{parameters.codec}"
    index = faiss.index_factory(128, name, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = index.pq.cp.niter = 10
    rng = np.random.default_rng(0)
    index.train(vectors[rng.choice(len(vectors), parameters.training_points, replace=False)])
    index.add(vectors)
    faiss.write_index(index, str(folder / "plain.faiss"))
    return {"bytes": os.path.getsize(folder / "plain.faiss")}


@contextlib.contextmanager
def _measured(what: str) -> Iterator[dict]:
    """Time of a step and the memory of this process and its descendants, peak and at its start."""
    result: dict = {}
    peaks = [0.0]

    def memory() -> float:
        return memory_by_kind(os.getpid()).total()

    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            peaks[0] = max(peaks[0], memory())

    before, started = memory(), time.monotonic()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield result
    finally:
        done.set()
        watcher.join()
    result |= {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": round(peaks[0]),
        "before_mib": round(before),
    }
    print(
        f"{what:30} {result['seconds']:7.1f} s   peak {peaks[0]:6,.0f} MiB "
        f"({before:,.0f} before it began)"
    )


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
