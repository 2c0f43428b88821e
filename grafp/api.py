"""The library in a notebook: load a model, fingerprint files, locate a clip in a recording."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from grafp import storage
from grafp.audio import decode
from grafp.model.bundle import DEFAULT_MIN_SCORE, DEFAULT_MODEL, load_bundle, read_card
from grafp.model.fingerprint import HOP_SECONDS
from grafp.model.inference import Fingerprinter


@dataclass(frozen=True)
class Model:
    """A loaded model, ready to fingerprint."""

    fingerprinter: Fingerprinter
    model_id: str
    offset_correction_s: float = 0.0
    """Subtracted from the offset of a match, s."""

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


@dataclass(frozen=True)
class Location:
    """The position of a clip in a recording, and how well it matches there."""

    start_s: float
    """Start of the clip in the recording, with the model's offset correction."""
    score: float
    """Mean inner product over the aligned fingerprints, -1..1."""


def load_model(name_or_uri: str = DEFAULT_MODEL, device: str = "cpu") -> Model:
    """A shipped model by name, or a bundle from a folder or prefix. Raises ModelError."""
    bundle = load_bundle(name_or_uri)
    fingerprinter = Fingerprinter.from_encoder(bundle.encoder, device)
    return Model(fingerprinter, bundle.model_id, bundle.offset_correction_s)


def locate(
    clip: np.ndarray,
    recording: np.ndarray,
    min_score: float = DEFAULT_MIN_SCORE,
    model: Model | None = None,
) -> Location | None:
    """Find a clip in a recording by exact comparison (paper, eq. 8); None: it is not in there.

    Args:
        clip, recording: fingerprints (segments, 128) of one model.
        min_score: least score of a match.
        model: the model, for its offset correction; None: the default one.
    """
    from grafp.index.alignment import align  # only here: the rest needs no index

    correction_s = model.offset_correction_s if model else _default_correction_s()
    match = align(clip, recording, correction_s / HOP_SECONDS)
    if match is None or match.score < min_score:
        return None
    return Location(max(0.0, match.start * HOP_SECONDS), match.score)


@cache
def _default_correction_s() -> float:
    return read_card(DEFAULT_MODEL).offset_correction_s
