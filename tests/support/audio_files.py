"""Recordings for tests, good and bad; made here, so that none need to be shipped."""

import io
import struct
from functools import lru_cache

import av
import numpy as np
from av.audio.resampler import AudioResampler

from grafp import audio
from grafp.audio import formats

FORMATS = tuple(extension.removeprefix(".") for extension in audio.EXTENSIONS)
WAV_FLOAT = 3


def tone(
    seconds: float, *, rate: int = audio.SAMPLE_RATE, channels: int = 1, hertz: float = 440.0
) -> np.ndarray:
    """A sine at half of full scale: float32 of shape (samples,) or (channels, samples)."""
    time_s = np.arange(round(seconds * rate)) / rate
    wave = (0.5 * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)
    return wave if channels == 1 else np.stack([wave] * channels)


@lru_cache(maxsize=64)
def tone_file(
    extension: str, seconds: float = 2.0, rate: int = audio.SAMPLE_RATE, layout: str = "mono"
) -> bytes:
    """An encoded 440 Hz tone, alike in all channels."""
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    samples = tone(seconds, rate=rate, channels=channels)
    return audio.encode(samples, extension, rate=rate, layout=layout)


def raw_wav(samples: np.ndarray, *, rate: int = audio.SAMPLE_RATE, code: int = 1) -> bytes:
    """A WAV of exactly these samples, of shape (samples, channels), with a header by hand.

    It allows what encoders refuse: not-a-numbers (`code` WAV_FLOAT) or 17 channels that have no
    layout.
    """
    channels, width = samples.shape[1], samples.dtype.itemsize
    body = samples.tobytes()
    form = struct.pack(
        "<HHIIHH", code, channels, rate, rate * channels * width, channels * width, 8 * width
    )
    chunks = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def video(extension: str, sound_S: np.ndarray | None) -> bytes:
    """Three seconds of a black picture, with a sound track or without."""
    file = io.BytesIO()
    wanted = next(one for one in formats.FORMATS if one.extension == f".{extension}")
    with av.open(file, "w", format=wanted.container) as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 64
        sounds = None
        if sound_S is not None:
            sounds = container.add_stream(wanted.codec, rate=audio.SAMPLE_RATE, layout="mono")
        for _ in range(30):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode())
        if sounds is not None:
            resampler = AudioResampler(
                format=sounds.format.name, layout="mono", rate=audio.SAMPLE_RATE,
                frame_size=sounds.codec_context.frame_size or 4096,
            )  # fmt: skip
            frame = av.AudioFrame.from_ndarray(sound_S[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = audio.SAMPLE_RATE, 0
            for ready in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(sounds.encode(ready))
            container.mux(sounds.encode(None))
    return file.getvalue()


def peak_hertz(samples: np.ndarray) -> float:
    """The strongest frequency of 16 kHz samples."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * audio.SAMPLE_RATE / len(samples))
