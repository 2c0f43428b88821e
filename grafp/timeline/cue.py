"""Cue sheets: the timeline of a recording in the form that players read.

A cue sheet knows where a track begins, not where it ends. What is between two detections is a
track of its own, titled "unknown". The format was made for compact discs: from track 100 and
minute 100 on, numbers have three digits, which strict readers refuse.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

UNKNOWN = "unknown"
_LEAST_UNKNOWN_SECONDS = 3.0  # between two detections; a shorter gap goes to the one before
_FRAMES = 75  # a second
_LONGEST_NAME = 50  # characters, of up to four bytes; file systems take 255 bytes


def cue_sheet(
    recording: str, detections: Sequence[tuple[float, float, str]], duration_s: float
) -> str:
    """The text of a cue sheet.

    Args:
        recording: its URI; the sheet names the last part, as if it lay beside the recording.
        detections: (start, end, URI of the track) in seconds, in order and without overlap.
        duration_s: of the recording, seconds.
    """
    entries: list[tuple[float, str]] = []
    end_s = 0.0
    for start_s, next_end_s, track in detections:
        if start_s - end_s >= _LEAST_UNKNOWN_SECONDS:
            entries.append((end_s, UNKNOWN))
        # A sheet begins at its beginning.
        entries.append((start_s if entries else 0.0, _stem(track)))
        end_s = next_end_s
    if not entries or duration_s - end_s >= _LEAST_UNKNOWN_SECONDS:
        entries.append((end_s, UNKNOWN))
    name = _last_part(recording)
    lines = [f'FILE "{_quotable(name)}" {"MP3" if name.lower().endswith(".mp3") else "WAVE"}']
    for number, (start_s, title) in enumerate(entries, 1):
        seconds, frames = divmod(int(start_s * _FRAMES), _FRAMES)
        lines += [
            f"  TRACK {number:02d} AUDIO",
            f'    TITLE "{_quotable(title)}"',
            f"    INDEX 01 {seconds // 60:02d}:{seconds % 60:02d}:{frames:02d}",
        ]
    return "\n".join(lines) + "\n"


def file_names(recordings: Sequence[str]) -> list[str]:
    """A name for the cue sheet of each URI, safe on any file system, all different.

    The recording's own name; where two would be alike, each with a part of its URI's hash.
    """
    names = [_safe(_stem(uri)) for uri in recordings]
    alike = Counter(name.casefold() for name in names)
    return [
        f"{name}.cue"
        if name and alike[name.casefold()] == 1
        else f"{name}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}.cue"
        for name, uri in zip(names, recordings, strict=True)
    ]


def _safe(name: str) -> str:
    return re.sub(r"[^\w .,()+&-]", "_", name)[:_LONGEST_NAME].strip(" .")


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _stem(uri: str) -> str:
    name = _last_part(uri)
    return name.rpartition(".")[0] or name


def _quotable(text: str) -> str:
    """Strings in a cue sheet have no way to hold a quotation mark or a line break."""
    return " ".join(text.replace('"', "'").split())
