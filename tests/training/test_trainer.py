"""Training steps and resuming, on a CPU and synthetic music."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import Adam, AdamW
from training_music import CLEAN, CPU, music, validation

from grafp.audio import synthesis
from grafp.errors import StorageError, TrainingError
from grafp.model.encoder import EncoderConfig
from grafp.training import checkpoint
from grafp.training.augment import Augmenter
from grafp.training.config import AugmentConfig, TrainConfig
from grafp.training.data.buffer import Waveforms
from grafp.training.data.sampler import PairSampler
from grafp.training.history import Progress
from grafp.training.trainer import Trainer
from grafp.training.validation import Validation

TINY = EncoderConfig(stem=((4, 3, 4, 4),), channels=(8,), blocks=(1,), neighbors=3, head=(16,))


def trainer(
    steps: int,
    pairs: int = 6,
    validation: Validation | None = None,
    architecture: EncoderConfig | None = None,
    **settings: Any,
) -> Trainer:
    config = TrainConfig(
        steps=steps,
        pairs=pairs,
        per_track=1,
        log_every=1,
        checkpoint_every=3,
        validate_every=4,
        warm_up=0.1,
        **settings,
    )
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) for seed in range(2)]
    rirs = [torch.from_numpy(synthesis.impulse_response(seed)) for seed in range(2)]
    augmenter = Augmenter(noises, rirs, AugmentConfig(snr_db=(10.0, 20.0)), CPU)
    sampler = PairSampler(Waveforms.of(music(12, 6.0)), pairs)
    return Trainer(config, sampler, augmenter, validation, CPU, architecture=architecture)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_few_steps_lower_the_loss(parts: int) -> None:
    losses = []
    run = trainer(24, pairs=12, accumulate=parts)
    progress = run.run(lambda progress, _: losses.append(progress.loss))
    assert (progress.step, progress.done) == (24, True)
    assert len(losses) == 24
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in one.encoder.state_dict().items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


class HitRates:
    """A validation that finds these shares, one after the other."""

    def __init__(self, *rates: float) -> None:
        self.rates = list(rates)

    def hit_rate(self, *_: object) -> float:
        return self.rates.pop(0)


def test_resuming_is_exact(tmp_path: Path) -> None:
    """Bit-equal weights, optimizer and statistics, as if nobody had stopped the run."""

    class Stopped(Exception):
        pass

    uri = str(tmp_path / "checkpoint.pt")

    def save_and_stop(progress: Progress, checkpoint_due: bool) -> None:
        if checkpoint_due and progress.step == 6:
            checkpoint.write(uri, interrupted.state())
            raise Stopped

    def course(of: Trainer) -> list[tuple]:
        return [(p.step, p.loss, p.learning_rate, str(p.hit_rate)) for p in of.history]

    # Validated after steps 4, 8 and 10: the best weights are of before the interruption.
    straight, interrupted, resumed = (
        trainer(10, validation=HitRates(*rates)) for rates in ((0.5, 0.4, 0.3), (0.5,), (0.4, 0.3))
    )
    straight.run(lambda *_: None)
    with pytest.raises(Stopped):
        interrupted.run(save_and_stop)
    resumed.load(checkpoint.read(uri))
    assert resumed.progress.step == 6
    resumed.run(lambda *_: None)
    assert resumed.progress.step == straight.progress.step == 10
    assert differing(weights(straight), weights(resumed)) == []
    assert differing(weights(straight), weights(interrupted))
    moments = [t.optimizer.state_dict()["state"] for t in (straight, resumed)]
    for number, of_one in moments[0].items():
        assert all(torch.equal(value, moments[1][number][name]) for name, value in of_one.items())
    assert course(resumed) == course(straight)
    assert [row[3] for row in course(resumed) if row[3] != "nan"] == ["0.5", "0.4", "0.3"]
    assert straight.keep_best() == resumed.keep_best() == 4
    assert differing(weights(straight), weights(resumed)) == []


def test_the_best_weights_are_kept_and_the_latest_among_equals() -> None:
    seen = {}
    run = trainer(12, validation=HitRates(0.5, 0.5, 0.2))
    run.run(lambda progress, _: seen.update({progress.step: weights(run)}))
    assert differing(weights(run), seen[12]) == []
    assert run.progress.hit_rate == 0.2
    assert run.keep_best() == 8
    assert run.progress.hit_rate == 0.5
    assert differing(weights(run), seen[8]) == []
    assert differing(seen[8], seen[12])


def test_without_validation_the_last_weights_are_kept() -> None:
    run = trainer(2)
    run.run(lambda *_: None)
    last = weights(run)
    assert run.keep_best() == 2
    assert math.isnan(run.progress.hit_rate)
    assert differing(weights(run), last) == []


def test_a_finished_run_resumes_to_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path / "checkpoint.pt")
    finished, again = trainer(1), trainer(1)
    finished.run(lambda *_: None)
    checkpoint.write(uri, finished.state())
    again.load(checkpoint.read(uri))
    reports = []
    assert again.run(lambda *report: reports.append(report)).step == 1
    assert reports == []


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "checkpoint.pt")
    assert checkpoint.read(uri) is None
    checkpoint.write(uri, {"step": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"checkpoint\.pt: No space left on device"):
        checkpoint.write(uri, {"step": 2})
    assert checkpoint.read(uri) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("damage", [b"", b"PK", b"x" * 99])
def test_a_damaged_checkpoint_is_one_line(damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    checkpoint.write(str(file), {"step": torch.zeros(99)})
    file.write_bytes(damage or file.read_bytes()[:-99])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: damaged checkpoint"):
        checkpoint.read(str(file))


def test_a_checkpoint_of_another_preset_is_refused() -> None:
    large = Trainer(
        TrainConfig(preset="grafprint", steps=1),
        PairSampler(Waveforms.of(music(1, 6.0)), 1),
        Augmenter([], [], CLEAN, CPU),
        None,
        CPU,
    )
    with pytest.raises(TrainingError, match="not of preset 'grafprint'"):
        large.load(trainer(1).state())


def test_a_loss_that_is_no_number_stops_before_the_weights_change() -> None:
    broken = trainer(4)
    with torch.no_grad():
        broken.encoder.head[-1].bias[0] = math.nan
    before = [parameter.clone() for parameter in broken.encoder.parameters()]
    reports = []
    with pytest.raises(TrainingError, match="became nan at step 0"):
        broken.run(lambda *report: reports.append(report))
    assert reports == []
    after = broken.encoder.parameters()
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, after, strict=True)
    )


def test_a_gradient_that_is_no_number_stops_before_the_weights_change() -> None:
    broken = trainer(4)
    broken.encoder.head[0].weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(broken)
    with pytest.raises(TrainingError, match=r"the gradient became (nan|inf) at step 0"):
        broken.run(lambda *_: None)
    changed = differing(before, weights(broken))
    assert all("running" in name or "num_batches" in name for name in changed)


@pytest.mark.slow
# PyTorch's compiler uses what PyTorch itself calls deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_encoder_trains_alike_under_the_same_names() -> None:
    plain, compiled = (trainer(2, compile=compile, architecture=TINY) for compile in (False, True))
    for one in (plain, compiled):
        one.run(lambda *_: None)
    assert weights(compiled).keys() == weights(plain).keys()
    for wanted, got in zip(plain.history, compiled.history, strict=True):
        assert got.loss == pytest.approx(wanted.loss, rel=0.02)


def test_no_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(TrainingError, match=r"no C\+\+ compiler /no/such/compiler"):
        trainer(1, compile=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "huge", "steps": 1}, "small, grafprint"),
        ({}, "one of steps, epochs and minutes"),
        ({"steps": 1, "minutes": 1.0}, "one of steps, epochs and minutes"),
        ({"epochs": 1, "minutes": 1.0}, "one of steps, epochs and minutes"),
        ({"epochs": 0}, "above 0"),
        ({"steps": 1, "optimizer": "sgd"}, "choose adamw or adam"),
        ({"steps": 1, "final_learning_rate": 0.1}, "final_learning_rate: 0.1 is not within 0 to"),
        ({"steps": 1, "temperature": 0.0}, "temperature: 0 is not above 0"),
        ({"steps": 1, "clip": -1.0}, "clip: -1.0 is not within 0 to inf"),
        ({"steps": 1, "held_out": 0.6}, "held_out: 0.6 is not within 0 to 0.5"),
        ({"steps": 0}, "above 0"),
        ({"minutes": -1.0}, "above 0"),
        ({"steps": 1, "pairs": 4, "accumulate": 5}, "4 pairs cannot be cut into 5 parts"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig(**values)


def test_an_epoch_draws_each_track_once_on_average() -> None:
    """8,000 tracks and 256 pairs are 31.25 steps (paper, Table I)."""
    paper = TrainConfig(epochs=400, pairs=256, per_track=1)
    assert paper.for_tracks(8000, 1).steps == 12_500
    assert paper.for_tracks(8000, 2).steps == 6_250
    assert TrainConfig(epochs=1, pairs=256, per_track=2).for_tracks(8000, 1).steps == 63
    assert paper.for_tracks(8000, 1).epochs == 400
    timed = TrainConfig(minutes=1.0)
    assert timed.for_tracks(8000, 1) is timed


def test_the_learning_rate_rises_and_falls_as_told() -> None:
    flat = trainer(8, architecture=TINY, learning_rate=4e-3, final_learning_rate=1e-3)
    flat.config = replace(flat.config, warm_up=0.0)
    flat.run(lambda *_: None)
    rates = [point.learning_rate for point in flat.history]
    assert rates[0] == 4e-3
    assert rates[4] == pytest.approx(2.5e-3)  # of step 5 of 8, half way
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert 1e-3 < rates[-1] < 1.2e-3


@pytest.mark.parametrize(("optimizer", "kind"), [("adam", Adam), ("adamw", AdamW)])
def test_weight_decay_is_that_of_the_optimizer(optimizer: str, kind: type) -> None:
    """Of matrices alone."""
    run = trainer(1, architecture=TINY, optimizer=optimizer, weight_decay=0.5)
    assert type(run.optimizer) is kind
    shapes = {group["weight_decay"]: group["params"] for group in run.optimizer.param_groups}
    assert all(parameter.ndim > 1 for parameter in shapes[0.5])
    assert all(parameter.ndim <= 1 for parameter in shapes[0.0])


@pytest.mark.parametrize(("clip", "most"), [(0.0, math.inf), (1e-3, 1e-3)])
def test_gradients_are_clipped_only_where_wanted(clip: float, most: float) -> None:
    run = trainer(1, architecture=TINY, clip=clip)
    run.run(lambda *_: None)
    gradients = [p.grad for p in run.encoder.parameters() if p.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    assert 1e-4 < norm < 1.01 * most
    assert (norm > 1e-2) == (clip == 0)


def test_progress_is_one_line_from_the_first_report_on() -> None:
    assert Progress().line() == ("step 0  loss nan  0 pairs/s  hit rate -  time left ?")
    late = Progress(step=7, loss=1.5, hit_rate=0.5, pairs_per_second=99.6, seconds_left=90.0)
    assert late.line() == "step 7  loss 1.500  100 pairs/s  hit rate 50.0%  time left 1.5 min"


def test_a_run_of_minutes_ends_when_they_are_over() -> None:
    short = trainer(1)
    short.config = TrainConfig(minutes=0.5 / 60, pairs=6, log_every=1)
    progress = short.run(lambda *_: None)
    assert progress.done
    assert 0.5 <= progress.seconds < 60


def test_validating_in_a_run_is_reported_and_leaves_no_trace() -> None:
    with_it, without = trainer(5, validation=validation(CLEAN, queries=6)), trainer(5)
    rates = []
    with_it.run(lambda progress, _: rates.append(progress.hit_rate))
    without.run(lambda *_: None)
    assert [math.isnan(rate) for rate in rates] == [True] * 3 + [False] * 2
    for mine, theirs in zip(
        with_it.encoder.state_dict().values(), without.encoder.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)
