"""MUSAN (Snyder et al. 2015, https://www.openslr.org/17): music, noise and speech.

    musan/noise/free-sound/noise-free-sound-0000.wav, ... and LICENSE, ANNOTATIONS beside them
    musan/music/fma/music-fma-0000.wav, ...
    musan/speech/librivox/speech-librivox-0000.wav, ...

A line of ANNOTATIONS beside music names file, genres, vocals (Y or N) and artist. Who speaks and
where a noise was recorded is not known, so that each of these recordings is a group.
"""

import re
from collections.abc import Sequence

from grafp import storage
from grafp.storage import FileInfo
from grafp.storage.sources import Item, item_of

_NAME = re.compile(r"(?:^|/)((music|noise|speech)-[a-z-]+-\d{4})\.wav$")


def recordings(files: Sequence[FileInfo]) -> list[Item] | None:
    """The recordings of MUSAN or of one of its folders, with `kind` and `group`.

    None for another folder. Raises StorageError.
    """
    sounds = [file for file in files if file.uri.lower().endswith(".wav")]
    names = [_NAME.search(file.uri) for file in sounds]
    if not names or None in names:
        return None
    artists: dict[str, str] = {}
    for file in files:
        if file.uri.endswith("/ANNOTATIONS"):
            artists |= _artists(storage.read(file.uri).decode(errors="replace"))
    return [
        item_of(file, kind=name[2], group=artists.get(name[1], name[1]))
        for file, name in zip(sounds, names, strict=True)
        if name
    ]


def _artists(text: str) -> dict[str, str]:
    """The artist of each piece of music."""
    lines = (line.split(maxsplit=3) for line in text.splitlines())
    return {line[0]: line[3] for line in lines if len(line) == 4 and line[0].startswith("music-")}
