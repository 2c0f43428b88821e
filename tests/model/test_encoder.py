"""The graph encoder's shape, at both sizes."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from grafp.errors import ModelError
from grafp.model.encoder import Encoder, EncoderConfig, GraphBlock
from grafp.model.fingerprint import DIMENSION
from grafp.model.presets import PRESETS

NODES = {
    "grafprint": [1024] * 2 + [256] * 2 + [64] * 6 + [16] * 2,
    "grafprint-readout": [1024] * 2 + [256] * 2 + [64] * 6 + [16] * 2,
    "small": [128] * 3 + [32] * 4,
}


def encoder(preset: str) -> Encoder:
    torch.manual_seed(0)
    return Encoder(PRESETS[preset])


def spectrograms(batch: int) -> torch.Tensor:
    return torch.rand(batch, 64, 32, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize(
    ("preset", "least", "most"),
    [
        # "approximately 18M" (section IV); the authors' code counts 18,367,264.
        ("grafprint", 0.998 * 18_367_264, 1.002 * 18_367_264),
        ("grafprint-readout", 18e6, 20e6),
        ("grafprint-s", 30e6, 31e6),
        ("grafprint-m", 52e6, 54e6),
        ("grafprint-b", 95e6, 97e6),
        ("small", 1e6, 5e6),
    ],
)
def test_parameter_count(preset: str, least: float, most: float) -> None:
    with torch.device("meta"):
        model = encoder(preset)
    assert least <= model.parameter_count() <= most
    assert model.parameter_count() == sum(p.numel() for p in model.parameters())


def test_grafprint_is_the_network_of_the_paper() -> None:
    """Its text (section II-B, Table I) and, where that is silent, the authors' code."""
    model, seen = encoder("grafprint").eval(), []
    for module in (*model.stem, model.project, *model.stages, model.expand, *model.head):
        module.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape[1:])))
    with torch.inference_mode():
        model(torch.rand(1, 64, 32))  # F x T
    assert seen == [
        (8, 32, 32),  # strided convolution over amplitudes, frequency and time
        (32, 32, 64),
        (1024, 64),
        (256, 128),
        (64, 256),
        (16, 512),
        (1024,),  # a graph embedding, the mean of its nodes, for the projection layer
        (4096,),
        (128,),
    ]
    assert model.stem[0].conv.in_channels == 3
    blocks = [module for module in model.modules() if isinstance(module, GraphBlock)]
    assert [block.neighbors for block in blocks] == [3] * (2 + 2 + 6 + 2)


def test_the_graph_embedding_is_the_mean_of_the_nodes() -> None:
    model, seen = encoder("grafprint").eval(), []
    model.stages[-1].register_forward_hook(lambda *call: seen.append(call[2].mean(dim=1)))
    model.expand.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(spectrograms(2))
    torch.testing.assert_close(*seen)


def test_the_projection_of_points_is_not_linear() -> None:
    """f of section II-B; with a slope of 1 it would be."""
    linear = replace(PRESETS["grafprint"], slope=1.0)
    with torch.inference_mode():
        vectors = []
        for config in (PRESETS["grafprint"], linear):
            torch.manual_seed(0)
            vectors.append(Encoder(config).eval()(spectrograms(1)))
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("preset", NODES)
def test_fingerprints_are_128_numbers_of_unit_length(preset: str, batch: int) -> None:
    with torch.inference_mode():
        vectors = encoder(preset).eval()(spectrograms(batch))
    assert vectors.shape == (batch, DIMENSION)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(batch))


@pytest.mark.parametrize("preset", NODES)
def test_each_downsampling_quarters_the_nodes(preset: str) -> None:
    model, seen = encoder(preset).eval(), []
    for module in model.modules():
        if isinstance(module, GraphBlock):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    with torch.inference_mode():
        model(spectrograms(1))
    assert seen == NODES[preset]


@pytest.mark.parametrize("preset", NODES)
def test_a_fingerprint_does_not_depend_on_the_rest_of_its_batch(preset: str) -> None:
    model, mel = encoder(preset).eval(), spectrograms(4)
    with torch.inference_mode():
        together = model(mel)
        alone = torch.cat([model(one[None]) for one in mel])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("preset", NODES)
def test_gradients_reach_every_parameter(preset: str) -> None:
    model = encoder(preset)
    vectors = model(spectrograms(3))
    (vectors[0] @ vectors[1] - vectors[0] @ vectors[2]).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_where_a_point_lies_is_part_of_the_input() -> None:
    """Without the ramps of frequency and time, nodes would be a set without order."""
    model, mel = encoder("small").eval(), spectrograms(1)
    frequency, time = model.ramps_2FT
    assert (frequency.diff(dim=0) > 0).all()
    assert not frequency.diff(dim=1).any()
    assert (time.diff(dim=1) > 0).all()
    assert not time.diff(dim=0).any()
    with torch.inference_mode():
        before = model(mel)
        for ramp in model.ramps_2FT:
            ramp.zero_()
            after = model(mel)
            assert (after - before).abs().max() > 1e-3
            before = after


@pytest.mark.parametrize(("readout", "alike"), [(0, True), (64, False)])
def test_a_readout_knows_where_a_node_lies_and_a_mean_does_not(readout: int, alike: bool) -> None:
    torch.manual_seed(0)
    model = Encoder(replace(PRESETS["small"], readout=readout)).eval()
    nodes_BNC = torch.rand(1, model.config.last_nodes, model.config.channels[-1])
    order = iter([slice(None), [1, 0, *range(2, model.config.last_nodes)]])
    model.stages[-1].register_forward_hook(lambda *_: nodes_BNC[:, next(order)])
    with torch.inference_mode():
        first, second = model(spectrograms(1)), model(spectrograms(1))
    assert torch.allclose(first, second, atol=1e-5) == alike


def test_a_card_from_before_readouts_describes_a_mean() -> None:
    values = PRESETS["small"].to_dict()
    del values["readout"], values["expand"], values["slope"]
    assert EncoderConfig.from_dict(values) == replace(PRESETS["small"], readout=0)


@pytest.mark.parametrize("preset", NODES)
def test_a_configuration_survives_json(preset: str) -> None:
    text = json.dumps(PRESETS[preset].to_dict())
    assert EncoderConfig.from_dict(json.loads(text)) == PRESETS[preset]


def changed(**values: Any) -> dict[str, Any]:
    return {**PRESETS["small"].to_dict(), **values}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="nothing"),
        pytest.param([], id="a list"),
        pytest.param(None, id="null"),
        pytest.param("small", id="a name"),
        pytest.param({k: v for k, v in changed().items() if k != "head"}, id="no head"),
        pytest.param(changed(stem=[[24, 5, 2]]), id="a stem without time stride"),
        pytest.param(changed(stem=7), id="a number for a stem"),
        pytest.param(changed(neighbors="many"), id="a word for a number"),
        pytest.param(changed(channels=None), id="no channels"),
        pytest.param(changed(channels=[], blocks=[]), id="no stages"),
        pytest.param(changed(channels=[64]), id="fewer channels than blocks"),
        pytest.param(changed(head=[-1]), id="a negative width"),
        pytest.param(changed(readout=-2), id="a negative readout"),
        pytest.param(changed(expand=-2), id="a negative width before the head"),
        pytest.param(changed(expand=8), id="a readout and a width before the head"),
        pytest.param(changed(slope=2.0), id="a slope above 1"),
        pytest.param(changed(stem=[[24, 5, 0, 2]]), id="a stride of 0"),
        pytest.param(changed(neighbors=float("inf")), id="more than any number"),
        pytest.param(changed(channels=[10**12] * 3), id="an absurd width"),
        pytest.param(changed(blocks=[10**9] * 3), id="an absurd depth"),
    ],
)
def test_what_does_not_describe_an_encoder_is_refused(values: Any) -> None:
    with pytest.raises(ModelError, match=r"^encoder in the model card: ") as error:
        EncoderConfig.from_dict(values)
    assert "\n" not in str(error.value)
