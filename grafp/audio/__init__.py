"""Audio: files of every supported format to 16 kHz mono samples, and what degrades them.

In the order of the flow: formats (the table of formats), decoding, encoding; then what happens to
music before it is recorded: speed, mixing (noise and impulse responses), effects (loudspeakers,
microphones, codecs), degrade (a whole clip). These four need PyTorch and are imported by name.
synthesis makes music, noise and impulse responses for demos and tests.
"""

from grafp.audio.decoding import (
    MAX_SECONDS,
    SILENCE_PEAK,
    checked,
    declared_seconds,
    decode,
    decode_chunks,
)
from grafp.audio.encoding import encode, to_pcm
from grafp.audio.formats import COMMON, EXTENSIONS, SAMPLE_RATE

__all__ = [
    "COMMON", "EXTENSIONS", "MAX_SECONDS", "SAMPLE_RATE", "SILENCE_PEAK", "checked",
    "declared_seconds", "decode", "decode_chunks", "encode", "to_pcm",
]  # fmt: skip
