"""Sound to int16 samples, and to the bytes of an audio file for demos and tests."""

import io
from fractions import Fraction

import av
import numpy as np
from av.audio.resampler import AudioResampler

from grafp.audio.formats import FORMATS, SAMPLE_RATE
from grafp.errors import AudioError

_ONLY_RATE = {"libopus": 48_000}
_BIT_RATE = {"wmav2": 64_000}  # of an encoder that chooses none itself


def to_pcm(samples_S: np.ndarray) -> np.ndarray:
    """Float samples to int16, rounded; values beyond -1..1 are clipped."""
    pcm_S: np.ndarray = np.rint(samples_S.clip(-1, 1) * 32767).astype(np.int16)
    return pcm_S


def encode(
    samples: np.ndarray,
    extension: str = "wav",
    *,
    rate: int = SAMPLE_RATE,
    layout: str = "mono",
    bit_rate: int | None = None,
) -> bytes:
    """Encode float32 samples in -1..1, of shape (samples,) or (channels, samples), as a file.

    `extension` is one of `EXTENSIONS`, without the dot; `layout` is FFmpeg's name for the
    channels (mono, stereo, 5.1); `bit_rate`, bits a second, is the encoder's own by default.
    """
    wanted = next((one for one in FORMATS if one.extension == f".{extension}"), None)
    if wanted is None:
        names = ", ".join(one.extension[1:] for one in FORMATS)
        raise AudioError(f"cannot write {extension!r}; choose one of {names}")
    container_format, codec = wanted.container, wanted.codec
    pcm_CT = np.atleast_2d(np.clip(samples, -1.0, 1.0)).astype(np.float32)
    out, source_layout = io.BytesIO(), layout
    with av.open(out, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=_ONLY_RATE.get(codec, rate))
        assert isinstance(stream, av.AudioStream)
        if codec == "vorbis":  # FFmpeg's own encoder: marked experimental, stereo only
            layout, stream.options = "stereo", {"strict": "experimental"}
        stream.layout = layout
        bit_rate = bit_rate or _BIT_RATE.get(codec)
        if bit_rate:
            stream.bit_rate = bit_rate
        resampler = AudioResampler(
            format=stream.format.name,
            layout=layout,
            rate=stream.rate,
            frame_size=stream.codec_context.frame_size or 4096,
        )
        frame = av.AudioFrame.from_ndarray(pcm_CT, format="fltp", layout=source_layout)
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = 0
        for ready in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(ready))
        container.mux(stream.encode(None))
    return out.getvalue()
