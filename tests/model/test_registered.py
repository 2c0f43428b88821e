"""Encoders of other packages: found by name alone, loaded, trained, and refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoder import PoolingConfig

import grafp
from grafp.audio import synthesis
from grafp.errors import ModelError, TrainingError
from grafp.model.bundle import load_bundle, parse_bundle, read_card, save_bundle
from grafp.model.inference import Fingerprinter
from grafp.model.presets import build_encoder, config_from_dict, preset_config
from grafp.model.registered import RegisteredConfig
from grafp.model.registry import registered_names
from grafp.training.config import TrainConfig
from pipelines.jobs import train

NAME = "tiny-pooling"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a package with one module: metadata and code in a folder on the path."""

    def install(name: str, entry: str, code: str = "") -> None:
        folder = tmp_path / name
        (folder / f"{name}-1.dist-info").mkdir(parents=True)
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
        (folder / f"{name}-1.dist-info/METADATA").write_text(about)
        (folder / f"{name}-1.dist-info/entry_points.txt").write_text(f"[grafp.encoders]\n{entry}\n")
        (folder / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))

    return install


def save(folder: Path, config: RegisteredConfig | None = None) -> str:
    torch.manual_seed(0)
    encoder = build_encoder(config or preset_config(NAME))
    return save_bundle(str(folder), encoder, {"preset": NAME})


def test_a_registered_encoder_is_loaded_by_the_name_in_its_card(tmp_path: Path) -> None:
    config = RegisteredConfig(NAME, PoolingConfig(grid=(16, 16)))
    model_id = save(tmp_path, config)
    card = read_card(str(tmp_path)).card
    assert card["encoder"] == {"kind": NAME, "grid": [16, 16]}
    assert card["parameters"] == 16 * 16 * 128 + 128
    model = grafp.load_model(str(tmp_path))
    assert model.model_id == model_id
    assert model.fingerprinter.encoder.config == config
    torch.testing.assert_close(  # whole numbers are not rounded to float16
        model.fingerprinter.encoder.state_dict()["network.order_N"],
        70_000 + torch.arange(255, -1, -1),
    )
    piece_S = synthesis.piece(3, 6.0)
    track = model.fingerprint(piece_S)
    assert track.shape == (51, 128)
    assert np.linalg.norm(track, axis=1) == pytest.approx(1.0, abs=1e-5)
    found = grafp.locate(model.fingerprint(piece_S[2 * 16_000 : 4 * 16_000]), track, model=model)
    assert found
    assert found.start_s == pytest.approx(2.0, abs=0.02)


def test_its_batches_do_not_change_its_fingerprints(tmp_path: Path) -> None:
    save(tmp_path)
    encoder, piece_S = load_bundle(str(tmp_path)).encoder, synthesis.piece(4, 4.0)
    alone = Fingerprinter.from_encoder(encoder)(piece_S[16_000:32_000])
    assert Fingerprinter.from_encoder(encoder)(piece_S)[10] == pytest.approx(alone[0], abs=1e-5)


def test_a_name_that_nothing_registers_is_refused_before_the_weights_are_read(
    tmp_path: Path,
) -> None:
    save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    card["encoder"]["kind"] = "tiny_encoder:PoolingConfig"  # code is never found by its path
    (tmp_path / "card.json").write_text(json.dumps(card))
    for read in (read_card, load_bundle):
        with pytest.raises(ModelError) as error:
            read(str(tmp_path))
        assert str(error.value) == (
            f"{tmp_path}: encoder in the model card: unknown kind 'tiny_encoder:PoolingConfig'; "
            f"install the package that registers it (entry points grafp.encoders, now: {NAME})"
        )


def test_weights_and_settings_must_fit(tmp_path: Path) -> None:
    save(tmp_path)
    saved = load_bundle(str(tmp_path))
    for encoder, reason in (
        ({"kind": NAME, "grid": [16, 16]}, "the weights do not fit the card"),
        ({"kind": NAME, "grid": "large"}, r"encoder in the model card: damaged \(grid"),
        ({"kind": NAME, "grid": [0, 0]}, "it cannot be built and run"),
    ):
        card = json.dumps(saved.card | {"encoder": encoder}).encode()
        with pytest.raises(ModelError, match=f"^mine: .*{reason}") as error:
            parse_bundle(saved.files | {"card.json": card}, "mine")
        assert "\n" not in str(error.value)


HEAD = "from dataclasses import dataclass\nfrom torch import nn\n@dataclass\nclass Config:\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_like_it", "cannot be imported (ModuleNotFoundError"),
        ("class Config: pass", "is no dataclass with a method build()"),
        (f"{HEAD}    size: int = 1", "is no dataclass with a method build()"),
        (f"{HEAD}    size: int\n    def build(self): pass", "every field needs a default"),
        (f"{HEAD}    def build(self): raise KeyError('x')", "cannot be built and run (KeyError"),
        (f"{HEAD}    def build(self): return nn.Flatten()",
         "gives (2, 2048) for 2 spectrograms, not (2, 128)"),
        (f"{HEAD}    def build(self): return nn.LSTM(32, 128)", "cannot be built and run"),
    ],
)  # fmt: skip
def test_a_class_that_cannot_be_used_is_refused(code: str, reason: str, installed) -> None:
    name = f"broken_{abs(hash(code))}"
    installed(name, f"{name} = {name}:Config", code)
    with pytest.raises(ModelError) as error:
        build_encoder(preset_config(name))
    assert str(error.value).startswith(f"encoder '{name}': ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_two_packages_with_one_name_are_refused(installed) -> None:
    installed("first_one", "same = first_one:Config")
    installed("second_one", "same = second_one:Config")
    with pytest.raises(ModelError, match=r"first_one:Config and second_one:Config; uninstall"):
        config_from_dict({"kind": "same"})


def test_names_of_this_package_are_not_taken_over(installed) -> None:
    installed("greedy", "transformer = greedy:Config\nsmall = greedy:Config", "raise SystemExit")
    assert "small" in registered_names()
    assert not isinstance(preset_config("small"), RegisteredConfig)
    assert read_card("small").card["preset"] == "small"
    assert not isinstance(config_from_dict(preset_config("ast").to_dict()), RegisteredConfig)


def test_the_training_job_takes_its_name(capsys: pytest.CaptureFixture) -> None:
    paths = ["--music", "m", "--out", "o"]
    assert train.options([*paths, "--preset", NAME]).preset == NAME
    with pytest.raises(SystemExit):
        train.options([*paths, "--preset", "huge"])
    assert "--preset: 'huge' is not one of small, grafprint" in capsys.readouterr().err
    with pytest.raises(TrainingError, match=f"no preset 'huge'; choose one of small, .*{NAME}"):
        TrainConfig(preset="huge", steps=1)
