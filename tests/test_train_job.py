"""The flow of training: through the job, in this process and over Ray Train workers."""

import json
import re
from pathlib import Path

import pytest
import torch

from grafp import pcm, synth
from grafp.api import load_model
from grafp.audio import encode
from grafp.bundle import load_bundle
from jobs import train
from pipelines import cli


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music with splits and groups, noise and rooms; one file is broken."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = ["path,split,group"]
    for number in range(14):
        name = f"{number}.flac"
        (folder / name).write_bytes(encode(synth.piece(100 + number, 4.0), "flac"))
        rows.append(f"{name},{'test' if number == 0 else 'train'},{number}")
    (folder / "broken.flac").write_bytes(b"nothing")
    rows.append("broken.flac,train,broken")
    (folder / "music.csv").write_text("\n".join(rows))
    for kind, make in {"noise": lambda n: synth.noise(n, 3.0), "rooms": synth.room}.items():
        (folder / kind).mkdir()
        for number in range(3):
            (folder / kind / f"{number}.wav").write_bytes(encode(make(number), "wav"))
    return folder


def run(corpus: Path, out: str, capsys: pytest.CaptureFixture, *more: str) -> tuple[int, dict, str]:
    arguments = ["--music", f"{corpus}/music.csv", "--noise", f"{corpus}/noise", "--out", out]
    arguments += ["--rir", f"{corpus}/rooms", "--pairs", "8", *more]
    code = cli.run(train.main, train.options(arguments))
    shown = capsys.readouterr()
    last = shown.out.strip().splitlines()[-1] if shown.out.strip() else ""
    return code, json.loads(last) if last.startswith("{") else {}, shown.out + shown.err


def test_train_without_ray_then_resume(corpus: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "run")
    code, summary, shown = run(corpus, out, capsys, "--steps", "2", "--num-workers", "0")
    assert (code, summary["steps"]) == (0, 2)
    assert "left out: broken.flac" in shown
    code, _, shown = run(corpus, out, capsys, "--steps", "3", "--num-workers", "0")
    assert code == cli.BAD_ARGUMENTS
    assert "--resume" in shown
    more = ["--resume", "--offset-ms", "100", "--augment", "drive=0.5", "--augment", "codec=1"]
    code, summary, shown = run(corpus, out, capsys, "--steps", "3", "--num-workers", "0", *more)
    assert (code, summary["steps"]) == (0, 3)
    assert "resumed after step 2" in shown
    card = load_bundle(summary["model"]).card
    assert card["training"]["steps"] == 3
    assert card["training"]["offset_seconds"] == 0.1
    assert card["training"]["augment"]["drive"] == 0.5
    assert card["data"]["tracks"] + card["data"]["validation_tracks"] == 13
    assert card["results"]["hit_rate"] is not None
    assert load_model(summary["model"]).fingerprint(f"{corpus}/1.flac").shape == (31, 128)


def test_a_trained_model_can_be_refined(corpus: Path, tmp_path: Path, capsys) -> None:
    few = ["--steps", "1", "--num-workers", "0", "--start-from", "small"]
    tiny = ["--learning-rate", "1e-7"]
    code, summary, _ = run(corpus, str(tmp_path / "run"), capsys, *few, *tiny)
    assert code == 0
    before, after = load_bundle("small"), load_bundle(summary["model"])
    assert after.card["started_from"] == before.model_id
    weights = after.encoder.state_dict()
    for name, value in before.encoder.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(weights[name], value, rtol=1e-2, atol=1e-4)
    code, _, shown = run(corpus, str(tmp_path / "other"), capsys, *few, "--preset", "grafprint")
    assert code == cli.FAILED
    assert "not of preset 'grafprint'" in shown


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_train_on_two_workers_then_resume_on_s3(corpus: Path, s3: str, capsys) -> None:
    out = f"{s3}/training/run"
    code, summary, _ = run(corpus, out, capsys, "--steps", "2", "--num-workers", "2", "--no-gpu")
    assert (code, summary["steps"]) == (0, 2)
    assert load_bundle(summary["model"]).card["workers"] == 2
    code, summary, _ = run(
        corpus, out, capsys, "--steps", "3", "--num-workers", "2", "--no-gpu", "--resume"
    )
    assert (code, summary["steps"]) == (0, 3)
    assert load_bundle(summary["model"]).model_id == summary["model_id"]


@pytest.mark.usefixtures("ray_here")
def test_more_workers_than_processors_is_refused(corpus: Path, tmp_path: Path, capsys) -> None:
    code, _, shown = run(
        corpus, str(tmp_path / "run"), capsys, "--steps", "1", "--num-workers", "99"
    )
    assert code == cli.BAD_ARGUMENTS
    assert "--num-workers 99" in shown


def test_no_usable_music_is_one_line(tmp_path: Path, capsys) -> None:
    (tmp_path / "x.wav").write_bytes(b"")
    arguments = ["--music", str(tmp_path), "--out", str(tmp_path / "run")]
    chosen = train.options([*arguments, "--steps", "1", "--num-workers", "0"])
    assert cli.run(train.main, chosen) == cli.FAILED
    assert "no usable music" in capsys.readouterr().err


def test_too_few_tracks_for_a_batch_is_one_line_with_what_fits(
    corpus: Path, tmp_path: Path, capsys
) -> None:
    out = str(tmp_path / "run")
    code, _, shown = run(corpus, out, capsys, "--steps", "1", "--num-workers", "0", "--pairs", "99")
    assert code == cli.FAILED
    [line] = [line for line in shown.splitlines() if line.startswith("error: ")]
    found = re.search(
        r"--music \S+/music.csv: 1\d tracks in (1\d) groups to train on, and a batch of --pairs 99 "
        r"takes 50 \(--per-track 2 segments of each\): give --pairs (\d+), or --per-track (\d+)$",
        line,
    )
    assert found
    groups, pairs, per_track = map(int, found.groups())
    assert pairs == 2 * groups
    few = ["--steps", "1", "--num-workers", "0", "--pairs"]
    code, summary, _ = run(corpus, out, capsys, *few, str(pairs))
    assert (code, summary["steps"]) == (0, 1)
    other = [str(tmp_path / "other"), capsys, *few, "99", "--per-track"]
    assert run(corpus, *other, str(per_track))[0] == 0
    assert run(corpus, *other, str(per_track - 1))[0] == cli.BAD_ARGUMENTS  # it holds a run


def test_music_that_does_not_fit_is_streamed_and_decoded_audio_is_shared(
    corpus: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pcm, "SHARD_BYTES", 2 * 4 * 32_000)
    options = ["--num-workers", "0", "--data", str(tmp_path / "data"), "--memory-gb", "0.0018"]
    options += ["--pairs", "4", "--steps"]
    code, _, shown = run(corpus, str(tmp_path / "one"), capsys, *options, "12")
    assert code == 0
    assert re.search(r"does not fit in memory: \d shards at a time", shown)
    assert "decoding 3 recordings" in shown
    code, _, shown = run(corpus, str(tmp_path / "two"), capsys, *options, "1")
    assert code == 0
    assert "decoding" not in shown
    options[options.index("0.0018")] = "0.0001"
    code, _, shown = run(corpus, str(tmp_path / "three"), capsys, *options, "1")
    assert code == cli.FAILED
    assert "error: 0.00 GB for music are too little" in shown


@pytest.mark.parametrize(("option", "name"), [("--noise", "nowhere"), ("--rir", "empty")])
def test_missing_noise_or_rooms_are_one_line(
    option: str, name: str, corpus: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "empty").mkdir()
    uri = str(tmp_path / name)
    out = str(tmp_path / "run")
    code, _, shown = run(corpus, out, capsys, "--num-workers", "0", "--steps", "1", option, uri)
    assert code != cli.DONE
    assert f"error: {option} {uri}: no" in shown
    assert not Path(out).exists()
