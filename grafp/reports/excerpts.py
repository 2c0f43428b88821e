"""What a person sees and hears of an answer: two sounds, their spectrograms, how they are alike."""

import base64
from dataclasses import dataclass

import numpy as np

from grafp.audio import SAMPLE_RATE, encode
from grafp.evaluation.failures import spectrogram
from grafp.model.fingerprint import SEGMENT_SAMPLES, SEGMENT_SECONDS
from grafp.reports.charts import Picture, picture

LONGEST_S = 10.0
"""Of a query: what is longer is shown in part, and a report stays small."""
_BIT_RATE = 32_000
_FRAMES = 32  # of a spectrogram, a second


@dataclass(frozen=True)
class Excerpt:
    """A part of a recording."""

    begin_s: float
    """Where it begins in the recording; below 0 it is silent."""
    samples_S: np.ndarray
    """float32, 16 kHz mono, at least one."""

    @property
    def end_s(self) -> float:
        return self.begin_s + len(self.samples_S) / SAMPLE_RATE


@dataclass(frozen=True)
class Likeness:
    """Fingerprints of a query (rows) beside those of a track (columns)."""

    products_MN: np.ndarray
    """Inner products, -1..1; at least one."""
    query_s: float
    """Where the first row lies, and below: the seconds from one to the next."""
    query_hop_s: float
    track_s: float
    track_hop_s: float

    @property
    def track_end_s(self) -> float:
        columns: int = self.products_MN.shape[1]
        return self.track_s + (columns - 1) * self.track_hop_s + SEGMENT_SECONDS

    def share(self, query_s: float, track_s: float) -> tuple[float, float]:
        """Where two times meet, from the left and from the top, as shares of the picture."""
        rows, columns = self.products_MN.shape
        row = (query_s - self.query_s) / self.query_hop_s
        column = (track_s - self.track_s) / self.track_hop_s
        return (column + 0.5) / columns, (row + 0.5) / rows


@dataclass(frozen=True)
class Shown:
    """What there is of a query and of its best answer."""

    query: Excerpt | None = None
    track: Excerpt | None = None
    """As much music as the query has: a track that plays slower has more seconds for it."""
    why: str | None = None
    """Why there is no query, or else no track."""
    likeness: Likeness | None = None
    truth: Excerpt | None = None
    """The true passage, where the best answer is another."""


@dataclass(frozen=True)
class Sound:
    """An excerpt in a report."""

    begin_s: float
    end_s: float
    uri: str
    picture: Picture

    @classmethod
    def of(cls, name: str, excerpt: Excerpt) -> "Sound":
        """The whole excerpt, as MP3 and as what the encoder sees."""
        samples_S = excerpt.samples_S
        data = base64.b64encode(encode(samples_S, "mp3", bit_rate=_BIT_RATE)).decode()
        whole_S = np.pad(samples_S, (0, -len(samples_S) % SEGMENT_SAMPLES))
        frames = max(1, round(_FRAMES * len(samples_S) / SAMPLE_RATE))
        shown = picture(name, spectrogram(whole_S)[:, :frames])
        return cls(excerpt.begin_s, excerpt.end_s, f"data:audio/mpeg;base64,{data}", shown)


@dataclass(frozen=True)
class Alignment:
    """A likeness in a report, with the line that was found."""

    begin_s: float
    """What of the track is shown."""
    end_s: float
    picture: Picture
    line: tuple[float, float, float, float]
    """From the left, from the top, twice; % of the picture."""

    @classmethod
    def of(
        cls, likeness: Likeness, query_s: tuple[float, float], track_s: float, speed: float
    ) -> "Alignment":
        """`query_s`: from where to where the query was found, at `track_s` of the track."""
        first_s = query_s[0]
        last_s = likeness.query_s + (len(likeness.products_MN) - 1) * likeness.query_hop_s
        last_s = max(first_s, min(query_s[1] - SEGMENT_SECONDS, last_s))
        ends = (
            likeness.share(first_s, track_s),
            likeness.share(last_s, track_s + speed * (last_s - first_s)),
        )
        x0, y0, x1, y1 = (round(100 * share, 2) for end in ends for share in end)
        shown = picture("similarity", likeness.products_MN[::-1])  # the first row is on top
        return cls(likeness.track_s, likeness.track_end_s, shown, (x0, y0, x1, y1))
