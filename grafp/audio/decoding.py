"""Bytes of any supported recording to 16 kHz mono float32.

One decoder (FFmpeg's libraries, bundled with PyAV) serves references, queries and training
data, because decoders differ slightly in how they mix and resample.
"""

import io
from collections.abc import Iterator

import av
import numpy as np
from av.audio.resampler import AudioResampler

from grafp.audio.formats import FORMATS, SAMPLE_RATE
from grafp.audio.matlab import air_to_wav, is_matlab
from grafp.errors import (
    ChannelAudio,
    EmptyAudio,
    SilentAudio,
    TooLongAudio,
    TooShortAudio,
    TruncatedAudio,
    UnreadableAudio,
)

MAX_SECONDS = 3 * 3600.0
LOUDEST_PEAK = 1e6  # 16-bit values in a float file pass; beyond, powers overflow float32
# Rates outside are damage, and resampling from 2 GHz would take minutes.
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
SILENCE_PEAK = 1e-4  # -80 dB below full scale: nothing above the noise of a 14-bit converter

# FFmpeg's names of containers: those that begin with their length, those with one bit rate.
_LENGTH_FIRST = ("mp3", "flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_ONE_RATE = ("mp3", "wav", "w64", "aiff")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # of the properties of the file
_MATROSKA, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")  # RFC 9559
# Only containers we claim: FFmpeg also knows playlists, which would open other files and hosts.
_CONTAINER_OPTIONS = {
    "format_whitelist": ",".join(sorted({name for one in FORMATS for name in one.demuxers})),
    "protocol_whitelist": "",
}


def decode(
    data: bytes,
    *,
    min_seconds: float = 1.0,
    max_seconds: float = MAX_SECONDS,
    allow_silent: bool = False,
) -> np.ndarray:
    """Decode a recording to a float32 array of shape (samples,) at 16 kHz mono.

    `min_seconds` and `max_seconds` bound the accepted length; decoding stops at the limit, so
    a small file that expands to days of audio costs no more than the limit.

    Raises the subclass of AudioError that names the problem.
    """
    blocks = list(_checked_blocks(data, min_seconds, max_seconds, allow_silent))
    return np.concatenate(blocks)


def checked(samples_S: np.ndarray) -> np.ndarray:
    """Samples that were decoded elsewhere, float32. Raises the AudioError that `decode` would."""
    if samples_S.ndim != 1 or samples_S.dtype.kind != "f":
        raise UnreadableAudio(
            f"{samples_S.dtype} samples of shape {samples_S.shape}; give 16 kHz mono as float32, "
            "shape (samples,)"
        )
    _check(len(samples_S) / SAMPLE_RATE, _peak(samples_S), None, b"", 1.0, allow_silent=True)
    return samples_S.astype(np.float32, copy=False)


def decode_chunks(
    data: bytes,
    *,
    samples: int,
    overlap: int,
    min_seconds: float = 1.0,
    max_seconds: float = MAX_SECONDS,
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a long recording in chunks, of which only one is in memory.

    Args:
        samples: of a chunk; the last one may be shorter.
        overlap: how many samples it shares with the one before.

    Yields the first sample and the float32 (samples,) of each chunk, at 16 kHz mono.

    Raises what `decode` raises, some of it only after the last whole chunk: what was yielded
    until then is of a recording that cannot be used.
    """
    first, waiting, count = 0, [np.zeros(0, np.float32)], 0
    for block in _checked_blocks(data, min_seconds, max_seconds, allow_silent=False):
        waiting.append(block)
        count += len(block)
        if count > samples:  # "more": the last chunk is never the overlap alone
            sound_S = np.concatenate(waiting)
            while len(sound_S) > samples:
                yield first, sound_S[:samples]
                sound_S, first = sound_S[samples - overlap :], first + samples - overlap
            waiting, count = [sound_S.copy()], len(sound_S)
    yield first, np.concatenate(waiting)


def declared_seconds(head: bytes, size: int) -> float | None:
    """The length of a recording as its first bytes tell it; nothing is decoded.

    Args:
        head: the beginning of the file, or all of it.
        size: of the whole file, bytes.

    Returns None where they do not tell: some containers have the length at their end. Raises
    UnreadableAudio.
    """
    try:
        with av.open(io.BytesIO(head), "r", container_options=_CONTAINER_OPTIONS) as container:
            if not container.streams.audio:
                raise UnreadableAudio("the file holds no audio stream")
            name, rate = container.format.name, container.streams.audio[0].bit_rate
            if len(head) >= size or name in _LENGTH_FIRST:
                declared = _declared_seconds(container, head)
                if declared is not None:
                    return declared
    except (av.error.FFmpegError, ValueError, UnicodeDecodeError) as error:
        if len(head) < size:
            return None
        raise UnreadableAudio(f"cannot be decoded: {_one_line(error)}") from error
    return 8 * size / rate if rate and name in _ONE_RATE else None


def _checked_blocks(
    data: bytes, min_seconds: float, max_seconds: float, allow_silent: bool
) -> Iterator[np.ndarray]:
    """Mono sound as it is decoded; raises at the end what only the whole recording shows."""
    if not data:
        raise EmptyAudio("the file has no bytes")
    if is_matlab(data):
        data = air_to_wav(data)
    count, peak = 0, 0.0
    try:
        with av.open(io.BytesIO(data), "r", container_options=_CONTAINER_OPTIONS) as container:
            if not container.streams.audio:
                raise UnreadableAudio("the file holds no audio stream")
            declared = _declared_seconds(container, data)
            for block in _mono_blocks(container):
                count += len(block)
                peak = max(peak, _peak(block))
                if count > max_seconds * SAMPLE_RATE:
                    raise TooLongAudio(f"longer than the limit of {max_seconds:g} s")
                yield block
    except (av.error.FFmpegError, ValueError, UnicodeDecodeError) as error:
        if _ogg_is_cut(data):
            raise TruncatedAudio("the file is cut off before its first sound") from error
        raise UnreadableAudio(f"cannot be decoded: {_one_line(error)}") from error
    _check(count / SAMPLE_RATE, peak, declared, data, min_seconds, allow_silent)


def _peak(block: np.ndarray) -> float:
    peak = float(np.abs(block).max(initial=0.0))
    if not peak <= LOUDEST_PEAK:  # "not": also where it is not a number
        raise UnreadableAudio("the file holds samples that are no numbers or far out of range")
    return peak


def _mono_blocks(container: av.container.InputContainer) -> Iterator[np.ndarray]:
    stream = container.streams.audio[0]
    resampler, source = _mono_resampler(), None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue  # one damaged packet; what is lost shows in the length, checked at the end
        for frame in frames:
            mixed: list[av.AudioFrame] = []
            before, source = source, (frame.format.name, frame.layout.name, frame.sample_rate)
            if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
                raise UnreadableAudio(f"claims {frame.sample_rate} samples per second")
            try:
                if before not in (None, source):  # files joined end to end, or damage
                    mixed, resampler = resampler.resample(None), _mono_resampler()
                mixed += resampler.resample(frame)
            except (av.error.FFmpegError, ValueError) as error:
                raise ChannelAudio(
                    f"cannot mix {frame.layout.nb_channels} channels ({frame.layout.name}) "
                    f"to mono: {_one_line(error)}"
                ) from error
            for out in mixed:
                yield out.to_ndarray()[0]
    for out in resampler.resample(None):
        yield out.to_ndarray()[0]


def _mono_resampler() -> AudioResampler:
    return AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)


def _declared_seconds(container: av.container.InputContainer, data: bytes) -> float | None:
    """The length that the header promises, or None where FFmpeg could only guess it."""
    stream = container.streams.audio[0]
    if container.format.name == "mp3":  # where large tags follow the sound, FFmpeg guesses
        frames, rate = _mp3_frames(data), stream.rate
        return frames * (1152 if rate >= 32_000 else 576) / rate if frames and rate else None
    if container.format.name in ("aac", "asf"):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and not container.streams.video:  # Matroska
        return container.duration / av.time_base
    return None


def _mp3_frames(data: bytes) -> int:
    """The frame count in the Xing, Info or VBRI header of the first frame; 0 if it has none."""
    start = 0
    if data[:3] == b"ID3" and len(data) > 10:  # tag size: four bytes of seven bits
        digits = zip(data[6:10], (21, 14, 7, 0), strict=True)
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in digits)
    head = data[start : start + 4096]
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at >= 0 and int.from_bytes(head[at + 4 : at + 8], "big") & 1:  # flag: a count follows
        return int.from_bytes(head[at + 8 : at + 12], "big")
    at = head.find(b"VBRI")
    return int.from_bytes(head[at + 14 : at + 18], "big") if at >= 0 else 0


def _wav_is_cut(data: bytes) -> bool:
    """Whether a RIFF file is shorter than its size field; 0 and the maximum mean a live stream."""
    size = int.from_bytes(data[4:8], "little")
    return data[:4] == b"RIFF" and 0 < size < 0xFFFFFFFF and size + 8 > len(data) + 1


def _asf_is_cut(data: bytes) -> bool:
    """Whether a WMA file is shorter than its header says; 0 means a live stream."""
    at = data[:4096].find(_ASF_FILE)
    return at >= 0 and int.from_bytes(data[at + 40 : at + 48], "little") > len(data)


def _matroska_is_cut(data: bytes) -> bool:
    """Whether the segment of a Matroska file lacks bytes; all bits of its size mean a live stream.

    Where there is a video, the length in the header may be that of the pictures.
    """
    at = data[:4096].find(_SEGMENT) + len(_SEGMENT)
    if data[:4] != _MATROSKA or at < len(_SEGMENT) or len(data) <= at or not data[at]:
        return False
    bits = 7 * (9 - data[at].bit_length())  # zeros before the first one: bytes that follow
    size = int.from_bytes(data[at : at + bits // 7], "big") & ((1 << bits) - 1)
    return size != (1 << bits) - 1 and at + bits // 7 + size > len(data)


def _ogg_is_cut(data: bytes) -> bool:
    """Whether the last Ogg page lacks bytes: Ogg has no length in its header (RFC 3533)."""
    last = data.rfind(b"OggS")
    if data[:4] != b"OggS" or last < 0:
        return False
    if len(data) < last + 27 or len(data) < last + 27 + data[last + 26]:
        return True
    segment_count = data[last + 26]
    body = sum(data[last + 27 : last + 27 + segment_count])
    return len(data) < last + 27 + segment_count + body


def _check(
    seconds: float,
    peak: float,
    declared: float | None,
    data: bytes,
    min_seconds: float,
    allow_silent: bool,
) -> None:
    if declared is not None and seconds < declared - max(0.25, 0.01 * declared):
        raise TruncatedAudio(f"holds {seconds:.2f} s of the {declared:.2f} s in its header")
    if any(is_cut(data) for is_cut in (_ogg_is_cut, _wav_is_cut, _asf_is_cut, _matroska_is_cut)):
        raise TruncatedAudio(f"the file is cut off after {seconds:.2f} s of sound")
    if seconds == 0:
        raise EmptyAudio("the file holds no samples")
    if seconds < min_seconds:
        raise TooShortAudio(f"lasts {seconds:.2f} s; at least {min_seconds:g} s are needed")
    if not allow_silent and peak < SILENCE_PEAK:
        raise SilentAudio("is silent from start to end (after mixing to mono)")


def _one_line(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
