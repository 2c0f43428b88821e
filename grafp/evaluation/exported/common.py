"""What both layouts of exported fingerprints share: settings, queries and checks."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from grafp import storage
from grafp.errors import OptionError
from grafp.evaluation.protocol import Clip
from grafp.model.fingerprint import DIMENSION, SEGMENT_SECONDS
from grafp.storage.records import read_record

SETTINGS_FILE = "embeddings.json"
_LONGEST_HOP_S = 10.0
_LENGTH_ERROR = 0.01  # of a unit vector, also one of float16
_MOST_LENGTHS = 20


@dataclass(frozen=True)
class Settings:
    """`embeddings.json`. Raises OptionError for a value that cannot work."""

    hop_s: float
    """Seconds between two fingerprints of a track."""
    query_hop_s: float | None = None
    """Seconds between two fingerprints of a query; None: like `hop_s`."""
    snr_db: float | None = None
    """Signal-to-noise ratio of the queries, dB, unless their table has it."""
    reverb: bool | None = None
    """Whether the queries are reverberant, unless their table has it."""
    offset_correction_s: float = 0.0
    """How much later than the truth the method's offsets are, s; subtracted from them."""
    method: str = ""
    """A name for the report."""

    def __post_init__(self) -> None:
        for name in ("hop_s", "query_hop_s"):
            hop_s = getattr(self, name)
            if hop_s is not None and not 0 < hop_s <= _LONGEST_HOP_S:
                raise OptionError(f"{name}: {hop_s:g} is not above 0 and at most 10 s")
        if abs(self.hop_s - self.stride * self.finer_hop_s) > 1e-6:
            raise OptionError(
                f"query_hop_s: {self.finer_hop_s:g} is not hop_s ({self.hop_s:g}) or a whole part "
                "of it, such as a half"
            )
        if self.snr_db is not None and not math.isfinite(self.snr_db):
            raise OptionError(f"snr_db: {self.snr_db} is not a number of dB")
        if not abs(self.offset_correction_s) <= 1.0:
            raise OptionError("offset_correction_s: at most 1 s either way")

    @property
    def finer_hop_s(self) -> float:
        """Seconds between two fingerprints of a query."""
        return self.hop_s if self.query_hop_s is None else self.query_hop_s

    @property
    def stride(self) -> int:
        """Query hops between two fingerprints of a track."""
        return max(1, round(self.hop_s / self.finer_hop_s))

    @property
    def offset_correction(self) -> float:
        """See `grafp.index.alignment.Searcher`."""
        return self.offset_correction_s / self.finer_hop_s


def read_settings(folder: str) -> Settings:
    """Raises OptionError when the file is missing or wrong."""
    uri = storage.join(folder, SETTINGS_FILE)
    if storage.stat(uri) is None:
        raise OptionError(
            f'--embeddings {uri}: missing; it has at least the hop, such as {{"hop_s": 0.1}}'
        )
    try:
        return read_record(uri, Settings, OptionError)
    except OptionError as error:
        raise OptionError(f"--embeddings {error}") from error


@dataclass(frozen=True)
class Query:
    """One query with its truth."""

    name: str
    clip: Clip
    """Its length, ratio and condition; `track` is its name where the track is unknown."""
    vectors_MD: np.ndarray
    """float16, one every `Settings.finer_hop_s`."""
    track: str | None
    """None: it is not in the database."""
    start_s: float | None
    """Where in the track it begins, s; None: only the track is known."""


class Export(Protocol):
    """A folder of exported fingerprints; errors are OptionError and name the file and the row."""

    settings: Settings

    def tracks(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and fingerprints, float16 (fingerprints, 128), of each track of the database."""

    def queries(self, seconds: Sequence[float], count: int, seed: int) -> list[Query]:
        """The queries; those that are cut out of an array have these lengths, s."""


def fingerprints(values_ND: np.ndarray, where: str) -> np.ndarray:
    """Vectors as float16; silence is zeros. `where` is the file and the row, for errors.

    Raises OptionError unless all have 128 finite numbers and the length 1 or 0.
    """
    if values_ND.ndim != 2 or values_ND.shape[1] != DIMENSION:
        shape = " x ".join(map(str, values_ND.shape))
        raise OptionError(f"{where}: an array of {shape}; a fingerprint has {DIMENSION} numbers")
    if not len(values_ND):
        raise OptionError(f"{where}: has no fingerprints")
    length_N = np.linalg.norm(values_ND.astype(np.float64), axis=1)
    if not np.isfinite(length_N).all():
        row = int(np.argmin(np.isfinite(length_N)))
        raise OptionError(
            f"{where}: fingerprint {row} has NaN or an infinite number; silence is zeros"
        )
    wrong_N = (length_N > 0) & (abs(length_N - 1) > _LENGTH_ERROR)
    if wrong_N.any():
        row = int(np.argmax(wrong_N))
        raise OptionError(
            f"{where}: fingerprint {row} has the length {length_N[row]:.4g}; divide each "
            "by its length, since they are compared by inner products"
        )
    return values_ND.astype(np.float16)


def make_clip(number: int, track: str, seconds: float, snr_db: float, reverb: bool) -> Clip:
    """What the tables of an evaluation ask of a query: length, ratio and condition."""
    return Clip(
        number=number,
        track=track,
        position=0.0,  # see `placed`
        seconds=seconds,
        longest=seconds,
        snr_db=snr_db,
        reverb=reverb,
        seed=0,
        grid_s=None,
    )


def seconds_of(fingerprints: int, hop_s: float) -> float:
    """Audio that so many fingerprints stand for."""
    return round(SEGMENT_SECONDS + (fingerprints - 1) * hop_s, 3)


def placed(
    folder: str, queries: Sequence[Query], sizes: Mapping[str, int], hop_s: float
) -> list[Query]:
    """The queries with their `Clip.position`.

    Args:
        sizes: fingerprints of each track.
        hop_s: seconds between two of them.

    Raises OptionError unless every query begins within its track.
    """
    result = []
    for query in queries:
        if query.track is not None and query.start_s is not None:
            ends_s = seconds_of(sizes[query.track], hop_s)
            if query.start_s >= ends_s:
                raise OptionError(
                    f"--embeddings {folder}: query {query.name} begins at {query.start_s:g} s, but "
                    f"its track {query.track} ends at {ends_s:g} s"
                )
            clip = replace(query.clip, position=query.start_s / ends_s)
            query = replace(query, clip=clip)
        result.append(query)
    return result


def check_lengths(folder: str, queries: Collection[Query]) -> None:
    """Raise OptionError for queries of so many lengths that no table could show them."""
    lengths = {query.clip.seconds for query in queries}
    if len(lengths) > _MOST_LENGTHS:
        raise OptionError(
            f"--embeddings {folder}: the queries have {len(lengths)} lengths, and each has a row "
            f"in the tables; cut them to at most {_MOST_LENGTHS}, such as 1, 2, 3 and 5 s"
        )
