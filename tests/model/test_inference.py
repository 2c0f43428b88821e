"""The inference form against the plain one, and recordings against their seconds."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from logged import logged
from torch import nn
from training_music import CLEAN, CPU, music

from grafp.audio import synthesis
from grafp.model import inference
from grafp.model.bundle import SHIPPED, load_bundle
from grafp.model.encoder import Encoder
from grafp.model.features import log_mel
from grafp.model.fingerprint import segment_count
from grafp.model.inference import Fingerprinter, inference_form, trusted_dtype
from grafp.model.presets import PRESETS, build_encoder
from grafp.training import trainer
from grafp.training.augment import Augmenter
from grafp.training.config import TrainConfig
from grafp.training.data.buffer import Waveforms
from grafp.training.data.sampler import PairSampler

WARNING = "torch.bfloat16 gives wrong fingerprints on this machine: using float32"


def seconds_of_music(seed: int, count: int, noise: float = 0.1) -> torch.Tensor:
    """Overlapping seconds of a piece with some noise, (count, 16000)."""
    length = 8000 * (count + 1)
    samples = synthesis.piece(seed, length / 16_000) + noise * synthesis.noise(
        seed, length / 16_000
    )
    return torch.from_numpy(samples).unfold(0, 16_000, 8000)


@pytest.fixture(scope="module", params=["grafprint", "small"])
def plain(request: pytest.FixtureRequest) -> Encoder:
    """An encoder whose batch norms have weights, biases and statistics worth folding."""
    torch.manual_seed(0)
    encoder = Encoder(PRESETS[request.param])
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
    with torch.no_grad():
        for seed in range(3):
            encoder(log_mel(seconds_of_music(seed, 6)))
    return encoder.eval()


@pytest.fixture(scope="module")
def small() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(PRESETS["small"])
    with torch.no_grad():
        for seed in range(20):
            encoder(log_mel(seconds_of_music(seed, 6)))
    return encoder.eval()


def embed(encoder: Encoder, mel_BFT: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(mel_BFT)


@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 0.99999), (torch.bfloat16, 0.999)], ids=["fp32", "bf16"]
)
def test_the_inference_form_gives_the_same_fingerprints(
    plain: Encoder, dtype: torch.dtype, least: float
) -> None:
    form = inference_form(plain, dtype=dtype)
    assert not [m for m in form.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert dtype in {parameter.dtype for parameter in form.stages.parameters()}
    mel = log_mel(seconds_of_music(7, 10))
    before = embed(plain, mel)
    assert ((before * embed(form, mel)).sum(dim=1) > least).all()
    untrained = Encoder(plain.config).eval()  # the bound is one that other weights do not reach
    assert ((before * embed(untrained, mel)).sum(dim=1) < 0.9).all()


def test_this_machines_inference_form_gives_the_same_fingerprints(plain: Encoder) -> None:
    mel = log_mel(seconds_of_music(8, 10))
    assert ((embed(plain, mel) * embed(inference_form(plain), mel)).sum(dim=1) > 0.999).all()


def test_wrong_kernels_are_not_used(small: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that multiplies bfloat16 wrongly: the fingerprints are those of float32."""
    samples = synthesis.piece(3, 3.0)
    exact = Fingerprinter(inference_form(small, dtype=torch.float32), CPU)(samples)
    convolve = nn.Conv2d.forward

    def wrong(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        return convolve(layer, x) * (-1.0 if torch.is_autocast_enabled("cpu") else 1.0)

    monkeypatch.setattr(inference, "inference_dtype", lambda _: torch.bfloat16)
    monkeypatch.setattr(nn.Conv2d, "forward", wrong)
    with logged() as lines:
        rows = Fingerprinter.from_encoder(small)(samples)
    assert lines == [WARNING]
    np.testing.assert_array_equal(rows, exact)


class Broken(nn.Module):
    """An encoder with kernels that are wrong under autocast."""

    def __init__(self, encoder: Encoder, damage: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.encoder, self.damage, self.config = encoder, damage, encoder.config

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        vectors_BD = self.encoder(mel_BFT)
        return self.damage(vectors_BD) if torch.is_autocast_enabled("cpu") else vectors_BD


def turned(vectors_BD: torch.Tensor) -> torch.Tensor:
    """At a cosine of 0.3 to what they were, each in a direction of its own."""
    away_BD = torch.randn(vectors_BD.shape, generator=torch.Generator().manual_seed(0))
    away_BD -= (away_BD * vectors_BD).sum(dim=1, keepdim=True) * vectors_BD
    return 0.3 * vectors_BD + 0.91**0.5 * F.normalize(away_BD, dim=1)


def one_is_no_number(vectors_BD: torch.Tensor) -> torch.Tensor:
    return vectors_BD.index_fill(0, torch.tensor(5), math.nan)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(turned, id="turned"),
        pytest.param(lambda v: v * math.nan, id="no numbers"),
        pytest.param(one_is_no_number, id="one is no number"),
        pytest.param(lambda v: v.roll(1, dims=0), id="those of other segments"),
        pytest.param(lambda v: v.index_copy(0, torch.tensor(0), v[1:2]), id="one is another's"),
        pytest.param(lambda v: v.mean(dim=0).expand_as(v), id="all alike"),
        pytest.param(lambda v: F.normalize(v + 0.2, dim=1), id="all moved"),
    ],
)
@pytest.mark.parametrize("trained", [False, True])
def test_wrong_fingerprints_in_bfloat16_are_noticed(
    damage: Callable, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder = load_bundle("small").encoder if trained else Encoder(PRESETS["small"])
    monkeypatch.setattr(inference, "inference_dtype", lambda _: torch.bfloat16)
    with logged() as lines:
        assert trusted_dtype(Broken(encoder, damage), CPU) == torch.float32
    assert lines == [WARNING]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_new_encoder_is_trusted_with_bfloat16(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(inference, "inference_dtype", lambda _: torch.bfloat16)
    with logged() as lines:
        assert trusted_dtype(build_encoder(PRESETS[preset]), CPU) == torch.bfloat16
    assert not lines


def test_a_hardly_trained_encoder_is_trusted_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cosines fall below 0.99, most of all on noise, but every segment is found."""
    config = TrainConfig(steps=30, pairs=8, learning_rate=3e-3, warm_up=0.0)
    sampler = PairSampler(Waveforms.of(music(12, 6.0)), config.pairs, config.per_track)
    monkeypatch.setattr(trainer, "trusted_dtype", lambda *_: torch.float32)  # on every CPU alike
    run = trainer.Trainer(config, sampler, Augmenter([], [], CLEAN, CPU), None, CPU)
    run.run(lambda *_: None)
    monkeypatch.setattr(inference, "inference_dtype", lambda _: torch.bfloat16)
    with logged() as lines:
        assert trusted_dtype(run.encoder, CPU) == torch.bfloat16
    assert run.encoder.training  # as it was
    assert not lines


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.glob("*/")))
def test_a_shipped_models_inference_form_gives_the_same_fingerprints(name: str) -> None:
    """Here the fingerprints of different seconds differ, as only training brings about."""
    encoder = load_bundle(name).encoder
    mel = log_mel(torch.cat([seconds_of_music(seed, 10, noise=0.3) for seed in (100, 101, 102)]))
    before, after = embed(encoder, mel), embed(inference_form(encoder, dtype=torch.bfloat16), mel)
    cosine = (before * after).sum(dim=1)
    assert cosine.mean() > 0.999
    assert cosine.min() > 0.99
    assert (before @ before.T).median() < 0.7
    assert ((after @ before.T).argmax(dim=1) == torch.arange(len(mel))).all()


def test_the_inference_form_is_a_copy(small: Encoder) -> None:
    before = {name: value.clone() for name, value in small.state_dict().items()}
    mel = log_mel(seconds_of_music(7, 3))
    vectors = embed(small, mel)
    form = inference_form(small)
    with torch.no_grad():
        for parameter in form.parameters():
            parameter.zero_()
    assert small.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert all(parameter.requires_grad for parameter in small.parameters())
    assert torch.equal(embed(small, mel), vectors)


@pytest.mark.parametrize("hop", [0.1, 0.5])
@pytest.mark.parametrize(
    ("samples", "rows"),
    [
        (0, (0, 0)),
        (1, (0, 0)),
        (15_999, (0, 0)),
        (16_000, (1, 1)),
        (17_599, (1, 1)),
        (17_600, (2, 1)),
        (23_999, (5, 1)),
        (24_000, (6, 2)),
    ],
)
def test_a_row_for_every_whole_second(
    samples: int, rows: tuple[int, int], hop: float, small: Encoder
) -> None:
    wanted = rows[0] if hop == 0.1 else rows[1]
    fingerprinter = Fingerprinter.from_encoder(small, hop_seconds=hop)
    recording = synthesis.piece(1, 2.0)[:samples]
    vectors = fingerprinter(recording)
    assert vectors.shape == (wanted, 128)
    assert vectors.dtype == np.float32
    assert segment_count(samples, round(hop * 16_000)) == wanted


def test_row_i_is_the_fingerprint_of_the_second_at_i_hops(small: Encoder) -> None:
    fingerprinter = Fingerprinter(inference_form(small, CPU, torch.float32), CPU)
    samples = synthesis.piece(5, 14.5)  # 136 rows: more than one batch
    rows = fingerprinter(samples)
    for i in (0, 1, 64, 127, 128, 135):
        [alone] = fingerprinter(samples[i * 1600 : i * 1600 + 16_000])
        np.testing.assert_allclose(rows[i], alone, rtol=0, atol=1e-4)
    spread = rows - rows.mean(axis=0)
    assert np.linalg.norm(spread, axis=1).min() > 0.003  # rows differ by more than that bound
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)


def test_silent_rows_are_zero_and_others_are_not(small: Encoder) -> None:
    samples = synthesis.piece(5, 6.0)
    samples[32_000:64_000] = 0.0
    rows = Fingerprinter.from_encoder(small)(samples)
    silent = ~rows.any(axis=1)
    assert np.flatnonzero(silent).tolist() == list(range(20, 31))
    np.testing.assert_allclose(np.linalg.norm(rows[~silent], axis=1), 1.0, rtol=1e-5)


def test_a_recording_is_only_read(small: Encoder) -> None:
    samples = synthesis.piece(5, 2.0)
    before = samples.copy()
    fingerprinter = Fingerprinter.from_encoder(small)
    rows = fingerprinter(samples)
    assert np.array_equal(samples, before)
    samples.flags.writeable = False
    assert np.array_equal(fingerprinter(samples), rows)
