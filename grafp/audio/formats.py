"""Every audio format that is read: what to add to support another one.

FFmpeg's libraries, bundled with PyAV, decode and encode all of them.
"""

from dataclasses import dataclass

SAMPLE_RATE = 16_000
"""Of all decoded sound, mono, samples a second."""


@dataclass(frozen=True)
class AudioFormat:
    """A kind of audio file."""

    extension: str
    """Of its files, such as ".mp3"."""
    container: str
    """FFmpeg's name of the container that `encode` writes."""
    codec: str
    """FFmpeg's name of the codec that `encode` writes."""
    demuxers: tuple[str, ...]
    """FFmpeg's names of the containers that `decode` accepts."""
    bytes_a_second: float
    """Of a typical file, to estimate durations before anything is decoded."""


_MPEG_4 = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "aac")
FORMATS = (
    AudioFormat(".wav", "wav", "pcm_s16le", ("wav", "w64", "aiff"), 176_400),
    AudioFormat(".flac", "flac", "flac", ("flac",), 100_000),
    AudioFormat(".mp3", "mp3", "libmp3lame", ("mp3",), 20_000),
    AudioFormat(".ogg", "ogg", "vorbis", ("ogg",), 20_000),
    AudioFormat(".opus", "ogg", "libopus", ("ogg",), 20_000),
    AudioFormat(".m4a", "ipod", "aac", _MPEG_4, 20_000),
    AudioFormat(".oga", "ogg", "flac", ("ogg",), 100_000),
    AudioFormat(".aac", "adts", "aac", ("aac",), 20_000),
    AudioFormat(".aif", "aiff", "pcm_s16be", ("aiff",), 176_400),
    AudioFormat(".aiff", "aiff", "pcm_s16be", ("aiff",), 176_400),
    AudioFormat(".wma", "asf", "wmav2", ("asf",), 20_000),
    AudioFormat(".mka", "matroska", "flac", ("matroska", "webm"), 100_000),
    # Containers of video: the first sound track counts.
    AudioFormat(".webm", "webm", "libopus", ("matroska", "webm"), 150_000),
    AudioFormat(".mkv", "matroska", "aac", ("matroska", "webm"), 500_000),
    AudioFormat(".mp4", "mp4", "aac", _MPEG_4, 300_000),
    AudioFormat(".m4v", "mp4", "aac", _MPEG_4, 300_000),
    AudioFormat(".mov", "mov", "aac", _MPEG_4, 1_000_000),
    AudioFormat(".avi", "avi", "pcm_s16le", ("avi",), 300_000),
)
EXTENSIONS = tuple(one.extension for one in FORMATS)
COMMON = EXTENSIONS[:6]
"""In which most music is stored."""
