"""Impulse responses of the Aachen database (AIR), which come as MATLAB files.

A file has one response, with the variables `h_air` (samples) and `air_info` (a struct, whose `fs`
is the sample rate); see Jeub et al., "A binaural room impulse response database", DSP 2009.
"""

import io
import struct
import zlib

import numpy as np

from grafp.audio.encoding import encode
from grafp.errors import UnreadableAudio

_PEAK = 0.9  # what resampling adds must not clip
_LAYOUTS = {1: "mono", 2: "stereo"}


def is_matlab(data: bytes) -> bool:
    return data.startswith(b"MATLAB ") and b"MAT-file" in data[:124]


def air_to_wav(data: bytes) -> bytes:
    """A response as the bytes of a WAV file, at its own rate, scaled to a peak of 0.9.

    The scale does not matter, since responses are used at unit energy. 16 bits then hold the decay.

    Raises UnreadableAudio for every other file.
    """
    response_CS, rate = _read(data)
    peak = np.abs(response_CS).max(initial=0.0)
    if not 0 < peak < np.inf:
        raise UnreadableAudio("h_air is empty, silent or not finite")
    channels = len(response_CS)
    return encode(response_CS * (_PEAK / peak), "wav", rate=rate, layout=_LAYOUTS[channels])


def _read(data: bytes) -> tuple[np.ndarray, int]:
    """The response, float (channels, samples), and its rate."""
    from scipy.io import loadmat  # here: only these files need it

    try:
        content = loadmat(io.BytesIO(data), variable_names=["h_air", "air_info"])
        response = np.asarray(content["h_air"], np.float64)
        rate = int(content["air_info"]["fs"][0, 0].item())
    except (
        ArithmeticError, AttributeError, LookupError, NotImplementedError, OSError, TypeError,
        ValueError, struct.error, zlib.error,
    ) as error:  # fmt: skip  # whatever SciPy's reader makes of a damaged or other file
        raise UnreadableAudio("a .mat file without h_air and air_info.fs of AIR") from error
    if response.ndim != 2 or min(response.shape) not in _LAYOUTS or rate < 1:
        raise UnreadableAudio(
            f"h_air has the shape {response.shape} at {rate} Hz, not one or two channels"
        )
    channels_first = response if len(response) in _LAYOUTS else response.T
    return np.ascontiguousarray(channels_first), rate
