"""Tiny public data sets in the layout that they are unpacked in, made of synthesized sound."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy.io import savemat

from grafp.audio import encode, synthesis

FMA_HEADERS = (
    ("", "album", "album", "artist", "artist", "set", "set", "track"),
    ("", "id", "title", "id", "name", "split", "subset", "title"),
    ("track_id", "", "", "", "", "", "", ""),
)
FMA_SUBSETS = ("small", "medium", "large")
FMA_SPLITS = ("training", "training", "training", "validation", "test")


def fma_path(track: int) -> str:
    return f"{track // 1000:03d}/{track:06d}.mp3"


def fma_rows(tracks: Iterable[int], *, per_album: int = 1) -> list[dict[str, str]]:
    """Rows of tracks.csv: albums in the splits of FMA_SPLITS in turn, tracks in every subset.

    Tracks follow each other in an album; every second album is in subset small.
    """
    rows = []
    for number, track in enumerate(tracks):
        album = number // per_album
        split = FMA_SPLITS[album % len(FMA_SPLITS)]
        subset = FMA_SUBSETS[0] if album % 2 == 0 else FMA_SUBSETS[1]
        rows.append(
            {
                "track_id": str(track), "album/id": str(album), "artist/id": str(1000 + album),
                "album/title": 'a "title",\nin two lines', "set/split": split,
                "set/subset": subset, "track/title": f"piece {track}",
            }
        )  # fmt: skip
    return rows


def fma_metadata(rows: Iterable[Mapping[str, str]]) -> bytes:
    """The bytes of FMA's tracks.csv: three rows of headers, then the tracks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(FMA_HEADERS)
    names = ["track_id", *(f"{a}/{b}" for a, b in zip(*FMA_HEADERS[:2]) if a)]
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    return text.getvalue().encode()


def fma(
    root: Path, rows: list[dict[str, str]], *, subset: str = "medium", seconds: float = 3.0
) -> Path:
    """ROOT/fma_metadata and ROOT/fma_SUBSET with its tracks; returns the folder of the audio."""
    _put(root / "fma_metadata" / "tracks.csv", fma_metadata(rows))
    folder = root / f"fma_{subset}"
    last = min((*FMA_SUBSETS, "full").index(subset), 2)
    for row in rows:
        if row["set/subset"] in FMA_SUBSETS[: last + 1]:
            track = int(row["track_id"])
            sound = encode(synthesis.piece(track, seconds), "mp3", bit_rate=64_000)
            _put(folder / fma_path(track), sound)
    return folder


def musan(root: Path, *, noises: int = 12, music: int = 4, speech: int = 2) -> Path:
    """ROOT/musan: noise of two sources, music of two artists, speech; returns that folder."""
    folder = root / "musan"
    sources = [("noise", "free-sound", noises - noises // 4), ("noise", "sound-bible", noises // 4)]
    sources += [("music", "fma", music), ("speech", "librivox", speech)]
    for kind, source, count in sources:
        names = [f"{kind}-{source}-{number:04d}" for number in range(count)]
        for seed, name in enumerate(names):
            sound = encode(synthesis.noise(seed + 100 * len(source), 2.0), "wav")
            _put(folder / kind / source / f"{name}.wav", sound)
        notes = {
            "music": [f"{name} classical N Artist_{n % 2}" for n, name in enumerate(names)],
            "speech": [f"{name} m english" for name in names],
            "noise": names[:1],
        }
        _put(folder / kind / source / "ANNOTATIONS", "\n".join([*notes[kind], ""]).encode())
        _put(folder / kind / source / "LICENSE", b"public domain\n")
    _put(folder / "README", b"MUSAN\n")
    return folder


AIR_ROOMS = ("booth", "office", "meeting", "lecture", "stairway", "aula_carolina", "corridor")


def air_response(seed: int, *, rate: int = 48_000, delay_s: float = 0.01) -> np.ndarray:
    """Direct sound after a delay, then a decay: float64 (1, samples)."""
    random = np.random.default_rng(seed)
    time_s = np.arange(round(0.3 * rate)) / rate
    tail = 0.02 * random.standard_normal(len(time_s)) * np.exp(-time_s / 0.06)
    tail[0] = 0.1
    return np.concatenate([np.zeros(round(delay_s * rate)), tail])[None]


def air_file(response_CS: np.ndarray, *, rate: int = 48_000, room: str = "lecture") -> bytes:
    """The bytes of a MATLAB file as AIR has them."""
    data = io.BytesIO()
    info = {"fs": float(rate), "room": room, "channel": 1.0}
    savemat(data, {"h_air": response_CS, "air_info": info}, do_compression=True)
    return data.getvalue()


def air(root: Path, rooms: Iterable[str] = AIR_ROOMS) -> Path:
    """ROOT/AIR_1_4: two ears and a phone in each room; returns that folder."""
    folder = root / "AIR_1_4"
    for number, room in enumerate(rooms):
        names = (
            f"air_binaural_{room}_0_1_1",
            f"air_binaural_{room}_1_1_1",
            f"air_phone_{room}_hfrp_0",
        )
        for seed, name in enumerate(names):
            _put(folder / f"{name}.mat", air_file(air_response(10 * number + seed), room=room))
    _put(folder / "load_air.m", b"% a function of MATLAB\n")
    return folder


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
