"""Two hundred damaged and hostile files: each has its own row with a reason or an answer."""

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from audio_files import FORMATS, raw_wav, tone_file, video

from grafp.audio import encode, synthesis
from pipelines.common import cli
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.jobs import query_batch as query_job

pytestmark = pytest.mark.slow
EACH = 36  # damaged files of a format


def damaged(intact: bytes, random: np.random.Generator) -> bytes:
    """Bytes changed, cut out, doubled, or put in another order."""
    data = bytearray(intact)
    reach = int(random.choice([64, 400, len(data)]))
    where = np.sort(random.integers(0, min(reach, len(data)), 3)).tolist()
    match int(random.integers(6)):
        case 0:
            for at in random.integers(0, min(reach, len(data)), 12).tolist():
                data[at] = int(random.integers(256))
        case 1:
            del data[where[0] : where[2]]
        case 2:
            data[where[1] : where[1]] = data[where[0] : where[2]]
        case 3:
            del data[where[2] :]
        case 4:
            data[where[0] : where[2]] = bytes(where[2] - where[0])
        case 5:
            data = data[where[1] :] + data[: where[1]]
    return bytes(data)


def lies() -> dict[str, bytes]:
    """WAV headers that say what is not so."""
    wav = raw_wav(np.full((32_000, 1), 1000, np.int16))
    places = {"channels": (22, "<H"), "rate": (24, "<I"), "bytes": (28, "<I"), "bits": (34, "<H")}
    found = {}
    for name, (at, kind) in places.items():
        top = 0xFFFF if kind == "<H" else 0xFFFFFFFF
        for value in (0, 1, 3, 1000, top // 2, top):
            packed = struct.pack(kind, value)
            found[f"{name} {value}"] = wav[:at] + packed + wav[at + len(packed) :]
    found["samples"] = wav[:40] + struct.pack("<I", 0xFFFFFFF0) + wav[44:]
    return found


def others() -> dict[str, bytes]:
    silence = encode(np.zeros(16_000 * 3600, np.float32), "flac")  # some KB, 230 MB of samples
    return {
        "an hour of silence.flac": silence,
        "empty.mp3": b"",
        "one byte.ogg": b"O",
        "text.wav": b"this is not music",
        "picture.mp3": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "page.flac": b"<html><p>404</p></html>",
        "playlist.mp3": b"#EXTM3U\nhttp://127.0.0.1:9/x.mp3\nfile:///etc/passwd\n",
        "video.m4a": video("mp4", None),
        "zeros.opus": bytes(100_000),
        "short.wav": encode(synthesis.piece(3, 0.5), "wav"),
        "noise.wav": np.random.default_rng(0).bytes(50_000),
    }


@pytest.mark.timeout(900)
def test_every_file_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "clips").mkdir()
    piece = encode(synthesis.piece(1, 12.0), "flac")
    (tmp_path / "music" / "one.flac").write_bytes(piece)
    index_catalog(str(tmp_path / "music"), str(tmp_path / "catalog"), encoders=Encoders(0))
    files = {f"{name}.wav": data for name, data in lies().items()} | others()
    for number, extension in enumerate(FORMATS):
        random = np.random.default_rng(number)
        intact = tone_file(extension, 2.0, 44_100, "stereo")
        files |= {f"{n}.{extension}": damaged(intact, random) for n in range(EACH)}
    files["fine.flac"] = piece
    assert len(files) > 200
    for name, data in files.items():
        (tmp_path / "clips" / name).write_bytes(data)
    words = ["--catalog", f"{tmp_path}/catalog", "--queries", f"{tmp_path}/clips"]
    options = query_job.options([*words, "--out", f"{tmp_path}/out", "--workers", "0"])
    assert cli.run(query_job.main, options) == cli.DONE
    assert capsys.readouterr().err == ""
    rows = pq.read_table(tmp_path / "out" / "matches.parquet").to_pylist()
    assert sorted(Path(row["query"]).name for row in rows if row["rank"] == 1) == sorted(files)
    assert [Path(row["query"]).name for row in rows if row["matched"]] == ["fine.flac"]
    reason_of = {Path(row["query"]).name: row["error"] for row in rows}
    assert reason_of["video.m4a"] == "the file holds no audio stream"
    assert reason_of["short.wav"] == "lasts 0.50 s; at least 1 s are needed"
    reasons = Counter(row["error"] for row in rows if row["error"])
    assert len(reasons) > 10
    assert not [reason for reason in reasons if "\n" in reason or "crashes" in reason]
