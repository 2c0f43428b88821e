"""Sound: files of every supported format to 16 kHz mono samples, and what happens to sound.

The modules beside the decoder (effects, mixing, speed) need PyTorch and are imported by name.
"""

from grafp.audio.decoding import MAX_SECONDS, SILENCE_PEAK, decode, decode_chunks
from grafp.audio.encoding import encode, to_pcm
from grafp.audio.formats import EXTENSIONS, SAMPLE_RATE

__all__ = [
    "EXTENSIONS", "MAX_SECONDS", "SAMPLE_RATE", "SILENCE_PEAK", "decode", "decode_chunks",
    "encode", "to_pcm",
]  # fmt: skip
