"""Every format that is claimed, and every way in which a recording can be unusable."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audio_files import FORMATS, WAV_FLOAT, peak_hertz, raw_wav, tone, tone_file, video

from grafp import audio
from grafp.errors import (
    AudioError,
    ChannelAudio,
    EmptyAudio,
    SilentAudio,
    TooLongAudio,
    TooShortAudio,
    TruncatedAudio,
    UnreadableAudio,
)

RATE = audio.SAMPLE_RATE
EXACT = ("wav", "flac", "oga", "aif", "aiff", "mka", "avi")
"""Formats that keep the number of samples, as they are written here."""


def refused(data: bytes, kind: type[AudioError], **limits: float) -> str:
    """The message with which `data` is refused; fails unless for exactly this reason."""
    with pytest.raises(AudioError) as error:
        audio.decode(data, **limits)
    assert error.type is kind, error.value
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def int16_wav(channels: int, rate: int = RATE) -> bytes:
    wave = (tone(2.0, rate=rate) * 32767).astype("<i2")
    return raw_wav(np.repeat(wave[:, None], channels, axis=1), rate=rate)


@pytest.mark.parametrize(
    ("rate", "layout"), [(16_000, "mono"), (44_100, "mono"), (44_100, "stereo"), (48_000, "stereo")]
)
@pytest.mark.parametrize("extension", FORMATS)
def test_each_format_decodes_to_the_same_sound(extension: str, rate: int, layout: str) -> None:
    samples = audio.decode(tone_file(extension, 3.0, rate, layout))
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(3 * RATE, abs=(0.1 if extension == "aac" else 0.05) * RATE)
    assert peak_hertz(samples) == pytest.approx(440, abs=1)
    middle = samples[RATE : 2 * RATE]
    purity = np.abs(np.fft.rfft(middle))[435:446] ** 2
    assert purity.sum() > 0.99 * (np.abs(np.fft.rfft(middle)) ** 2).sum()


@pytest.mark.parametrize("extension", FORMATS)
def test_no_format_shifts_time(extension: str) -> None:
    """Encoders pad the beginning; a decoder that kept it would move every match."""
    time_s = np.arange(3 * RATE) / RATE
    sweep = (0.5 * np.sin(2 * np.pi * (200 * time_s + 450 * time_s**2))).astype(np.float32)
    decoded = audio.decode(audio.encode(sweep, extension))
    size = 1 << 17
    cross = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(sweep, size)), size)
    lag = (int(cross.argmax()) + size // 2) % size - size // 2
    # Two do not say how much their encoder put before the sound: a frame, and half a frame.
    assert abs(lag) <= {"aac": 1024, "wma": 512}.get(extension, 0.001 * RATE)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: tone_file("wav", 2.0, 8_000), id="8 kHz mono"),
        pytest.param(lambda: tone_file("flac", 2.0, 96_000, "5.1"), id="96 kHz 5.1"),
        pytest.param(lambda: int16_wav(3), id="3 channels without layout"),
        pytest.param(lambda: raw_wav(tone(2.0)[:, None], code=WAV_FLOAT), id="float"),
        pytest.param(lambda: raw_wav(tone(2.0)[:, None] * 32767, code=WAV_FLOAT), id="loud float"),
    ],
)
def test_unusual_recordings_that_are_fine(data: Callable[[], bytes]) -> None:
    samples = audio.decode(data())
    assert len(samples) == 2 * RATE
    assert peak_hertz(samples) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_has_no_length_and_is_fine(size: int) -> None:
    data, unknown = int16_wav(1), struct.pack("<I", size)
    data = data[:4] + unknown + data[8:40] + unknown + data[44:]
    assert len(audio.decode(data)) == 2 * RATE


def test_an_mp3_with_large_tags_around_it_is_fine() -> None:
    sound = tone_file("mp3", 2.0, 44_100, "stereo")
    before = b"ID3\x03\x00\x00\x00\x00\x40\x00" + bytes(0x40 << 7)
    data = before + sound + b"APETAGEX" + bytes(len(sound))
    assert len(audio.decode(data)) == pytest.approx(2 * RATE, abs=0.05 * RATE)


def test_files_joined_end_to_end_decode_across_the_seam() -> None:
    data = tone_file("mp3", 2.0, 44_100, "stereo") + tone_file("mp3", 2.0, 48_000, "mono")
    samples = audio.decode(data)
    assert len(samples) == pytest.approx(4 * RATE, abs=0.2 * RATE)
    assert peak_hertz(samples[: 2 * RATE]) == pytest.approx(440, abs=1)
    assert peak_hertz(samples[-RATE:]) == pytest.approx(440, abs=1)


def test_no_bytes_and_no_samples_are_empty() -> None:
    refused(b"", EmptyAudio)
    refused(raw_wav(np.zeros((0, 1), "<i2")), EmptyAudio)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x", id="one byte"),
        pytest.param(b"This is a text, renamed to song.mp3.\n" * 200, id="text"),
        pytest.param(b"<!DOCTYPE html>\n<html>\n<p>404</p>\n" * 50, id="web page"),
        pytest.param(np.random.default_rng(0).bytes(50_000), id="random bytes"),
        pytest.param(bytes(50_000), id="zeros"),
    ],
)
def test_what_is_not_audio_is_unreadable(data: bytes) -> None:
    refused(data, UnreadableAudio)


@pytest.mark.parametrize(
    "playlist",
    [
        "{path}\n",
        "#EXTM3U\n#EXTINF:2,Song\n{path}\n",
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n"
        "#EXTINF:2,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        "<Period><AdaptationSet><Representation><BaseURL>file://{path}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
    ],
    ids=["paths", "m3u", "hls", "ffconcat", "dash"],
)
def test_a_playlist_never_opens_what_it_names(playlist: str, tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(tone_file("wav"))
    refused(playlist.format(path=song).encode(), UnreadableAudio)


@pytest.mark.parametrize("part", [0.5, 0.9])
@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("extension", [one for one in FORMATS if one != "aac"])  # has no length
def test_a_file_that_is_cut_off_is_refused(extension: str, rate: int, part: float) -> None:
    data = tone_file(extension, 3.0, rate)
    # Without faststart, an MP4's index comes last: nothing can be told about such a file.
    mpeg_4 = extension in ("m4a", "mp4", "m4v", "mov")
    kind = UnreadableAudio if mpeg_4 else TruncatedAudio
    refused(data[: int(part * len(data))], kind)


@pytest.mark.parametrize("extension", ["mp4", "mkv", "mov", "avi"])
def test_the_sound_track_of_a_video_is_decoded(extension: str) -> None:
    with_sound, without = video(extension, tone(3.0)), video(extension, None)
    samples = audio.decode(with_sound)
    assert len(samples) == pytest.approx(3 * RATE, abs=0.1 * RATE)
    assert peak_hertz(samples) == pytest.approx(440, abs=1)
    assert "no audio stream" in refused(without, UnreadableAudio)
    # As for recordings, an MP4's index comes last.
    kind = UnreadableAudio if extension in ("mp4", "mov") else TruncatedAudio
    for part in (0.5, 0.9):
        refused(with_sound[: int(part * len(with_sound))], kind)


def test_length_limits() -> None:
    assert "0.30 s" in refused(tone_file("wav", 0.3), TooShortAudio)
    assert len(audio.decode(tone_file("wav", 0.3), min_seconds=0.2)) == round(0.3 * RATE)
    for extension in FORMATS:
        assert "3 s" in refused(tone_file(extension, 5.0), TooLongAudio, max_seconds=3.0)


@pytest.mark.parametrize(("seconds", "count"), [(3.0, 1), (4.0, 1), (4.1, 2), (7.0, 2), (10.0, 3)])
@pytest.mark.parametrize("extension", FORMATS)
def test_chunks_are_the_whole_with_overlaps(extension: str, seconds: float, count: int) -> None:
    data = audio.encode(np.concatenate([tone(seconds / 2), 0.2 * tone(seconds / 2)]), extension)
    whole_S = audio.decode(data)
    chunks = list(audio.decode_chunks(data, samples=4 * RATE, overlap=RATE))
    assert len(chunks) == -(-max(0, len(whole_S) - 4 * RATE) // (3 * RATE)) + 1
    assert extension not in EXACT or len(chunks) == count
    for number, (first, sound_S) in enumerate(chunks):
        assert first == number * 3 * RATE
        assert np.array_equal(sound_S, whole_S[first : first + 4 * RATE])
    assert first + len(sound_S) == len(whole_S)


@pytest.mark.parametrize(
    ("data", "kind", "before"),
    [
        pytest.param(lambda: tone_file("flac", 9.0)[:-5_000], TruncatedAudio, 2, id="cut off"),
        pytest.param(lambda: tone_file("wav", 20.0), TooLongAudio, 3, id="too long"),
        pytest.param(lambda: tone_file("wav", 0.5), TooShortAudio, 0, id="too short"),
        pytest.param(lambda: b"text", UnreadableAudio, 0, id="no audio"),
        pytest.param(
            lambda: audio.encode(np.zeros(9 * RATE, np.float32)), SilentAudio, 2, id="silent"
        ),
    ],
)
def test_chunks_are_refused_as_the_whole_is(
    data: Callable[[], bytes], kind: type[AudioError], before: int
) -> None:
    heard: list[int] = []
    chunks = audio.decode_chunks(data(), samples=4 * RATE, overlap=RATE, max_seconds=12.0)
    with pytest.raises(kind) as error:
        heard.extend(len(sound_S) for _, sound_S in chunks)
    assert heard == [4 * RATE] * before
    assert str(error.value) == refused(data(), kind, max_seconds=12.0)


def test_silence_is_refused_unless_allowed() -> None:
    for extension in FORMATS:
        refused(audio.encode(np.zeros(2 * RATE, np.float32), extension), SilentAudio)
    wave = tone(2.0)
    opposite = audio.encode(np.stack([wave, -wave]), "wav", layout="stereo")
    assert "mono" in refused(opposite, SilentAudio)
    assert not audio.decode(opposite, allow_silent=True).any()
    assert audio.decode(audio.encode(wave * 0.001, "wav")).any()


@pytest.mark.parametrize("channels", [9, 17, 300])
def test_channels_that_have_no_layout_are_refused(channels: int) -> None:
    assert f"{channels} channels" in refused(int16_wav(channels), ChannelAudio)


@pytest.mark.parametrize("rate", [16_000, 22_050])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_numbers_or_absurd_are_unreadable(value: float, rate: int) -> None:
    wave = tone(2.0, rate=rate)
    wave[100] = value
    refused(raw_wav(wave[:, None], rate=rate, code=WAV_FLOAT), UnreadableAudio)


@pytest.mark.parametrize("extension", FORMATS)
def test_damaged_bytes_give_samples_or_an_audio_error(extension: str) -> None:
    """Half of the files are damaged anywhere, half in their first 200 bytes."""
    intact = tone_file(extension, 2.0, 44_100, "stereo")
    rng = np.random.default_rng(FORMATS.index(extension))
    for attempt in range(24):
        data = bytearray(intact)
        reach = 200 if attempt % 2 else len(data)
        for position in rng.integers(0, reach, size=rng.integers(1, 30)):
            data[position] = rng.integers(0, 256)
        refusal = ""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                samples = audio.decode(bytes(data))
            except AudioError as error:
                refusal = str(error)
        assert "\n" not in refusal
        assert refusal or (np.isfinite(samples).all() and len(samples) >= RATE)


@pytest.mark.parametrize("rate", [1, 1_962_950_272])
def test_impossible_sample_rates_are_refused_at_once(rate: int) -> None:
    data = int16_wav(1)
    assert str(rate) in refused(data[:24] + struct.pack("<I", rate) + data[28:], UnreadableAudio)


def test_encode_names_the_formats_it_knows() -> None:
    with pytest.raises(AudioError, match="wav, flac, mp3, ogg, opus, m4a, oga"):
        audio.encode(tone(1.0), "mid")
