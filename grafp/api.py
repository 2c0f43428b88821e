"""The library in a notebook: load a model, fingerprint files, locate a clip in a recording."""

from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from grafp import storage
from grafp.audio import decode
from grafp.model.background import Background, parse_background
from grafp.model.bundle import (
    DEFAULT_MIN_SCORE,
    DEFAULT_MODEL,
    load_bundle,
    read_background,
    read_card,
)
from grafp.model.fingerprint import HOP_SECONDS, SEGMENT_SECONDS
from grafp.model.inference import Fingerprinter

if TYPE_CHECKING:
    from grafp.index.background import BackgroundSearch


@dataclass(frozen=True)
class Model:
    """A loaded model, ready to fingerprint."""

    fingerprinter: Fingerprinter
    model_id: str
    offset_correction_s: float = 0.0
    """Subtracted from the offset of a match, s."""
    background: Background | None = field(default=None, repr=False)
    """Music that is in no catalog; without it there are no false-positive rates."""

    def fingerprint(self, recording: str | np.ndarray) -> np.ndarray:
        """Fingerprints of a recording, one every 0.1 s.

        Args:
            recording: path or URI of an audio file, or 16 kHz mono samples (float32, at least 1 s).

        Returns float32 (segments, 128), unit vectors; zeros where it is silent.

        Raises AudioError or StorageError when the file cannot be used.
        """
        if isinstance(recording, str):
            recording = decode(storage.read(recording))
        return self.fingerprinter(recording)

    @cached_property
    def _beside(self) -> "BackgroundSearch | None":
        return _opened(self.background)


@dataclass(frozen=True)
class Location:
    """The position of a clip in a recording, and how well it matches there."""

    start_s: float
    """Start of the clip in the recording, with the model's offset correction."""
    score: float
    """Mean inner product over the aligned fingerprints, -1..1."""
    speed: float = 1.0
    """How fast the recording plays in the clip; 1.04 is 4 % faster."""
    false_positive_rate: float | None = None
    """The share of clips that are not in the recording and agree as well with some part of it;
    None if the model has no background."""


def load_model(name_or_uri: str = DEFAULT_MODEL, device: str = "cpu") -> Model:
    """A shipped model by name, or a bundle from a folder or prefix. Raises ModelError."""
    bundle = load_bundle(name_or_uri)
    data = read_background(name_or_uri)
    return Model(
        Fingerprinter.from_encoder(bundle.encoder, device),
        bundle.model_id,
        bundle.offset_correction_s,
        parse_background(data, bundle.sha256, name_or_uri) if data else None,
    )


def locate(
    clip: np.ndarray,
    recording: np.ndarray,
    min_score: float = DEFAULT_MIN_SCORE,
    model: Model | None = None,
    max_speed_change: float = 0.05,
) -> Location | None:
    """Find a clip in a recording by exact comparison (paper, eq. 8); None: it is not in there.

    Args:
        clip, recording: fingerprints (segments, 128) of one model.
        min_score: least score of a match.
        model: the model, for its offset correction and background; None: the default one.
        max_speed_change: how much faster or slower the recording may play in the clip, as a share.
    """
    from grafp.index.alignment import align  # only here: the rest needs no index

    correction_s, background, beside = (
        (model.offset_correction_s, model.background, model._beside) if model else _default()
    )
    match = align(clip, recording, correction_s / HOP_SECONDS, max_speed_change)
    if match is None or match.score < min_score:
        return None
    start_s = max(0.0, match.start * HOP_SECONDS)
    rate = None
    if background and beside:
        rate = _rate(clip, len(recording), match.rank_score, background, beside)
    return Location(start_s, match.score, match.speed, rate)


def _rate(
    clip: np.ndarray,
    segments: int,
    score: float,
    background: Background,
    search: "BackgroundSearch",
) -> float:
    """The false-positive rate of a score in a recording of so many segments."""
    from grafp.index.background import law_alone
    from grafp.index.evidence import against, reached

    [beside] = reached([clip], search)
    seconds = (len(clip) - 1) * HOP_SECONDS + SEGMENT_SECONDS
    law = law_alone(background, seconds, segments)
    return law.false_positive_rate(score - against(beside.score) - beside.too_steady)


@cache
def _default() -> "tuple[float, Background | None, BackgroundSearch | None]":
    """Offset correction and background of the default model, the latter also opened."""
    card, data = read_card(DEFAULT_MODEL), read_background(DEFAULT_MODEL)
    background = parse_background(data, card.sha256, DEFAULT_MODEL) if data else None
    return card.offset_correction_s, background, _opened(background)


def _opened(background: Background | None) -> "BackgroundSearch | None":
    from grafp.index.background import BackgroundSearch

    return BackgroundSearch.of(background, HOP_SECONDS) if background else None
