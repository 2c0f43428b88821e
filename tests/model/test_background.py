"""The background of a model: what is written, what comes back, and what is refused."""

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from damaged import DAMAGES
from safetensors.numpy import load, save

from grafp.errors import ModelError
from grafp.model.background import (
    FILE,
    LENGTHS_S,
    Background,
    background_to_bytes,
    parse_background,
)
from grafp.model.bundle import (
    SHIPPED,
    load_bundle,
    read_background,
    read_card,
    save_bundle,
    shipped_background,
)

OWNER = "ab" * 32
CLIPS = 4


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((*shape, 128))
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float16)


@pytest.fixture
def background() -> Background:
    clips = vectors(CLIPS, 91)
    clips[1, 10:30] = 0.0  # silent for two seconds
    return Background(
        clips_NMD=clips,
        track_N=np.array([0, 1, 2, 0], np.int32),
        references_RD=vectors(120, seed=1),
        counts_T=np.array([60, 40, 20], np.int32),
        beside_Q=np.linspace(0.1, 0.4, (5 + 5 + 3 + 2 + 1) * CLIPS, dtype=np.float32),
        alone_L2=np.full((len(LENGTHS_S), 2), 0.1, np.float32),
    )


def same(one: Background, other: Background) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        and getattr(one, field.name).dtype == getattr(other, field.name).dtype
        for field in fields(Background)
    )


def refused(data: bytes) -> str:
    with pytest.raises(ModelError) as error:
        parse_background(data, OWNER, "my-model")
    text = str(error.value)
    assert text.startswith("my-model: ")
    assert FILE in text
    assert "\n" not in text
    return text


def test_a_background_is_read_as_it_was_written(background: Background) -> None:
    assert same(parse_background(background_to_bytes(background, OWNER), OWNER, "m"), background)


def test_that_of_another_model_is_refused(background: Background) -> None:
    told = refused(background_to_bytes(background, "cd" * 32))
    assert "another model" in told
    assert "python -m grafp.training.background" in told


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(
    damage: Callable[[bytes], bytes], background: Background
) -> None:
    assert f"damaged {FILE}" in refused(damage(background_to_bytes(background, OWNER)))


@pytest.mark.parametrize("name", [field.name for field in fields(Background)] + ["model_sha256"])
def test_a_part_that_is_missing_is_named(name: str, background: Background) -> None:
    tensors = load(background_to_bytes(background, OWNER))
    del tensors[name]
    assert name in refused(save(tensors))


@pytest.mark.parametrize("name", ["clips_NMD", "references_RD", "beside_Q", "alone_L2"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(name: str, value: float, background: Background) -> None:
    array = getattr(background, name).copy()
    array.flat[7] = value
    damaged = replace(background, **{name: array})
    assert "finite" in refused(background_to_bytes(damaged, OWNER))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("clips_NMD", lambda clips: clips[:, :, :64]),
        ("clips_NMD", lambda clips: clips[:, :50]),
        ("clips_NMD", lambda clips: clips[0]),
        ("clips_NMD", lambda clips: clips[:-1]),
        ("references_RD", lambda references: references[:-1]),
        ("references_RD", lambda references: references[:, :64]),
        ("track_N", lambda tracks: tracks[:-1]),
        ("counts_T", lambda counts: counts + 1),
        ("beside_Q", lambda scores: scores[:-1]),
        ("alone_L2", lambda laws: laws[:-1]),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(
    name: str, change: Callable[[np.ndarray], np.ndarray], background: Background
) -> None:
    damaged = replace(background, **{name: change(getattr(background, name))})
    assert f"damaged {FILE}" in refused(background_to_bytes(damaged, OWNER))


@pytest.mark.parametrize("hop_s", [0.1, 0.05, 0.025])
def test_queries_are_as_long_as_asked_and_lie_within_their_clips(
    hop_s: float, background: Background
) -> None:
    there = background.at_hop(hop_s)
    counts = []
    for seconds in LENGTHS_S:
        clip_Q, queries = there.queries(seconds, hop_s)
        assert len(clip_Q) == len(queries) == len(background.beside(seconds))
        assert set(np.bincount(clip_Q)) == {len(queries) // CLIPS}
        length = 1 + round((seconds - 1.0) / hop_s)
        for clip, query_MD in zip(clip_Q, queries, strict=True):
            assert query_MD.shape == (length, 128)
            assert query_MD.dtype == np.float32
            part = there.clips_NMD[clip].astype(np.float32)
            assert any(np.array_equal(part[n : n + length], query_MD) for n in range(len(part)))
        counts.append(len(queries))
    assert counts == [n * CLIPS for n in (5, 5, 3, 2, 1)]
    together = np.concatenate([background.beside(seconds) for seconds in LENGTHS_S])
    assert np.array_equal(together, background.beside_Q)


def test_half_a_hop_has_the_mean_of_two_between(background: Background) -> None:
    assert background.at_hop(0.1) is background
    half = background.at_hop(0.05)
    assert half.clips_NMD.shape == (CLIPS, 181, 128)
    assert half.counts_T.tolist() == [119, 79, 39]
    assert len(half.references_RD) == 119 + 79 + 39
    for fine, coarse in (
        (half.clips_NMD[0], background.clips_NMD[0]),
        (half.references_RD[119:198], background.references_RD[60:100]),
    ):
        assert fine[::2] == pytest.approx(coarse, abs=1e-3)
        mean_ND = coarse[:-1].astype(np.float32) + coarse[1:]
        mean_ND /= np.linalg.norm(mean_ND, axis=1, keepdims=True)
        assert fine[1::2] == pytest.approx(mean_ND, abs=1e-3)
    silent = ~half.clips_NMD[1].any(axis=1)
    assert np.flatnonzero(silent).tolist() == list(range(20, 59))
    assert half.track_N is background.track_N
    assert half.beside_Q is background.beside_Q


def test_a_bundle_keeps_its_background(background: Background, tmp_path: Path) -> None:
    """The model's id is that of its weights and card alone."""
    bundle = load_bundle("small")
    model_id = save_bundle(str(tmp_path), bundle.encoder, {"preset": "small"})
    card = read_card(str(tmp_path))
    assert read_background(str(tmp_path)) is None
    (tmp_path / FILE).write_bytes(background_to_bytes(background, card.sha256))
    data = read_background(str(tmp_path))
    assert data is not None
    assert same(parse_background(data, card.sha256, "m"), background)
    assert read_card(str(tmp_path)).model_id == model_id


def test_the_shipped_model_has_a_background_of_its_own(tmp_path: Path) -> None:
    card, data = read_card("small"), read_background("small")
    assert data is not None
    shipped = parse_background(data, card.sha256, "small")
    assert shipped.clips_NMD.shape == (200, 91, 128)
    tracks = len(np.unique(shipped.track_N))
    assert 20 <= tracks < len(shipped.counts_T)  # sounds that are no music come after them
    for vectors_ND in (shipped.clips_NMD.reshape(-1, 128), shipped.references_RD):
        length_N = np.linalg.norm(vectors_ND.astype(np.float32), axis=1)
        assert ((length_N == 0) | (np.abs(length_N - 1) < 2e-3)).all()
    assert (shipped.beside_Q >= 0).all()
    assert (shipped.beside_Q < 1).all()
    assert (shipped.alone_L2[:, 1] > 0).all()
    without = tmp_path / "without"
    shutil.copytree(SHIPPED / "small", without)
    (without / FILE).unlink()
    assert read_card(str(without)).model_id == card.model_id
    assert read_background(str(without)) is None
    assert shipped_background(read_card(str(without))) == data


def test_only_the_shipped_weights_get_the_shipped_background(tmp_path: Path) -> None:
    for preset in ("small", "of-somebody", "package/encoder"):
        where = str(tmp_path / preset)
        save_bundle(where, load_bundle("small").encoder, {"preset": preset, "note": "trained on"})
        assert shipped_background(read_card(where)) is None
