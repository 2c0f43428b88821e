"""Music, noise and impulse responses as they come: public data sets, other folders, and tables.

Everything becomes a list of recordings with the columns of a table: `split`, `group` and others.
This is the one place where data sets become tables, and where noise and impulse responses are
divided between training and evaluation. `python -m grafp.datasets` writes such a table to a file.

In the order of the flow: fma, musan and air know the layout of one data set each; parts divides.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from grafp import storage
from grafp.audio import decode, to_pcm
from grafp.datasets import air, fma, musan
from grafp.datasets.parts import in_part, split_once
from grafp.errors import AudioError, OptionError, StorageError
from grafp.storage.sources import Item, from_files, is_table, list_items

logger = logging.getLogger(__name__)

__all__ = ["Kind", "Part", "list_part", "list_recordings", "waveforms"]

Kind = Literal["music", "noise", "rir"]
Part = Literal["train", "test"]


def list_recordings(kind: Kind, uri: str) -> list[Item]:
    """All recordings of a folder, a public data set or a table, with the columns known of them.

    Noise and impulse responses without a column `split` get one, see `split_once`.

    Raises OptionError when a data set is not whole or a table is wrong, StorageError.
    """
    items = list_items(uri) if is_table(uri) else _from_folder(uri)
    if kind != "music" and items and all("split" not in item.row for item in items):
        items = split_once(items)
        count = len(in_part(items, "test"))
        logger.info(
            f"{uri}: has no splits; evaluation takes {count} of {len(items)} recordings, "
            "training the others"
        )
    return items


def list_part(kind: Kind, uri: str, part: Part) -> list[Item]:
    """The recordings for training (those for its validation too), or for evaluation.

    Raises like `list_recordings`, and OptionError when there are none.
    """
    items = list_recordings(kind, uri)
    chosen = in_part(items, part)
    if not chosen:
        if not items:
            raise OptionError(f"{uri}: no recordings there")
        splits = ", ".join(sorted({str(item.row["split"]) for item in items}))
        raise OptionError(
            f"{uri}: none of its {len(items)} recordings is of the split {part}, but of {splits}; "
            "add recordings, or give a table with a column split"
        )
    return chosen


def waveforms(items: Sequence[Item], tell: Callable[[str], None] = logger.info) -> list[np.ndarray]:
    """The recordings decoded, int16 (samples,), 16 kHz; `tell` gets a line for each left out."""
    decoded = []
    for item in items:
        try:
            decoded.append(to_pcm(decode(storage.read(item.location), min_seconds=0.0)))
        except (AudioError, StorageError) as error:
            tell(f"  left out: {item.uri}: {error}")
    return decoded


def _from_folder(uri: str) -> list[Item]:
    files = storage.list_files(uri)
    found = fma.recordings(uri, files)
    if found is None:
        found = musan.recordings(files)
    if found is None:
        found = air.recordings(files)
    return from_files(uri, files) if found is None else found
