"""The spectrograms that encoders take, by name; without PyTorch, since model cards tell them."""

from dataclasses import dataclass
from typing import Any

from grafp.audio import SAMPLE_RATE
from grafp.model.fingerprint import SEGMENT_SECONDS


@dataclass(frozen=True)
class Spectrogram:
    """A log-mel spectrogram of one segment: whole frames, without padding."""

    mels: int
    """Frequency bands."""
    frames: int
    """Points in time."""
    window: int
    """Samples in a frame."""
    hop: int
    """Samples between the starts of two frames."""

    @property
    def name(self) -> str:
        return f"log-mel-{self.mels}x{self.frames}"

    def to_card(self) -> dict[str, Any]:
        """`features` in the card of a model that takes it."""
        sizes = {"sample_rate": SAMPLE_RATE, "segment_s": SEGMENT_SECONDS}
        return {"name": self.name, "version": 1, **sizes}


DEFAULT = Spectrogram(mels=64, frames=32, window=1024, hop=483)
"""Of the paper (Table I), and of every preset that does not name another."""
_TRANSFORMER = Spectrogram(mels=64, frames=100, window=400, hop=157)
"""Of the transformer in the authors' code: windows of 25 ms, about 10 ms apart."""
SPECTROGRAMS = {one.name: one for one in (DEFAULT, _TRANSFORMER)}
