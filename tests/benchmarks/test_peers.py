"""Other programs beside grafp: what they print, how it is scored, and the whole benchmark."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from peer_systems.answers import (
    Found,
    Query,
    cells,
    markdown,
    match_at_fpr,
    read_answers,
    threshold_at,
)
from peer_systems.run import answer_with_program

from benchmarks import fpcalc_match, peers
from grafp import storage
from grafp.audio import encode, synthesis
from grafp.errors import OptionError
from grafp.evaluation.protocol import Clip
from pipelines.common import cli

CORRELATE = """
import csv, sys
from pathlib import Path
import numpy as np
from grafp.audio import SAMPLE_RATE, decode

def sounds(table):
    with open(table) as file:
        return {row["path"]: decode(Path(row["path"]).read_bytes()) for row in csv.DictReader(file)}

references, queries = sounds(sys.argv[1]), sounds(sys.argv[2])
print("#indexed", flush=True)
for query, query_S in queries.items():
    for track, track_S in references.items():
        size = len(track_S) + len(query_S)
        spectrum = np.fft.rfft(track_S, size) * np.fft.rfft(query_S, size).conj()
        product_S = np.fft.irfft(spectrum, size)[: len(track_S) - len(query_S)]
        start = int(product_S.argmax())
        there_S = track_S[start : start + len(query_S)]
        score = product_S[start] / np.linalg.norm(there_S) / np.linalg.norm(query_S)
        print(query, track, start / SAMPLE_RATE, score, sep="\\t")
"""


def query(number: int, track: str | None, seconds: float = 1.0) -> Query:
    return Query(
        f"/q/{number}",
        Clip(number, track or "z", 0.5, seconds, seconds, 0.0, False, 0, None),
        track,
        7.0,
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/q/1\t/a\t0.5", "line 2: '/q/1\\t/a\\t0.5' is not query, track, offset and score"),
        ("loading the model", "line 2: 'loading the model' is not query, track"),
        ("/q/9\t/a\t0.5\t1", "line 2: '/q/9' is not one of the queries"),
        ("/q/1\t/c\t0.5\t1", "line 2: '/c' is not one of the references"),
        ("/q/1\t/a\tearly\t1", "line 2: 'early' is not a finite number"),
        ("/q/1\t/a\t0.5\tnan", "line 2: 'nan' is not a finite number"),
    ],
)
def test_a_bad_line_is_named(line: str, reason: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_answers(["/q/1\t/a\t0\t1\n", line + "\n"], {"/q/1"}, {"/a", "/b"})
    assert str(caught.value).startswith(reason)


def test_the_highest_score_is_a_query_s_answer() -> None:
    lines = ["#indexed\n", "/q/1\t/a\t1\t3\n", "/q/1\t/b\t-2.5\t1e1\r\n", "\n", "/q/1\t/a\t9\t4"]
    assert read_answers(lines, {"/q/1", "/q/2"}, {"/a", "/b"}) == {"/q/1": Found("/b", -2.5, 10.0)}


@pytest.mark.parametrize(("fpr", "accepted"), [(0.0, 0), (0.01, 1), (0.29, 29), (0.999, 99)])
def test_the_threshold_lets_no_more_than_the_rate_pass(fpr: float, accepted: int) -> None:
    queries = [query(number, None) for number in range(100)]
    found = {q.path: Found("/a", 0.0, number / 7) for number, q in enumerate(queries)}
    answers, thresholds = match_at_fpr(queries, found, fpr)
    assert (thresholds[1.0].accepted, thresholds[1.0].unknown) == (accepted, 100)
    assert sum(answer.matched for answer in answers) == accepted
    tied = {q.path: Found("/a", 0.0, 1.0) for q in queries}
    assert threshold_at(match_at_fpr(queries, tied, 0.5)[0], 0.5).accepted == 0
    with pytest.raises(OptionError, match="no unknown query"):
        match_at_fpr([query(1, "/a")], {}, fpr)


def test_rates_of_a_system_that_is_near_far_wrong_or_silent() -> None:
    queries = [query(number, "/a") for number in range(5)] + [query(5, None), query(6, None, 2.0)]
    found = {
        "/q/0": Found("/a", 7.04, 0.9),
        "/q/1": Found("/a", 7.4, 0.8),
        "/q/2": Found("/a", 9.0, 0.5),  # no better than the unknown one
        "/q/3": Found("/b", 7.0, 0.9),
        "/q/5": Found("/a", 7.0, 0.5),
    }
    answers, thresholds = match_at_fpr(queries, found, 0.0)
    assert thresholds[1.0].score == 0.5
    assert thresholds[2.0].score is None
    table = cells(queries, answers)
    rates = {name: (rate.hits, rate.total) for name, rate in table[False, 1.0, 0.0].items()}
    assert rates == {
        "hit_track": (3, 5), "hit_500ms": (2, 5), "hit_50ms": (1, 5), "hit_at_fpr": (2, 5),
    }  # fmt: skip
    shown = markdown({"some": table}, 0.01)
    assert "| 0 | some | 60.0 (23.1 to 88.2) |" in shown
    assert "noise, 2 s" in shown


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('/q/1'); raise SystemExit(3)", "failed: exit code 3 after 1 lines"),
        ("print('/q/1')", "failed: line 1: '/q/1' is not query, track"),
    ],
)
def test_a_program_that_fails_is_named(
    program: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for table in ("references", "queries"):
        (tmp_path / f"{table}.csv").write_text("path\n/q/1\n")
    command = [sys.executable, "-c", program]
    outcome = answer_with_program("odd", command, str(tmp_path))
    assert outcome.missing
    assert outcome.missing.startswith(reason)
    assert "system odd: " in capsys.readouterr().out
    assert (tmp_path / "odd.tsv").read_text() == "/q/1\n"
    absent = answer_with_program("absent", [str(tmp_path / "none")], str(tmp_path))
    assert "No such file" in str(absent.missing)


@pytest.mark.parametrize(
    "value", ["name", "grafp=a {references} {queries}", "a=b {references}", "a='b", "a/b=c", "a="]
)
def test_a_wrong_system_is_refused(value: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        peers.options(["--corpus", "c", "--out", "o", "--system", value])
    assert "--system" in capsys.readouterr().err


def test_bits_are_compared_at_every_offset() -> None:
    random = np.random.default_rng(0)
    references = [random.integers(1 << 32, size=n, dtype=np.uint32) for n in (300, 10, 200)]
    query_N = references[2][120:140].copy()
    query_N[3] ^= 0b1011
    assert fpcalc_match.locate(query_N, references) == (2, 120, 1 - 3 / 640)
    assert fpcalc_match.locate(query_N, references[1:2]) is None


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed in range(6):
        storage.write(f"{folder}/music/{seed}.flac", encode(synthesis.piece(seed, 8.0), "flac"))
    storage.write(f"{folder}/noise/0.wav", encode(synthesis.noise(0, 5.0), "wav"))
    storage.write(f"{folder}/rirs/0.wav", encode(synthesis.impulse_response(0), "wav"))
    for table, names in {
        "music": [f"music/{seed}.flac" for seed in range(6)],
        "noise": ["noise/0.wav"],
        "rir": ["rirs/0.wav"],
    }.items():
        rows = "".join(f"{name},test\n" for name in names)
        storage.write(f"{folder}/{table}.csv", f"path,split\n{rows}missing.wav,train\n".encode())
    return folder


@pytest.mark.slow
def test_systems_on_the_same_files(
    corpus: Path, tmp_path: Path, ray_here: None, capsys: pytest.CaptureFixture
) -> None:
    program, out = tmp_path / "correlate.py", tmp_path / "out"
    program.write_text(CORRELATE)
    systems = {
        "correlation": f"{sys.executable} {program} {{references}} {{queries}}",
        "broken": f"{sys.executable} -c 'print(1)' {{references}} {{queries}}",
    }
    chosen = peers.options(
        ["--corpus", str(corpus), "--out", str(out), "--queries", "6", "--seconds", "2,5"]
        + ["--snr", "30", "--workers", "1", "--fpr", "0.2"]
        + [f"--system={name}={command}" for name, command in systems.items()]
    )
    assert cli.run(peers.main, chosen) == cli.FAILED  # because of the broken one
    shown = capsys.readouterr().out
    assert "system broken: line 1: '1' is not query" in shown
    summary = json.loads(shown.splitlines()[-1])
    assert summary == json.loads((out / "peers.json").read_text())
    assert summary["queries"] == 6 * 2 * 2
    assert 0 < summary["unknown"] < summary["queries"]
    systems = summary["systems"]
    assert list(systems) == ["grafp", "chromaprint", "correlation", "broken"]
    for name in ("grafp", "correlation"):
        clear = systems[name]["cells"]["noise, 5 s, 30 dB"]
        assert clear["hit_track"]["rate"] == 1.0
        assert clear["hit_50ms"]["rate"] == 1.0
        assert systems[name]["answered"] == summary["queries"]
        assert systems[name]["index_s"] > 0
        unknown = [limit["unknown"] for limit in systems[name]["thresholds"].values()]
        assert sum(unknown) == summary["unknown"]
    assert bool(systems["chromaprint"].get("missing")) == (shutil.which("fpcalc") is None)
    assert cli.run(peers.main, chosen) == cli.BAD_ARGUMENTS
    assert "holds files" in capsys.readouterr().err


@pytest.mark.skipif(
    shutil.which("fpcalc") is None, reason="fpcalc (libchromaprint-tools) is absent"
)
def test_chromaprint_finds_an_excerpt(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    pieces = {f"{tmp_path}/{seed}.wav": synthesis.piece(seed, 15.0) for seed in range(3)}
    excerpts = {f"{tmp_path}/long.wav": 5.0, f"{tmp_path}/short.wav": 2.0}
    sounds = {path: encode(0.5 * piece_S, "wav") for path, piece_S in pieces.items()}
    source_S = pieces[f"{tmp_path}/1.wav"][6 * 16_000 :]
    for path, seconds in excerpts.items():
        sounds[path] = encode(0.5 * source_S[: int(seconds * 16_000)], "wav")
    for path, data in sounds.items():
        storage.write(path, data)
    tables = {"references": list(pieces), "queries": list(excerpts)}
    for name, paths in tables.items():
        (tmp_path / f"{name}.csv").write_text("path\n" + "".join(f"{p}\n" for p in paths))
    given = [part for name in tables for part in (f"--{name}", f"{tmp_path}/{name}.csv")]
    assert fpcalc_match.main(fpcalc_match.options(given)) == 0
    out, errors = capfd.readouterr()
    found = read_answers(out.splitlines(), set(excerpts), set(pieces))
    assert set(found) == {f"{tmp_path}/long.wav"}
    best = found[f"{tmp_path}/long.wav"]
    assert best.track == f"{tmp_path}/1.wav"
    assert abs(best.start_s - 6.0) < 0.07
    assert "1 of 2 recordings have no fingerprint: ERROR: Empty fingerprint" in errors
