"""The inference form against the plain one, and recordings against their seconds."""

import numpy as np
import pytest
import torch
from torch import nn

from grafp.audio import synthesis
from grafp.model import inference
from grafp.model.bundle import SHIPPED, load_bundle
from grafp.model.encoder import Encoder
from grafp.model.features import log_mel
from grafp.model.fingerprint import segment_count
from grafp.model.inference import Fingerprinter, inference_form
from grafp.model.presets import PRESETS


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
def test_the_fast_form_gives_the_same_fingerprints(
    plain: Encoder, dtype: torch.dtype, least: float
) -> None:
    fast = inference_form(plain, dtype=dtype)
    assert not [m for m in fast.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert dtype in {parameter.dtype for parameter in fast.stages.parameters()}
    mel = log_mel(seconds_of_music(7, 10))
    before = embed(plain, mel)
    assert ((before * embed(fast, mel)).sum(dim=1) > least).all()
    untrained = Encoder(plain.config).eval()  # the bound is one that other weights do not reach
    assert ((before * embed(untrained, mel)).sum(dim=1) < 0.9).all()


def test_this_machines_fast_form_gives_the_same_fingerprints(plain: Encoder) -> None:
    mel = log_mel(seconds_of_music(8, 10))
    assert ((embed(plain, mel) * embed(inference_form(plain), mel)).sum(dim=1) > 0.999).all()


def test_wrong_kernels_are_not_used(small: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that multiplies bfloat16 wrongly: the fingerprints are those of float32."""
    cpu, samples = torch.device("cpu"), synthesis.piece(3, 3.0)
    exact = Fingerprinter(inference_form(small, dtype=torch.float32), cpu)(samples)
    convolve = nn.Conv2d.forward

    def wrong(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        return convolve(layer, x) * (-1.0 if torch.is_autocast_enabled("cpu") else 1.0)

    monkeypatch.setattr(inference, "inference_dtype", lambda _: torch.bfloat16)
    monkeypatch.setattr(nn.Conv2d, "forward", wrong)
    with pytest.warns(UserWarning, match="using float32"):
        rows = Fingerprinter.from_encoder(small)(samples)
    np.testing.assert_array_equal(rows, exact)


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.glob("*/")))
def test_a_shipped_models_fast_form_gives_the_same_fingerprints(name: str) -> None:
    """Here the fingerprints of different seconds differ, as only training brings about."""
    encoder = load_bundle(name).encoder
    mel = log_mel(torch.cat([seconds_of_music(seed, 10, noise=0.3) for seed in (100, 101, 102)]))
    before, after = embed(encoder, mel), embed(inference_form(encoder, dtype=torch.bfloat16), mel)
    cosine = (before * after).sum(dim=1)
    assert cosine.mean() > 0.999
    assert cosine.min() > 0.99
    assert (before @ before.T).median() < 0.7
    assert ((after @ before.T).argmax(dim=1) == torch.arange(len(mel))).all()


def test_the_fast_form_is_a_copy(small: Encoder) -> None:
    before = {name: value.clone() for name, value in small.state_dict().items()}
    mel = log_mel(seconds_of_music(7, 3))
    vectors = embed(small, mel)
    fast = inference_form(small)
    with torch.no_grad():
        for parameter in fast.parameters():
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
    cpu = torch.device("cpu")
    fingerprinter = Fingerprinter(inference_form(small, cpu, torch.float32), cpu)
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
