"""FMA (Defferrard et al. 2017, https://github.com/mdeff/fma): music in four subsets.

    fma_medium/000/000002.mp3, ...    the audio: fma_small, fma_medium, fma_large or fma_full
    fma_metadata/tracks.csv           two rows of headers, a row `track_id`, a row for each track

The metadata lies in the folder of the audio or beside it. Its `set/split` becomes `split`, its
album the group.
"""

import io
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pc

from grafp import storage
from grafp.audio import EXTENSIONS
from grafp.errors import OptionError
from grafp.storage import FileInfo
from grafp.storage.sources import Item, item_of

logger = logging.getLogger(__name__)

SUBSETS = ("small", "medium", "large", "full")
"""Each has the tracks of those before."""
SHORT_CLIPS = frozenset({
    1486, 5574, 65753, 80391, 98558, 98559, 98560, 98565, 98566, 98567, 98568, 98569, 98571, 99134,
    105247, 108924, 108925, 126981, 127336, 133297, 143992,
})  # fmt: skip
"""Clips of less than 30 s, most of them without any sound, in small, medium and large: from "Known
issues" of https://github.com/mdeff/fma/wiki. Their whole recordings in full are good."""

_AUDIO = re.compile(r"(?:^|/)(\d{3})/(\1\d{3})\.mp3$")
_ROOT_SUBSET = re.compile(r"fma_(small|medium|large|full)$")
_METADATA = ("tracks.csv", "fma_metadata/tracks.csv")
_SPLITS = {"training": "train", "validation": "validation", "test": "test"}
_STRICTEST = ("test", "validation", "train")
_COLUMNS = ("set/split", "set/subset", "album/id", "artist/id")


@dataclass(frozen=True)
class Track:
    """What the metadata says of a track."""

    split: str
    smallest: int
    """The first of SUBSETS that has it."""
    group: str


def recordings(uri: str, files: Sequence[FileInfo], subset: str | None = None) -> list[Item] | None:
    """The recordings of FMA, with `split` and `group`. None for another folder.

    `subset` is one of SUBSETS; None: the one that the folder is named after, such as fma_medium,
    else all that is there. SHORT_CLIPS are left out, and tracks whose album is in a stricter part.

    Raises OptionError when audio or metadata are missing, StorageError.
    """
    audio = {int(found[2]): file for file in files if (found := _AUDIO.search(file.uri))}
    others = sum(file.uri.lower().endswith(EXTENSIONS) for file in files) - len(audio)
    if not audio:
        metadata_here = {storage.join(uri, name) for name in _METADATA}
        if not others and metadata_here & {file.uri for file in files}:
            raise OptionError(
                f"{uri}: has FMA's metadata, but no audio such as 000/000002.mp3; name the folder "
                "of the audio, such as fma_medium"
            )
        return None
    metadata = _find_metadata(uri)
    if metadata is None:
        if others:
            return None
        raise OptionError(
            f"{uri}: has FMA's numbered folders, but no fma_metadata/tracks.csv is in it or "
            "beside it; unpack fma_metadata.zip there, or give a table with path and split"
        )
    root = _one_root(uri, audio.values())
    named = _ROOT_SUBSET.search(storage.absolute(root))
    tracks = read_tracks(metadata)
    _check_known(uri, metadata, audio, tracks)
    wanted = subset or (named[1] if named else None)
    if wanted is not None:
        size = SUBSETS.index(wanted)
        tracks = {key: one for key, one in tracks.items() if one.smallest <= size}
        _check_whole(uri, wanted, audio, tracks)
    short = frozenset() if (named[1] if named else wanted) == "full" else SHORT_CLIPS
    chosen = {key: tracks[key] for key in sorted((audio.keys() & tracks.keys()) - short)}
    kept = _albums_once(chosen)
    logger.info(
        f"{uri}: {len(kept)} tracks of FMA {wanted or ''}".rstrip()
        + f"; left out: {len(audio.keys() & tracks.keys() & short)} known to be too short, "
        f"{len(chosen) - len(kept)} of albums in two parts"
        + (f", {others} other recordings" if others else "")
    )
    return [item_of(audio[key], split=one.split, group=one.group) for key, one in kept.items()]


def read_tracks(uri: str) -> dict[int, Track]:
    """FMA's tracks.csv, by the number of the track. Raises OptionError, StorageError."""
    data = storage.read(uri)
    try:
        upper, lower, third = (
            line.decode().rstrip().split(",") for line in data.split(b"\n", 3)[:3]
        )
        names = ["track_id", *(f"{a}/{b}" for a, b in zip(upper[1:], lower[1:], strict=True))]
        table = pc.read_csv(
            io.BytesIO(data),
            pc.ReadOptions(
                column_names=names,
                skip_rows=3 if third[0] == "track_id" else 2,
                block_size=16 << 20,  # a row with a biography must fit
            ),
            pc.ParseOptions(newlines_in_values=True),
            pc.ConvertOptions(
                include_columns=["track_id", *_COLUMNS],
                column_types={name: pa.string() for name in _COLUMNS} | {"track_id": pa.int64()},
            ),
        )
        return {row["track_id"]: _track(row) for row in table.to_pylist()}
    except (ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise OptionError(f"{uri}: not FMA's tracks.csv ({reason})") from error


def _track(row: dict[str, str]) -> Track:
    """Raises KeyError, ValueError for a split or subset that FMA does not have."""
    album, artist = row["album/id"], row["artist/id"]
    group = f"FMA album {album}" if album not in ("", "-1") else f"FMA artist {artist}"
    return Track(_SPLITS[row["set/split"]], SUBSETS.index(row["set/subset"]), group)


def _find_metadata(uri: str) -> str | None:
    """Its URI: in the folder, or beside it."""
    beside = storage.absolute(uri).rstrip("/").rpartition("/")[0]
    for folder in (uri, beside):
        for name in _METADATA:
            if storage.stat(found := storage.join(folder, name)) is not None:
                return found
    return None


def _one_root(uri: str, audio: Iterable[FileInfo]) -> str:
    """The folder of the numbered folders."""
    roots = {_AUDIO.sub("", file.uri) for file in audio}
    if len(roots) > 1:
        names = ", ".join(sorted(os.path.basename(root) for root in roots))
        raise OptionError(f"{uri}: has FMA's audio in several folders ({names}); name one of them")
    return roots.pop()


def _check_known(
    uri: str, metadata: str, audio: Mapping[int, FileInfo], tracks: Mapping[int, Track]
) -> None:
    if unknown := sorted(audio.keys() - tracks.keys()):
        raise OptionError(
            f"{uri}: {len(unknown)} of {len(audio)} recordings are not in {metadata}, such as "
            f"{_path(unknown[0])}; give the metadata of the same data set"
        )


def _check_whole(
    uri: str, subset: str, audio: Mapping[int, FileInfo], tracks: Mapping[int, Track]
) -> None:
    if missing := sorted(tracks.keys() - audio.keys() - SHORT_CLIPS):
        raise OptionError(
            f"{uri}: {len(missing)} of the {len(tracks)} tracks of FMA's subset {subset} are "
            f"missing, such as {_path(missing[0])}; unpack fma_{subset}.zip there, or name the "
            "folder and subset that you have"
        )


def _albums_once(tracks: Mapping[int, Track]) -> dict[int, Track]:
    """Each album in one part only: `test` if any track is there, else `validation`."""
    parts: dict[str, set[str]] = {}
    for track in tracks.values():
        parts.setdefault(track.group, set()).add(track.split)
    home = {group: next(part for part in _STRICTEST if part in has) for group, has in parts.items()}
    return {key: track for key, track in tracks.items() if track.split == home[track.group]}


def _path(number: int) -> str:
    return f"{number // 1000:03d}/{number:06d}.mp3"
