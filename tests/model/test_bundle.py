"""Model bundles: what is written, what comes back, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damaged import DAMAGES

from grafp import storage
from grafp.errors import ModelError
from grafp.model.bundle import (
    DEFAULT_MIN_SCORE,
    ModelBundle,
    load_bundle,
    parse_bundle,
    read_card,
    save_bundle,
)
from grafp.model.encoder import Encoder, EncoderConfig
from grafp.model.presets import PRESETS

TINY = EncoderConfig(stem=((4, 3, 4, 4),), channels=(8, 16), blocks=(1, 2), neighbors=3, head=(16,))


def encoder(config: EncoderConfig, seed: int = 0) -> Encoder:
    """Running statistics included, which a fresh model has not got."""
    torch.manual_seed(seed)
    model = Encoder(config)
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(4, 64, 32))
    return model.eval()


@pytest.fixture
def saved(tmp_path: Path) -> ModelBundle:
    """A small bundle; its files are the raw material of damaged ones."""
    save_bundle(str(tmp_path / "model"), encoder(TINY), {"preset": "tiny"})
    return load_bundle(str(tmp_path / "model"))


def refused(files: dict[str, bytes]) -> str:
    with pytest.raises(ModelError) as error:
        parse_bundle(files, "my-model")
    text = str(error.value)
    assert text.startswith("my-model: ")
    assert "\n" not in text
    return text


def test_a_grafprint_bundle_from_before_its_preset_changed_is_read(tmp_path: Path) -> None:
    """Its card has the network that is `grafprint-readout` now, without the newer sizes."""
    original = encoder(PRESETS["grafprint-readout"])
    save_bundle(str(tmp_path), original, {"preset": "grafprint"})
    files = read_card(str(tmp_path)).files
    card = json.loads(files["card.json"])
    del card["encoder"]["expand"], card["encoder"]["slope"]
    loaded = parse_bundle(files | {"card.json": json.dumps(card).encode()}, "old")
    assert loaded.model_id.startswith("grafprint-")
    assert loaded.encoder.config == PRESETS["grafprint-readout"]
    assert loaded.encoder.config != PRESETS["grafprint"]
    mel = torch.rand(2, 64, 32)
    with torch.inference_mode():
        cosine_B = (loaded.encoder(mel) * original(mel)).sum(dim=1)
    assert (cosine_B > 0.999).all()


@pytest.mark.parametrize("config", [PRESETS["small"], TINY], ids=["small", "tiny"])
def test_a_model_comes_back_as_it_was_saved(config: EncoderConfig, store: str) -> None:
    original = encoder(config)
    model_id = save_bundle(storage.join(store, "model"), original, {"preset": "tiny"})
    loaded = load_bundle(storage.join(store, "model"))
    assert loaded.model_id == model_id
    assert loaded.encoder.config == config
    assert not loaded.encoder.training
    for name, value in original.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            got = loaded.encoder.state_dict()[name]
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, value, rtol=2**-11, atol=2**-24)
    mel = torch.rand(6, 64, 32)
    with torch.inference_mode():
        assert ((original(mel) * loaded.encoder(mel)).sum(dim=1) > 0.9999).all()


def test_saving_what_was_loaded_loses_nothing_more(saved: ModelBundle, tmp_path: Path) -> None:
    again = save_bundle(str(tmp_path / "again"), saved.encoder, {"preset": "tiny"})
    assert again == saved.model_id
    assert load_bundle(str(tmp_path / "again")).files == saved.files


def test_saving_leaves_the_model_alone(tmp_path: Path) -> None:
    model = encoder(TINY).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_bundle(str(tmp_path), model, {"preset": "tiny"})
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_weights_or_another_card_have_another_id(saved: ModelBundle, tmp_path: Path) -> None:
    other_weights = save_bundle(str(tmp_path / "a"), encoder(TINY, seed=1), {"preset": "tiny"})
    other_card = save_bundle(str(tmp_path / "b"), saved.encoder, {"preset": "tiny", "note": "x"})
    assert len({saved.model_id, other_weights, other_card}) == 3
    assert saved.model_id.startswith("tiny-")
    assert saved.sha256.startswith(saved.model_id.removeprefix("tiny-"))


def test_the_card_tells_what_the_weights_mean(saved: ModelBundle) -> None:
    card = json.loads(saved.files["card.json"])
    assert card == saved.card
    assert card["format_version"] == 1
    assert card["preset"] == "tiny"
    assert card["features"]["sample_rate"] == 16_000
    assert EncoderConfig.from_dict(card["encoder"]) == TINY
    assert card["parameters"] == saved.encoder.parameter_count()
    assert torch.__version__.startswith(card["versions"]["torch"])
    assert {"grafp", "torchaudio", "av"} < card["versions"].keys()


def test_a_name_that_is_not_shipped_is_refused_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grafp.model.bundle.SHIPPED", tmp_path)
    with pytest.raises(ModelError, match="shipped models: none"):
        load_bundle("huge")
    model_id = save_bundle(str(tmp_path / "beta"), encoder(TINY), {"preset": "tiny"})
    (tmp_path / "alpha").mkdir()
    assert load_bundle("beta").model_id == model_id
    with pytest.raises(ModelError, match=r"^huge: not a model.* shipped models: alpha, beta$"):
        load_bundle("huge")


def test_a_folder_without_a_bundle_is_refused(store: str, saved: ModelBundle) -> None:
    where = storage.join(store, "half")
    for name in ("nothing", "card.json", "weights.safetensors"):
        storage.write(storage.join(where, name), saved.files.get(name, b""))
        if name != "weights.safetensors":
            with pytest.raises(ModelError, match="not a model bundle") as error:
                load_bundle(where)
            assert where in str(error.value)
            assert "\n" not in str(error.value)
    assert load_bundle(where).model_id == saved.model_id


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_a_damaged_file_is_refused(
    name: str, damage: Callable[[bytes], bytes], saved: ModelBundle
) -> None:
    assert "damaged" in refused({**saved.files, name: damage(saved.files[name])})


@pytest.mark.parametrize("card", [[], None, 7, "small"])
def test_a_card_that_is_not_an_object_is_refused(card: object, saved: ModelBundle) -> None:
    refused({**saved.files, "card.json": json.dumps(card).encode()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "made for format 2"),
        ({"format_version": None}, "made for format None"),
        ({"features": {"name": "other"}}, "other"),
        ({"encoder": {}}, "encoder in the model card: "),
        ({"encoder": {**TINY.to_dict(), "blocks": [1]}}, "encoder in the model card: "),
        ({"encoder": PRESETS["small"].to_dict()}, "do not fit the card"),
        ({"encoder": {**TINY.to_dict(), "head": [32]}}, "do not fit the card"),
        ({"encoder": {**TINY.to_dict(), "blocks": [1, 1]}}, "do not fit the card"),
        ({"encoder": {**TINY.to_dict(), "blocks": [1, 3]}}, "do not fit the card"),
        ({"encoder": {**TINY.to_dict(), "head": []}}, "do not fit the card"),
    ],
)
def test_a_card_of_another_version_or_model_is_refused(
    changes: dict, message: str, saved: ModelBundle
) -> None:
    card = json.dumps({**saved.card, **changes}).encode()
    assert message in refused({**saved.files, "card.json": card})


def test_the_score_to_reach_depends_on_the_length(saved: ModelBundle, tmp_path: Path) -> None:
    assert saved.min_score(1.0) == saved.min_score(60.0) == DEFAULT_MIN_SCORE
    card = saved.card | {"min_score": {"1": 0.9, "5": 0.7, "2": 0.8}}
    told = parse_bundle(saved.files | {"card.json": json.dumps(card).encode()}, "my-model")
    scores = [told.min_score(seconds) for seconds in (0.5, 1.0, 1.5, 2.0, 5.0, 3600.0)]
    assert scores == pytest.approx([0.9, 0.9, 0.85, 0.8, 0.7, 0.7])
    for bad in (0.7, {}, {"1": "high"}, {"1": float("nan")}, None):
        card = json.dumps(saved.card | {"min_score": bad}).encode()
        assert "min_score" in refused(saved.files | {"card.json": card})


@pytest.mark.parametrize("key", ["offset_correction_s", "offset_bias_s"])
def test_a_card_has_an_offset_correction_under_its_new_or_old_name(
    key: str, saved: ModelBundle
) -> None:
    def files(seconds: object) -> dict[str, bytes]:
        return saved.files | {"card.json": json.dumps(saved.card | {key: seconds}).encode()}

    assert saved.offset_correction_s == 0.0
    assert parse_bundle(files(-0.012), "my-model").offset_correction_s == -0.012
    for bad in ("-0.01", None, float("nan"), 0.2):
        assert key in refused(files(bad))


def test_the_shipped_models_offset_correction_is_read() -> None:
    assert read_card("small").offset_correction_s == read_card("small").card["offset_bias_s"] != 0.0
