"""The library in a notebook: load a model, fingerprint files, ask whether one lies in the other."""

from dataclasses import dataclass

import numpy as np

from grafp import storage
from grafp.audio import decode
from grafp.index.alignment import align
from grafp.model.bundle import DEFAULT_MIN_SCORE, DEFAULT_MODEL, load_bundle
from grafp.model.fingerprint import HOP_SECONDS
from grafp.model.inference import Fingerprinter


@dataclass(frozen=True)
class Model:
    """A loaded model, ready to fingerprint."""

    fingerprinter: Fingerprinter
    model_id: str

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
    """Where a clip lies in a recording, and how sure that is."""

    start_s: float
    """Not moved by the model's `offset_bias_s`, as a query's places are."""
    score: float
    """Mean inner product over the aligned fingerprints, -1..1."""


def load_model(name_or_uri: str = DEFAULT_MODEL, device: str = "cpu") -> Model:
    """A shipped model by name, or a bundle from a folder or prefix. Raises ModelError."""
    bundle = load_bundle(name_or_uri)
    return Model(Fingerprinter.from_encoder(bundle.encoder, device), bundle.model_id)


def locate(
    clip: np.ndarray, recording: np.ndarray, min_score: float = DEFAULT_MIN_SCORE
) -> Location | None:
    """Find a clip in a recording by exact comparison (paper, eq. 8); None: it is not in there.

    Args:
        clip, recording: fingerprints (segments, 128) of one model.
        min_score: what a match must reach.
    """
    match = align(clip, recording)
    if match is None or match.score < min_score:
        return None
    return Location(max(0.0, match.start * HOP_SECONDS), match.score)
