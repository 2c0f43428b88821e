"""The flow of training: through the job, in this process and over Ray Train workers."""

import contextlib
import itertools
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import s3_server
import torch
from logged import logged

from grafp import storage
from grafp.api import load_model
from grafp.audio import encode, synthesis
from grafp.errors import OptionError, StorageError
from grafp.model.bundle import load_bundle
from grafp.model.encoder import EncoderConfig
from grafp.model.presets import PRESETS
from grafp.training.config import TrainConfig
from grafp.training.data import pcm
from grafp.training.history import Progress
from grafp.training.recipes import RECIPES
from grafp.training.trainer import Trainer
from pipelines.common import cli
from pipelines.jobs import train
from pipelines.training import run_file
from pipelines.training.flow import train_model

pytestmark = pytest.mark.usefixtures("short_sounds")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music with splits and groups, noise and impulse responses; one file is broken."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = ["path,split,group"]
    for number in range(14):
        name = f"{number}.flac"
        (folder / name).write_bytes(encode(synthesis.piece(100 + number, 4.0), "flac"))
        rows.append(f"{name},{'test' if number == 0 else 'train'},{number}")
    (folder / "broken.flac").write_bytes(b"nothing")
    rows.append("broken.flac,train,broken")
    (folder / "music.csv").write_text("\n".join(rows))
    made = {"noise": lambda n: synthesis.noise(n, 3.0), "rirs": synthesis.impulse_response}
    for kind, make in made.items():
        (folder / kind).mkdir()
        for number in range(3):
            (folder / kind / f"{number}.wav").write_bytes(encode(make(number), "wav"))
    return folder


def run(corpus: Path, out: str, capsys: pytest.CaptureFixture, *more: str) -> tuple[int, dict, str]:
    arguments = ["--music", f"{corpus}/music.csv", "--noise", f"{corpus}/noise", "--out", out]
    arguments += ["--rir", f"{corpus}/rirs", "--pairs", "8", *more]
    code = cli.run(train.main, train.options(arguments))
    shown = capsys.readouterr()
    last = shown.out.strip().splitlines()[-1] if shown.out.strip() else ""
    return code, json.loads(last) if last.startswith("{") else {}, shown.out + shown.err


def test_train_without_ray_then_resume(corpus: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    out = tmp_path / "run"
    few = ["--steps", "3", "--num-workers", "0", "--offset-ms", "100", "--augment", "drive=0.5"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "keep_best", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(corpus, str(out), capsys, *few)
    shown = capsys.readouterr().out
    assert "left out: broken.flac" in shown
    assert "step 3 " in shown
    code, _, shown = run(corpus, str(out), capsys, *few)
    assert code == cli.BAD_ARGUMENTS
    assert "--resume" in shown
    code = cli.run(train.main, train.options(["--out", str(out), "--resume"]))
    shown = capsys.readouterr().out
    summary = json.loads(shown.splitlines()[-1])
    assert (code, summary["steps"], summary["best_step"]) == (0, 3, 3)
    assert "resumed after step 3" in shown
    bundle = load_bundle(summary["model"])
    assert bundle.model_id == summary["model_id"]
    assert bundle.card["training"]["steps"] == 3
    assert bundle.card["training"]["offset_ms"] == 100
    assert bundle.card["training"]["augment"]["drive"] == 0.5
    assert bundle.card["data"]["tracks"] + bundle.card["data"]["validation_tracks"] == 13
    assert bundle.card["results"]["hit_rate"] == summary["hit_rate"] is not None
    assert load_model(summary["model"]).fingerprint(f"{corpus}/1.flac").shape == (31, 128)
    assert (out / "model" / "training.png").read_bytes().startswith(b"\x89PNG")
    (out / "model" / "training.png").unlink()  # for people only
    assert load_bundle(summary["model"]).model_id == bundle.model_id
    assert len(list((out / "tensorboard").iterdir())) == 1


def interrupted(_: Trainer) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (["--preset", "grafprint"], "--preset grafprint: the run under --out"),
        (["--pairs", "9"], "was started with 8; leave --pairs out to resume it"),
        (["--steps", "5"], "--steps 5: "),
        (["--minutes", "5"], "--minutes 5.0: "),
        (["--learning-rate", "0.01"], "--learning-rate 0.01: "),
        (["--seed", "1"], "--seed 1: "),
        (["--accumulate", "2"], "--accumulate 2: "),
        (["--per-track", "1"], "--per-track 1: "),
        (["--recipe", "paper"], "--recipe paper: the run under --out"),
        (["--epochs", "9"], "--epochs 9: "),
        (["--optimizer", "adam"], "--optimizer adam: "),
        (["--final-learning-rate", "1e-5"], "--final-learning-rate 1e-05: "),
        (["--warm-up", "0.5"], "--warm-up 0.5: "),
        (["--weight-decay", "0"], "--weight-decay 0.0: "),
        (["--clip", "0"], "--clip 0.0: "),
        (["--temperature", "0.1"], "--temperature 0.1: "),
        (["--held-out", "0"], "--held-out 0.0: "),
        (["--offset-ms", "100"], "--offset-ms 100.0: "),
        (["--augment", "snr_db=0:9"], "--augment snr_db [0.0, 9.0]: "),
        (["--num-workers", "2"], "--num-workers 2: "),
        (["--rir", "rirs"], "--rir "),
        (["--start-from", "small"], "--start-from small: "),
    ],
)
def test_a_resume_with_other_settings_is_refused(
    option: list[str], text: str, tmp_path: Path, capsys
) -> None:
    config = TrainConfig(steps=3, pairs=8).to_dict()
    settings = {"music": "/music", "noise": None, "rir": None, "start_from": None}
    run_file.write(str(tmp_path), {**settings, "num_workers": 0, **config})
    chosen = train.options(["--out", str(tmp_path), "--resume", *option])
    assert cli.run(train.main, chosen) == cli.BAD_ARGUMENTS
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_the_recipe_of_the_paper_trains_on_all_tracks_and_is_resumed(
    corpus: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One option of it is given; nothing is held out, so nothing is validated."""
    monkeypatch.setitem(PRESETS, "grafprint", TINY)
    out = tmp_path / "run"
    options = ["--recipe", "paper", "--epochs", "2", "--augment", "codec=0.1", "--num-workers", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "keep_best", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(corpus, str(out), capsys, *options)
    assert "epochs: 2, of 13 tracks: 4 steps" in capsys.readouterr().out
    code = cli.run(train.main, train.options(["--out", str(out), "--resume"]))
    shown = capsys.readouterr().out
    summary = json.loads(shown.splitlines()[-1])
    assert (code, summary["steps"], summary["best_step"], summary["hit_rate"]) == (0, 4, 4, None)
    assert "resumed after step 4" in shown
    model = load_bundle(summary["model"])
    settings = model.card["training"]
    wanted = RECIPES["paper"] | {"recipe": "paper", "epochs": 2, "pairs": 8, "steps": 4}
    augment = asdict(wanted.pop("augment"))
    assert settings.items() >= wanted.items()
    assert settings["augment"] == json.loads(json.dumps(augment | {"codec": 0.1}))
    assert model.card["data"]["tracks"] == 13
    assert model.card["data"]["validation_tracks"] == 0
    assert model.offset_correction_s == 0
    assert (out / "model" / "training.png").read_bytes().startswith(b"\x89PNG")
    assert load_model(summary["model"]).fingerprint(f"{corpus}/1.flac").shape == (31, 128)


TINY = EncoderConfig(stem=((4, 3, 4, 4),), channels=(8,), blocks=(1,), neighbors=3, head=(16,))


def test_a_run_of_an_earlier_version_is_resumed_with_what_it_had(tmp_path: Path) -> None:
    """Its file has no recipe, optimizer or share held out."""
    new = {"recipe", "epochs", "optimizer", "final_learning_rate", "clip", "held_out"}
    settings = TrainConfig(steps=3, pairs=8).to_dict()
    old = {name: value for name, value in settings.items() if name not in new}
    run_file.write(str(tmp_path), old)
    run_file.check(str(tmp_path), settings)
    with pytest.raises(OptionError, match=r"--clip 0\.0: .* was started with 1\.0"):
        run_file.check(str(tmp_path), settings | {"clip": 0.0})


def test_nothing_to_resume_is_one_line(tmp_path: Path, capsys) -> None:
    chosen = train.options(["--out", str(tmp_path), "--resume"])
    assert cli.run(train.main, chosen) == cli.BAD_ARGUMENTS
    assert f"there is no run under --out {tmp_path}" in capsys.readouterr().err
    (tmp_path / "run.json").write_text("{")
    assert cli.run(train.main, chosen) == cli.FAILED
    assert "run.json: damaged" in capsys.readouterr().err


def test_no_music_is_a_bad_argument(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.options(["--out", str(tmp_path)])
    assert stopped.value.code == cli.BAD_ARGUMENTS
    assert "--music" in capsys.readouterr().err


def test_a_disk_that_is_full_in_mid_run_is_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint before stays, and the run goes on from it when there is room again."""
    write, checkpoints = storage.write, itertools.count(1)

    def fails_at_the_third(uri: str, data: bytes) -> None:
        if uri.endswith(".pt") and next(checkpoints) == 3:
            raise StorageError(f"{uri}: No space left on device")
        write(uri, data)

    out = str(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", fails_at_the_third)
        with pytest.raises(StorageError, match=r"run/checkpoint\.pt: No space left"):
            train_model(f"{corpus}/music.csv", out, OFTEN, num_workers=0)
    with logged() as lines:
        again = train_model(f"{corpus}/music.csv", out, OFTEN, num_workers=0, resume=True)
    assert again["steps"] == 4
    assert "resumed after step 2" in lines


OFTEN = TrainConfig(steps=4, pairs=8, checkpoint_every=1, log_every=1)


@pytest.mark.slow
def test_a_store_that_cannot_be_reached_in_mid_run_is_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = "s3://outage/run"
    line = Progress.line

    def stop_after_two(progress: Progress) -> str:
        if progress.step == 3:
            servers.close()
        return line(progress)

    monkeypatch.setattr(Progress, "line", stop_after_two)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(s3_server.running("outage", str(tmp_path)))
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match="check AWS_ENDPOINT_URL and the network") as error:
            train_model(f"{corpus}/music.csv", out, OFTEN, num_workers=0)
    assert str(error.value).startswith(out)
    with s3_server.running("outage", str(tmp_path)) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(Progress, "line", line)
        with logged() as lines:
            again = train_model(f"{corpus}/music.csv", out, OFTEN, num_workers=0, resume=True)
    assert again["steps"] == 4
    assert "resumed after step 2" in lines


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
    out, two = f"{s3}/training/run", ["--steps", "2", "--num-workers", "2", "--no-gpu"]
    code, summary, _ = run(corpus, out, capsys, *two)
    assert (code, summary["steps"]) == (0, 2)
    assert load_bundle(summary["model"]).card["workers"] == 2
    assert storage.stat(f"{out}/model/training.png")
    assert len(storage.list_files(f"{out}/tensorboard")) == 1
    code, again, _ = run(corpus, out, capsys, *two, "--resume")
    assert (code, again["model_id"]) == (0, summary["model_id"])  # there was nothing left to do


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_a_run_on_two_workers_at_once(
    corpus: Path, tmp_path: Path, capsys
) -> None:
    hot = ["--steps", "9", "--num-workers", "2", "--no-gpu", "--learning-rate", "1e38"]
    code, _, shown = run(corpus, str(tmp_path / "run"), capsys, *hot)
    assert code == cli.FAILED
    assert shown.splitlines()[-1].startswith("error: the loss became nan at step ")


@pytest.mark.usefixtures("ray_here")
def test_more_workers_than_cpus_is_refused(corpus: Path, tmp_path: Path, capsys) -> None:
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


@pytest.mark.slow
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
    assert "noise: decoding 2 recordings" in shown
    code, _, shown = run(corpus, str(tmp_path / "two"), capsys, *options, "1")
    assert code == 0
    assert "decoding" not in shown
    options[options.index("0.0018")] = "0.0001"
    code, _, shown = run(corpus, str(tmp_path / "three"), capsys, *options, "1")
    assert code == cli.FAILED
    assert "error: 0.00 GB for music are too little" in shown


@pytest.mark.parametrize(("option", "name"), [("--noise", "nowhere"), ("--rir", "empty")])
def test_missing_noise_or_impulse_responses_are_one_line(
    option: str, name: str, corpus: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "empty").mkdir()
    uri = str(tmp_path / name)
    out = str(tmp_path / "run")
    code, _, shown = run(corpus, out, capsys, "--num-workers", "0", "--steps", "1", option, uri)
    assert code != cli.DONE
    assert f"error: {option} {uri}: no" in shown
    assert not Path(out).exists()
