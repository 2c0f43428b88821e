"""Settings of augmentation: which are refused, and how the job is told them."""

from dataclasses import fields

import pytest

from grafp.errors import OptionError, TrainingError
from grafp.options import _docs
from grafp.training.config import AugmentConfig, TrainConfig
from pipelines.common import cli
from pipelines.jobs import train


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codec": 1.5}, "codec: 1.5 is not a probability"),
        ({"reverb": -0.1}, "reverb: -0.1"),
        ({"noise": float("nan")}, "noise: nan"),
        ({"snr_db": (5.0, 0.0)}, "snr_db: .* lower end first"),
        ({"snr_db": (5.0,)}, "snr_db"),
        ({"speed_percent": (-50.0, 0.0)}, "speed_percent: .* within -10 to 10"),
        ({"mask_percent": (0.0, 90.0)}, "mask_percent"),
        ({"order": "noise"}, "order: 'noise' is not one of room-noise, noise-room"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        AugmentConfig(**values)


def test_settings_are_read_from_text() -> None:
    assert AugmentConfig.from_settings([]) == AugmentConfig()
    read = AugmentConfig.from_settings(["codec=0.2", "snr_db=-5:20", "order=noise-room"])
    assert read == AugmentConfig(codec=0.2, snr_db=(-5.0, 20.0), order="noise-room")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("codek=0.2", "no setting 'codek'; choose one of reverb, .*codec, .*mask_percent"),
        ("codec", "give a probability, such as codec=0.2"),
        ("codec=0.1:0.2", "give a probability"),
        ("snr_db=5", "give a range LOW:HIGH, such as snr_db="),
        ("snr_db=low:high", "give a range"),
        ("codec=7", "--augment codec: 7.0 is not a probability"),
        ("order=none", "--augment order: 'none' is not one of"),
    ],
)
def test_text_that_is_no_setting_is_refused(setting: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        AugmentConfig.from_settings([setting])


def test_the_job_refuses_a_bad_setting_or_offset(capsys: pytest.CaptureFixture) -> None:
    paths = ["--music", "nowhere", "--out", "nowhere", "--num-workers", "0"]
    chosen = train.options([*paths, "--augment", "codek=0.2"])
    assert cli.run(train.main, chosen) == cli.BAD_ARGUMENTS
    assert "--augment codek=0.2" in capsys.readouterr().err
    for offset in ("251", "-1", "nan"):
        with pytest.raises(SystemExit):
            train.options([*paths, "--offset-ms", offset])
        assert "--offset-ms" in capsys.readouterr().err


@pytest.mark.parametrize("config", [AugmentConfig, TrainConfig])
def test_every_setting_has_a_text_that_help_can_show(config: type) -> None:
    assert _docs(config).keys() == {one.name for one in fields(config)}
