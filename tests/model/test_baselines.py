"""The baselines: networks of other kinds that do what the graph encoder does."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from grafp.audio import synthesis
from grafp.errors import ModelError, TrainingError
from grafp.model.baselines import ConvConfig, PatchConfig
from grafp.model.bundle import load_bundle, parse_bundle, save_bundle
from grafp.model.features import log_mel
from grafp.model.fingerprint import DIMENSION
from grafp.model.inference import Fingerprinter
from grafp.model.presets import PRESETS, AnyConfig, AnyEncoder, build_encoder, config_from_dict
from grafp.training.augment import Augmenter
from grafp.training.config import AugmentConfig, TrainConfig
from grafp.training.data.buffer import Waveforms
from grafp.training.data.sampler import PairSampler
from grafp.training.trainer import Trainer
from pipelines.jobs import train

CPU = torch.device("cpu")
BASELINES = ("nafp", "ast", "ast-published", "ast-small")
CONV = ConvConfig(layers=((8, 4, 2), (16, 4, 4), (128, 4, 4)), unit=4)
PATCH = PatchConfig(frames=8, stride=4, width=32, depth=2, heads=2, head=(48,))
OWN_INPUT = replace(PATCH, spectrogram="log-mel-64x100", expand=24)
TINY = pytest.mark.parametrize(
    "config", [CONV, PATCH, OWN_INPUT], ids=["convolution", "transformer", "own input"]
)


def encoder(config: AnyConfig, seed: int = 0) -> AnyEncoder:
    torch.manual_seed(seed)
    return build_encoder(config).eval()


def music(config: AnyConfig, seed: int, seconds: int = 8) -> torch.Tensor:
    """Spectrograms of overlapping seconds of a piece."""
    samples = torch.from_numpy(synthesis.piece(seed, seconds))
    return log_mel(samples.unfold(0, 16_000, 8_000), config.spectrogram)


def embed(model: AnyEncoder, mel_BFT: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(mel_BFT)


@pytest.mark.parametrize(
    ("preset", "least", "most"),
    [
        ("nafp", 16.5e6, 19e6),
        ("ast", 43e6, 47e6),
        ("ast-published", 44.5e6, 45.5e6),  # "45M" in the paper, section IV
        ("ast-small", 4e6, 5e6),
    ],
)
def test_the_sizes_are_those_of_the_papers(preset: str, least: float, most: float) -> None:
    with torch.device("meta"):
        model = build_encoder(PRESETS[preset])
    assert least <= model.parameter_count() <= most
    assert model.parameter_count() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("preset", BASELINES)
def test_every_baseline_makes_fingerprints_and_so_does_its_inference_form(preset: str) -> None:
    model, mel = encoder(PRESETS[preset]), music(PRESETS[preset], 1, 3)
    vectors = embed(model, mel)
    assert vectors.shape == (len(mel), DIMENSION)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(mel)))
    form = Fingerprinter.from_encoder(model).encoder
    assert ((embed(form, mel) * vectors).sum(dim=1) > 0.999).all()
    assert ((embed(encoder(PRESETS[preset], seed=1), mel) * vectors).sum(dim=1) < 0.9).all()


@TINY
def test_a_fingerprint_does_not_depend_on_the_rest_of_its_batch(config: AnyConfig) -> None:
    model, mel = encoder(config), music(config, 2)
    together = embed(model, mel)
    alone = torch.cat([embed(model, one[None]) for one in mel])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


@TINY
def test_gradients_reach_every_parameter(config: AnyConfig) -> None:
    model = encoder(config).train()
    vectors = model(music(config, 3))
    (vectors[0] @ vectors[1] - vectors[0] @ vectors[2]).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_each_number_sees_only_its_share_of_the_features() -> None:
    """Divide and encode; and in a transformer each patch spans all frequencies of its frames."""
    model = encoder(CONV)
    before = model.head(torch.zeros(1, CONV.features, 1))
    share = CONV.features // DIMENSION
    features = torch.zeros(1, CONV.features, 1)
    features[:, 5 * share : 6 * share] = 1.0
    assert (model.head(features) != before).flatten().nonzero().tolist() == [[5]]


def test_a_patch_is_all_frequencies_of_its_frames_and_its_position_counts() -> None:
    model, mel = encoder(PATCH), torch.rand(1, 64, 32)
    changed = mel.clone()
    changed[:, 63, 0] += 1.0
    moved = (embed(model.embed, mel) != embed(model.embed, changed)).any(dim=1)
    assert moved.flatten().nonzero().tolist() == [[0]]
    same = torch.ones(1, 64, 32)
    placed = embed(model, same)
    with torch.no_grad():
        model.positions.zero_()
    assert (embed(model, same) - placed).abs().max() > 1e-4


def trainer(config: AnyConfig, preset: str = "ast-small") -> Trainer:
    tracks = [torch.from_numpy((synthesis.piece(s, 4.0) * 32767).astype("i2")) for s in range(12)]
    clean = Augmenter([], [], AugmentConfig(reverb=0.0, noise=0.0), CPU)
    settings = TrainConfig(preset=preset, steps=12, pairs=12, per_track=1, log_every=1, warm_up=0.1)
    return Trainer(
        settings, PairSampler(Waveforms.of(tracks), 12), clean, None, CPU, architecture=config
    )


@TINY
def test_a_few_steps_lower_the_loss(config: AnyConfig) -> None:
    losses = []
    trainer(config).run(lambda progress, _: losses.append(progress.loss))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@TINY
def test_a_model_comes_back_as_it_was_saved(config: AnyConfig, tmp_path) -> None:
    original, mel = encoder(config), music(config, 4)
    model_id = save_bundle(str(tmp_path), original, {"preset": "tiny"})
    loaded = load_bundle(str(tmp_path))
    assert (loaded.model_id, loaded.encoder.config) == (model_id, config)
    assert ((embed(original, mel) * embed(loaded.encoder, mel)).sum(dim=1) > 0.9999).all()
    rows = Fingerprinter.from_encoder(loaded.encoder)(synthesis.piece(5, 3.0))
    assert rows.shape == (21, DIMENSION)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_survives_json_and_only_baselines_tell_their_kind(preset: str) -> None:
    values = PRESETS[preset].to_dict()
    assert config_from_dict(json.loads(json.dumps(values))) == PRESETS[preset]
    assert ("kind" in values) == (preset in BASELINES)


def test_the_job_trains_every_preset() -> None:
    for preset in PRESETS:
        assert train.options(["--music", "m", "--out", "o", "--preset", preset]).preset == preset
    with pytest.raises(SystemExit):
        train.options(["--music", "m", "--out", "o", "--preset", "huge"])


BIG = 10**12


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "huge"},
        {"kind": ["convolution"]},
        {"kind": None},
        {"kind": "convolution"},
        {"kind": "transformer"},
        CONV.to_dict() | {"layers": []},
        CONV.to_dict() | {"layers": 7},
        CONV.to_dict() | {"layers": [[128, 2]]},
        CONV.to_dict() | {"layers": [[128, 2, 0]]},
        CONV.to_dict() | {"layers": [[128, 2, -2]]},
        CONV.to_dict() | {"layers": [[BIG, 2, 2]]},
        CONV.to_dict() | {"layers": [[128, 1, 1]] * 101},
        CONV.to_dict() | {"layers": [[100, 64, 32]]},
        CONV.to_dict() | {"unit": 0},
        CONV.to_dict() | {"unit": float("inf")},
        PATCH.to_dict() | {"heads": 3},
        PATCH.to_dict() | {"heads": 0},
        PATCH.to_dict() | {"frames": 33},
        PATCH.to_dict() | {"stride": 0},
        PATCH.to_dict() | {"width": BIG, "heads": 1},
        PATCH.to_dict() | {"depth": 10**9},
        PATCH.to_dict() | {"depth": "deep"},
        PATCH.to_dict() | {"head": [0]},
        PATCH.to_dict() | {"head": None},
        PATCH.to_dict() | {"expand": -1},
        PATCH.to_dict() | {"spectrogram": "log-mel-1x1"},
        PATCH.to_dict() | {"spectrogram": None},
    ],
    ids=str,
)
def test_what_does_not_describe_an_encoder_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"^encoder in the model card: ") as error:
        config_from_dict(values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "other",
    [
        CONV,
        replace(PATCH, depth=3),
        replace(PATCH, stride=2),
        replace(PATCH, head=()),
        replace(PATCH, width=1 << 16, depth=100),  # 10 TB, if anything were allocated
        replace(CONV, layers=((1 << 16, 1, 1),) * 100),
    ],
    ids=str,
)
def test_weights_of_another_architecture_are_refused(other: AnyConfig, tmp_path) -> None:
    save_bundle(str(tmp_path), encoder(PATCH), {"preset": "tiny"})
    saved = load_bundle(str(tmp_path))
    card = json.dumps(saved.card | {"encoder": other.to_dict()}).encode()
    with pytest.raises(ModelError, match=r"^my-model: the weights do not fit the card") as error:
        parse_bundle(saved.files | {"card.json": card}, "my-model")
    assert "\n" not in str(error.value)


def test_the_input_of_a_model_travels_in_its_card(tmp_path) -> None:
    """The transformer as its authors trained it: 25 ms windows, ten frames a patch (64 x 100)."""
    config = PRESETS["ast-published"]
    assert isinstance(config, PatchConfig)
    sizes = config.input
    assert (sizes.mels, sizes.frames, sizes.window) == (64, 100, 400)
    assert config.tokens == 1 + 10
    save_bundle(str(tmp_path), encoder(OWN_INPUT), {"preset": "tiny"})
    saved = load_bundle(str(tmp_path))
    assert saved.card["features"]["name"] == saved.encoder.config.spectrogram == "log-mel-64x100"
    features = {"features": saved.card["features"] | {"name": "log-mel-64x32"}}
    card = json.dumps(saved.card | features).encode()
    with pytest.raises(ModelError, match="its encoder takes log-mel-64x100, not log-mel-64x32"):
        parse_bundle(saved.files | {"card.json": card}, "my-model")


def test_a_card_from_before_other_inputs_describes_the_same_transformer() -> None:
    values = PATCH.to_dict()
    del values["spectrogram"], values["expand"]
    assert config_from_dict(values) == PATCH


def test_training_does_not_go_on_from_another_architecture() -> None:
    with pytest.raises(TrainingError, match="not of preset 'ast-small'"):
        trainer(PATCH).start_from(encoder(CONV))
