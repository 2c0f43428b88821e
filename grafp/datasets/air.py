"""AIR, the Aachen impulse response database (Jeub et al. 2009): a MATLAB file for each response.

    AIR_1_4/air_binaural_lecture_0_1_1.mat    room lecture, channel 0, dummy head, position 1
    AIR_1_4/air_phone_office_hfrp_0.mat       room office, phone held in the hand, channel 0

Both ears, all positions and all ways to hold a phone in a room are one group.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from grafp import storage
from grafp.audio import EXTENSIONS
from grafp.audio.matlab import air_to_wav, is_matlab
from grafp.errors import OptionError, UnreadableAudio
from grafp.storage import FileInfo
from grafp.storage.sources import Item, item_of

_ROOM = re.compile(
    r"^air_(?:binaural|phone)_(?:bt_)?([a-z_]+?)\d*(?:_(?:hfrp|hhp))?(?:_\d+)*\.mat$"
)


def recordings(files: Sequence[FileInfo]) -> list[Item] | None:
    """The responses of AIR, with `group`: the room.

    Every file is read, so that a wrong one shows before training. None for a folder that has audio
    files, or no `.mat` file.

    Raises OptionError for a `.mat` file that is not of AIR, StorageError.
    """
    responses = [file for file in files if file.uri.lower().endswith(".mat")]
    if not responses or any(file.uri.lower().endswith(EXTENSIONS) for file in files):
        return None
    with ThreadPoolExecutor(max_workers=16) as pool:  # a request each, on S3
        for _ in pool.map(_check, responses):
            pass
    return [item_of(file, group=_group(file.uri.rpartition("/")[2])) for file in responses]


def _group(name: str) -> str:
    room = _ROOM.match(name)
    return f"AIR {room[1] if room else name.removesuffix('.mat')}"


def _check(file: FileInfo) -> None:
    data = storage.read(file.uri)
    try:
        if not is_matlab(data):
            raise UnreadableAudio("not a MATLAB file")
        air_to_wav(data)
    except UnreadableAudio as error:
        raise OptionError(f"{file.uri}: not a response of AIR: {error}") from None
