"""grafp and other programs on the same files: cut the queries, run each system, time it."""

import csv
import io
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from peer_systems.answers import INDEXED, Found, Query, read_answers

from grafp import storage
from grafp.audio import SAMPLE_RATE, decode, encode
from grafp.errors import AudioError, OptionError, StorageError
from grafp.evaluation.hit_rates import CONDITIONS
from grafp.evaluation.protocol import Clip, make_clip
from grafp.storage.sources import Item, read_table
from pipelines.common.runtime import connect
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.querying.flow import query_batch

_TRUTH = ["query", "track", "start_s", "seconds", "snr_db", "condition"]


@dataclass(frozen=True)
class Outcome:
    """What one system did with the queries."""

    found: dict[str, Found]
    """The best answer by query; a query without one is not there."""
    index_s: float | None = None
    """Seconds until its references were ready; None: within query_s."""
    query_s: float | None = None
    """Seconds for all queries."""
    missing: str | None = None
    """Why there is no result."""


def write_files(
    music: Sequence[Item],
    unknown: set[str],
    clips: Sequence[Clip],
    noises: Sequence[np.ndarray],
    rirs: Sequence[np.ndarray],
    out: str,
) -> list[Query]:
    """Write what all systems get, the clips as WAV files at half of full scale, and truth.csv.

    Args:
        music: recordings with the path that all systems are given as their URI.
        unknown: URIs that are not among the references.
        out: absolute path of a folder.

    Raises OptionError unless clips of known and of unknown tracks could be made.
    """
    longest = max(clip.longest for clip in clips)
    queries = []
    for track in sorted({clip.track for clip in clips}):
        try:
            track_S = decode(storage.read(track), min_seconds=longest)
        except (AudioError, StorageError) as error:
            print(f"  no clip of {track}: {error}")
            continue
        for clip in (clip for clip in clips if clip.track == track):
            start, clip_S = make_clip(clip, track_S, noises, rirs)
            path = f"{out}/queries/{clip.number:06d}.wav"
            level = 0.5 / max(1e-9, float(np.abs(clip_S).max()))
            storage.write(path, encode(level * clip_S, "wav"))
            queries.append(
                Query(path, clip, None if track in unknown else track, start / SAMPLE_RATE)
            )
    if len({query.track is None for query in queries}) < 2:
        raise OptionError("--queries: no clip of a known or of an unknown track; ask for more")
    queries.sort(key=lambda query: query.clip.number)
    references = [[item.uri] for item in music if item.uri not in unknown]
    _write_table(f"{out}/references.csv", [["path"], *references])
    _write_table(f"{out}/queries.csv", [["path"], *([query.path] for query in queries)])
    _write_table(f"{out}/truth.csv", [_TRUTH, *map(_truth, queries)])
    return queries


def _truth(query: Query) -> list[Any]:
    clip, start = query.clip, f"{query.start_s:.6f}" if query.track else ""
    condition = CONDITIONS[clip.reverb]
    return [query.path, query.track, start, clip.seconds, clip.snr_db, condition]


def _write_table(path: str, rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    storage.write(path, text.getvalue().encode())


def answer_with_grafp(out: str, model: str, encoders: Encoders) -> Outcome:
    """The best answer to each query in OUT, below grafp's own threshold too."""
    connect()  # starting Ray is not indexing
    catalog, started = f"{out}/catalog", time.monotonic()
    index_catalog(f"{out}/references.csv", catalog, model=model, encoders=encoders)
    indexed = time.monotonic()
    _, table = query_batch(catalog, f"{out}/queries.csv", f"{out}/answers", encoders=encoders)
    ended = time.monotonic()
    found = {
        row["query"]: Found(row["track"], row["track_start_s"] - row["query_start_s"], row["score"])
        for row in table.to_pylist()
        if row["rank"] == 1 and row["track"] is not None
    }
    return Outcome(found, indexed - started, ended - indexed)


def answer_with_program(name: str, command: Sequence[str], out: str) -> Outcome:
    """Run a program over the tables in OUT; what it prints is kept as OUT/NAME.tsv.

    Args:
        command: its words, with {references} and {queries}; it is run without a shell.

    A program that fails or prints something else is an outcome with a reason.
    """
    tables = {kind: f"{out}/{kind}.csv" for kind in ("references", "queries")}
    for kind, table in tables.items():
        command = [word.replace("{" + kind + "}", table) for word in command]
    paths = {kind: {row["path"] for row in read_table(table)} for kind, table in tables.items()}
    lines, indexed, started = [], None, time.monotonic()
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if line.rstrip() == INDEXED:
                    indexed = time.monotonic()
        ended = time.monotonic()
        storage.write(f"{out}/{name}.tsv", "".join(lines).encode())
        if process.returncode:
            raise OptionError(f"exit code {process.returncode} after {len(lines)} lines")
        found = read_answers(lines, paths["queries"], paths["references"])
    except (OSError, OptionError) as error:
        print(f"system {name}: {error}")
        return Outcome({}, missing=f"failed: {error}")
    index_s = None if indexed is None else indexed - started
    return Outcome(found, index_s, ended - (indexed or started))
