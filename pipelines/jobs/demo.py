"""Show how music is identified: index a collection, then query noisy, reverberant excerpts of it.

    grafp demo                      with synthesized music
    grafp demo --audio ~/Music      with your own

A few tracks stay out of the catalog: their excerpts should be rejected.

Exit code: 0 done, 1 failed, 2 bad arguments.
"""

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from grafp.errors import AudioError, OptionError, StorageError
from grafp.option_values import (
    Count,
    Folder,
    Kind,
    Natural,
    number,
)
from pipelines.common import cli

if TYPE_CHECKING:
    from grafp.storage.sources import Item


@dataclass(kw_only=True)
class Options:
    audio: Folder | None = None
    """Your own music (default: synthesized music)."""
    out: Folder = "demo-out"
    """Folder for everything that the demo makes; each run replaces it."""
    tracks: Count = 48
    """Pieces to synthesize, 30 s each."""
    clips: Count = 60
    """Excerpts to query."""
    seconds: Annotated[float, Kind("S", number(1.0, 3600.0))] = 5.0
    """Length of an excerpt, seconds."""
    snr: Annotated[float, Kind("DB", number(-60.0, 120.0))] = 5.0
    """Signal-to-noise ratio, dB."""
    seed: Natural = 0
    """Seed of music, cuts and noise."""


def options(arguments: list[str] | None = None, *, prog: str | None = None) -> Options:
    return cli.parse(Options, __doc__, arguments, prog=prog)


def main(chosen: Options) -> tuple[dict[str, Any], int]:
    from grafp.evaluation.truth import read_truth
    from grafp.storage.sources import list_items
    from pipelines.indexing.flow import index_catalog
    from pipelines.querying.flow import query_batch

    started = time.monotonic()
    out = os.path.abspath(chosen.out)
    _start_over(out)
    if chosen.audio:
        items = list_items(chosen.audio)
    else:
        print(f"[1/4] Synthesizing {chosen.tracks} pieces of 30 s")
        _synthesize(f"{out}/music", chosen.tracks, chosen.seed)
        items = list_items(f"{out}/music")
    known, unknown = _keep_some_out(items)
    print(f"[2/4] Indexing {len(known)} tracks; {len(unknown)} more stay out of the catalog")
    indexed = index_catalog(known, f"{out}/catalog")
    print(
        f"[3/4] Cutting {chosen.clips} excerpts of {chosen.seconds:g} s at random positions, "
        "and adding reverberation and noise"
    )
    _cut(known, unknown, chosen, out)
    print("[4/4] Querying the catalog")
    truth = read_truth(f"{out}/truth.csv")
    summary, _ = query_batch(f"{out}/catalog", f"{out}/queries", f"{out}/answers", truth=truth)
    _show(summary, out, time.monotonic() - started)
    return {**summary, "tracks": indexed["tracks"], "failed": indexed["failed"]}, cli.DONE


def _start_over(out: str) -> None:
    """Remove what an earlier demo left; never a folder that is something else."""
    from grafp import storage

    marker = f"{out}/made-by-demo"
    try:
        if os.path.isdir(out) and os.listdir(out):
            if not os.path.exists(marker):
                raise OptionError(
                    f"--out {out}: holds other files; choose a folder that is empty or new"
                )
            shutil.rmtree(out)
    except OSError as error:
        raise StorageError(f"--out {out}: {error.strerror}; choose another folder") from error
    storage.write(marker, b"")


def _synthesize(folder: str, count: int, seed: int) -> None:
    """Write pieces in the formats in which most music is stored."""
    from grafp import storage
    from grafp.audio import COMMON, encode, synthesis
    from pipelines.common.progress import progress

    with progress("pieces", count) as advance:
        for piece in range(count):
            extension = COMMON[piece % len(COMMON)]
            piece_S = synthesis.piece(seed * 10_000 + piece)
            storage.write(f"{folder}/piece-{piece:03d}{extension}", encode(piece_S, extension[1:]))
            advance()


def _keep_some_out(items: list["Item"]) -> tuple[list["Item"], list["Item"]]:
    """The tracks to index, and those to keep out: one in eight, spread over the list."""
    if len(items) < 2:
        raise OptionError("--audio, --tracks: at least two recordings are needed")
    unknown = items[4::8] or items[-1:]
    return [item for item in items if item not in unknown], unknown


def _cut(known: list["Item"], unknown: list["Item"], chosen: Options, out: str) -> None:
    """Write excerpts as WAV files, and truth.csv; a quarter comes from unknown tracks."""
    import csv
    import io

    import numpy as np

    from grafp import storage
    from grafp.audio import SAMPLE_RATE, decode, encode, synthesis
    from grafp.audio.degrade import cut_degraded

    random = np.random.default_rng(chosen.seed)
    lines = []
    for clip in range(chosen.clips):
        pool = unknown if clip % 4 == 3 else known
        item = pool[int(random.integers(len(pool)))]
        try:
            track_S = decode(storage.read(item.location), min_seconds=chosen.seconds)
        except AudioError as error:
            print(f"  no excerpt of {item.uri}: {error}")
            continue
        start = int(random.integers(len(track_S) - int(chosen.seconds * SAMPLE_RATE) + 1))
        clip_S = cut_degraded(
            track_S,
            start,
            chosen.seconds,
            snr_db=chosen.snr,
            noise_S=synthesis.noise(clip, chosen.seconds),
            rir_S=synthesis.impulse_response(clip),
        )
        path = f"{out}/queries/clip-{clip:03d}.wav"
        storage.write(path, encode(0.5 * clip_S / np.abs(clip_S).max(), "wav"))
        offset = f"{start / SAMPLE_RATE:.4f}"
        lines.append([path, item.uri, offset] if pool is known else [path, "", ""])
    if not lines:
        raise OptionError(f"--seconds {chosen.seconds:g}: longer than the recordings")
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["query", "track", "start_s"], *lines])
    storage.write(f"{out}/truth.csv", table.getvalue().encode())


def _show(rates: dict[str, Any], out: str, seconds: float) -> None:
    refused = rates["false_positive"]
    rows = [
        ("right track found", rates["hit_track"]["hits"], rates["hit_track"]["total"]),
        (
            "right track within 50 ms",
            rates["hit_50ms"]["hits"],
            rates["hit_50ms"]["total"],
        ),
        ("unknown music refused", refused["total"] - refused["hits"], refused["total"]),
        (
            "known music matched",
            rates["false_negative"]["total"] - rates["false_negative"]["hits"],
            rates["false_negative"]["total"],
        ),
    ]
    print("")
    for label, hits, total in rows:
        print(f"  {label:<42}{hits:>4} of {total}")
    print(f"\nDone in {seconds:.0f} s. Answers: {out}/answers/matches.parquet")
    print(f"Report, to look at and to listen to: {out}/answers/report.html\n")
