"""Recipes: what the paper publishes, and how the job uses them."""

from typing import Any

import pytest

from grafp.errors import OptionError
from grafp.training.config import AugmentConfig, TrainConfig
from grafp.training.recipes import RECIPES, settings_of
from pipelines.jobs import train

PATHS = ["--music", "m", "--out", "o"]


def chosen(*words: str) -> dict[str, Any]:
    return vars(train._by_recipe(train.options([*PATHS, *words])))


def test_the_recipe_of_the_paper_is_its_table_and_its_text() -> None:
    """Table I, sections II-C and III; rates and probabilities are those of the authors' code."""
    paper = TrainConfig(**settings_of("paper"))
    assert (paper.preset, paper.epochs, paper.steps, paper.minutes) == (
        "grafprint",
        400,
        None,
        None,
    )
    assert (paper.pairs, paper.per_track, paper.temperature) == (256, 1, 0.05)
    assert (paper.offset_ms, paper.held_out) == (50, 0)
    assert (paper.optimizer, paper.warm_up, paper.clip, paper.weight_decay) == ("adam", 0, 0, 0)
    assert (paper.learning_rate, paper.final_learning_rate) == (8e-5, 7e-7)
    augment = paper.augment
    assert (augment.reverb, augment.dry_past, augment.noise, augment.snr_db) == (1, 1, 1, (0, 20))
    assert augment.order == "room-noise"
    others = ("second_noise", "music_noise", "speed", "pitch", "loudspeaker", "microphone", "drive")
    assert not any(getattr(augment, name) for name in (*others, "codec", "time_mask"))
    assert augment.frequency_mask == 0


def test_the_recipe_grafp_is_the_default() -> None:
    assert TrainConfig(**settings_of("grafp")) == TrainConfig(minutes=60.0)
    assert chosen() == chosen("--recipe", "grafp")
    assert (chosen()["minutes"], chosen()["steps"], chosen()["epochs"]) == (60.0, None, None)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("--preset nafp", {"preset": "nafp"}),
        ("--steps 7", {"steps": 7, "epochs": None}),
        ("--minutes 7", {"minutes": 7.0, "epochs": None}),
        ("--epochs 7", {"epochs": 7}),
        ("--pairs 128", {"pairs": 128}),  # what is given counts, though it is the default
        ("--per-track 2", {"per_track": 2}),
        ("--optimizer adamw", {"optimizer": "adamw"}),
        ("--learning-rate 0.001", {"learning_rate": 1e-3}),
        ("--final-learning-rate 0", {"final_learning_rate": 0.0}),
        ("--warm-up 0.02", {"warm_up": 0.02}),
        ("--weight-decay 0.01", {"weight_decay": 0.01}),
        ("--clip 1", {"clip": 1.0}),
        ("--temperature 0.1", {"temperature": 0.1}),
        ("--held-out 0.1", {"held_out": 0.1}),
        ("--offset-ms 200", {"offset_ms": 200.0}),
    ],
)
def test_an_option_counts_more_than_the_recipe(words: str, changed: dict[str, Any]) -> None:
    paper = chosen("--recipe", "paper")
    settings = RECIPES["paper"]
    assert paper.items() >= {k: v for k, v in settings.items() if k != "augment"}.items()
    assert chosen("--recipe", "paper", *words.split()) == {**paper, **changed}


def test_augmentation_is_changed_setting_by_setting() -> None:
    base = RECIPES["paper"]["augment"]
    changed = AugmentConfig.from_settings(["codec=0.2"], base)
    assert (changed.codec, changed.reverb, changed.snr_db) == (0.2, 1.0, (0.0, 20.0))
    with pytest.raises(OptionError, match=r"--augment reverb: 2\.0 is not a probability"):
        AugmentConfig.from_settings(["reverb=2"], base)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--recipe papers", "--recipe: 'papers' is not one of grafp, paper"),
        ("--optimizer sgd", "--optimizer: 'sgd' is not one of adamw, adam"),
        ("--epochs 0", "--epochs: '0' is not a whole number of 1 or more"),
        ("--epochs 1 --steps 1", "--steps: not allowed with --epochs"),
        ("--held-out 0.6", "--held-out: 0.6 is not between 0 and 0.5"),
        ("--temperature 0", "--temperature: '0' is not a number above 0"),
        ("--warm-up 2", "--warm-up: 2 is not between 0 and 1"),
        ("--weight-decay -1", "--weight-decay: -1 is not between 0 and 1"),
        ("--clip -1", "--clip: -1 is not 0 or more"),
        ("--final-learning-rate -1", "--final-learning-rate: -1 is not 0 or more"),
    ],
)
def test_a_wrong_setting_is_one_line(words: str, line: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train.options([*PATHS, *words.split()])
    assert capsys.readouterr().err == f"error: {line}\n"
