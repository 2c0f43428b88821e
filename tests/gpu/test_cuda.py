"""Every path that needs a GPU, each beside the same on the CPU; skipped where there is none.

What is compared is what rounding leaves alone: fingerprints by their cosine, lists by the share
that is the same, losses by whether they fall.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logged import logged
from training_music import music
from vectors import unit

from grafp import storage
from grafp.audio import encode, synthesis
from grafp.catalog.catalog import Catalog
from grafp.catalog.embeddings import by_file, read_fingerprints
from grafp.catalog.tracks import live_refs
from grafp.index import gpu as faiss_gpu
from grafp.index import ivfpq
from grafp.index.ids import fingerprint_ids
from grafp.index.ivfpq import choose_lists, parse_index, quantizer_of, train_index
from grafp.index.lists import Lists
from grafp.index.size import CODE_BYTES, IndexOptions, IndexParameters
from grafp.model.bundle import load_bundle
from grafp.model.inference import Fingerprinter, inference_dtype, inference_form
from grafp.training.augment import Augmenter
from grafp.training.config import AugmentConfig, TrainConfig
from grafp.training.data.buffer import Waveforms
from grafp.training.data.partition import Budget, Share
from grafp.training.data.pcm import Sources
from grafp.training.data.prepare import collect
from grafp.training.data.sampler import PairSampler
from grafp.training.trainer import Trainer
from pipelines.common import placement
from pipelines.common.work import Encoders
from pipelines.indexing.flow import index_catalog
from pipelines.training.flow import train_model

if not torch.cuda.is_available():
    pytest.skip("the tests of all GPU paths: PyTorch sees no GPU here", allow_module_level=True)

pytestmark = pytest.mark.timeout(1200)  # compiling, and processes that load CUDA
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
HARD = AugmentConfig(
    snr_db=(5.0, 15.0), speed=0.5, pitch=0.5, loudspeaker=0.5, microphone=0.5, drive=0.5,
    time_mask=0.5, frequency_mask=0.5, second_noise=0.5, music_noise=0.5,
)  # fmt: skip
"""Every effect that runs on the device; codecs run on the CPU wherever the music is."""


def cosines(one_ND: np.ndarray, other_ND: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", one_ND.astype(np.float64), other_ND.astype(np.float64))


def trainer(device: torch.device, waveforms: Waveforms, **settings: Any) -> Trainer:
    config = TrainConfig(
        steps=24, pairs=12, per_track=1, log_every=1, validate_every=1000, checkpoint_every=1000,
        **settings,
    )  # fmt: skip
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) for seed in range(2)]
    rirs = [torch.from_numpy(synthesis.impulse_response(seed)) for seed in range(2)]
    augmenter = Augmenter(noises, rirs, AugmentConfig(snr_db=(10.0, 20.0)), device)
    sampler = PairSampler(waveforms, config.pairs, device=device)
    return Trainer(config, sampler, augmenter, None, device)


def losses(one: Trainer) -> list[float]:
    found: list[float] = []
    one.run(lambda progress, _: found.append(progress.loss))
    return found


# The encoder


def test_fingerprints_are_those_of_the_cpu() -> None:
    encoder = load_bundle("small").encoder
    piece_S = synthesis.piece(3, 30.0)
    piece_S[16_000 * 10 : 16_000 * 13] = 0.0  # silence is zeros on both
    on_cpu_ND = Fingerprinter(inference_form(encoder, CPU, torch.float32), CPU)(piece_S)
    on_gpu_ND = Fingerprinter.from_encoder(encoder, "cuda")(piece_S)
    assert on_gpu_ND.dtype == np.float32
    assert on_gpu_ND.shape == on_cpu_ND.shape
    heard_N = on_cpu_ND.any(axis=1)
    assert np.array_equal(on_gpu_ND.any(axis=1), heard_N)
    assert cosines(on_gpu_ND[heard_N], on_cpu_ND[heard_N]).min() > 0.99


def test_bfloat16_is_used_where_the_gpu_has_it() -> None:
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert inference_dtype(CUDA) == (torch.bfloat16 if native else torch.float32)
    with logged() as lines:
        form = inference_form(load_bundle("small").encoder, CUDA)
    assert not any("wrong fingerprints" in line for line in lines)
    dtypes = {parameter.dtype for parameter in form.parameters()}
    assert (torch.bfloat16 in dtypes) == native
    assert {parameter.device.type for parameter in form.parameters()} == {"cuda"}


def test_encoders_of_a_catalog_are_on_the_gpu(ray_here: None, tmp_path: Path) -> None:
    """`num_gpus` of a stage of Ray Data, and the index that is trained and populated after it."""
    for seed in range(4):
        data = encode(synthesis.piece(seed, 10.0), "wav")
        storage.write(f"{tmp_path}/music/{seed}.wav", data)
    assert placement.encoder_pool(None, True)["num_gpus"] == 1
    vectors = {}
    for on in (True, False):
        root = f"{tmp_path}/{on}"
        index_catalog(f"{tmp_path}/music", root, encoders=Encoders(1, gpu=on))
        catalog = Catalog.open_published(root)
        refs = live_refs(catalog.tracks().to_pylist())
        vectors[on] = np.concatenate(
            [
                vectors_ND
                for key, group in sorted(by_file(refs.values()).items())
                for _, vectors_ND in read_fingerprints(root, key, group)
            ]
        )
    assert vectors[True].shape == vectors[False].shape
    assert cosines(vectors[True], vectors[False]).min() > 0.99


# Training


def test_training_lowers_the_loss_at_reduced_precision() -> None:
    one = trainer(CUDA, Waveforms.of(music(12, 6.0)))
    assert one.reduced == (inference_dtype(CUDA) == torch.bfloat16)
    assert torch.get_float32_matmul_precision() == "high"
    assert {parameter.device.type for parameter in one.encoder.parameters()} == {"cuda"}
    found = losses(one)
    assert np.isfinite(found).all()
    assert np.mean(found[-8:]) < 0.8 * np.mean(found[:8])


# What PyTorch imports to compile warns of its own deprecated parts.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_encoder_trains_too() -> None:
    found = losses(trainer(CUDA, Waveforms.of(music(12, 6.0)), compile=True))
    assert np.mean(found[-8:]) < 0.8 * np.mean(found[:8])


def test_a_batch_in_parts_trains_too() -> None:
    found = losses(trainer(CUDA, Waveforms.of(music(12, 6.0)), accumulate=3))
    assert np.mean(found[-8:]) < 0.8 * np.mean(found[:8])


def test_batches_are_the_same_from_music_on_the_gpu_and_through_pinned_memory() -> None:
    """Music in the CPU's memory is pinned and copied; on the GPU it is cut there."""
    tracks = music(12, 6.0)
    drawn = []
    for where, wanted in ((CPU, None), (CPU, CUDA), (CUDA, CUDA)):
        sampler = PairSampler(Waveforms.of(tracks, device=where), 8, device=wanted)
        drawn.append(sampler.draw(np.random.default_rng(5), 0))
    for anchors_BS, partners_BS in drawn[1:]:
        assert anchors_BS.device.type == partners_BS.device.type == "cuda"
        torch.testing.assert_close(anchors_BS.cpu(), drawn[0][0], rtol=0, atol=0)
        torch.testing.assert_close(partners_BS.cpu(), drawn[0][1], rtol=0, atol=0)


def test_degraded_clips_are_those_of_the_cpu() -> None:
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) for seed in range(2)]
    rirs = [torch.from_numpy(synthesis.impulse_response(seed)) for seed in range(2)]
    sampler = PairSampler(Waveforms.of(music(12, 6.0)), 12)
    _, partners_BS = sampler.draw(np.random.default_rng(1), 0)
    made = [
        Augmenter(noises, rirs, HARD, device)(partners_BS, torch.Generator().manual_seed(3)).cpu()
        for device in (CPU, CUDA)
    ]
    assert torch.isfinite(made[1]).all()
    assert float((made[0] - made[1]).abs().max()) < 1e-2 * float(made[0].abs().max())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(16):
        data = encode(synthesis.piece(200 + number, 4.0), "flac")
        storage.write(f"{folder}/music/{number}.flac", data)
    for number in range(3):
        storage.write(f"{folder}/noise/{number}.wav", encode(synthesis.noise(number, 3.0), "wav"))
    return folder


def test_music_is_held_by_the_gpu_as_far_as_it_has_memory(corpus: Path, tmp_path: Path) -> None:
    assert Budget.given(1e-3, CUDA).gpu == 10**6
    free, _ = torch.cuda.mem_get_info(CUDA)
    assert 0 < Budget.given(1e6, CUDA).gpu <= free
    collected = collect(Sources.of("music", f"{corpus}/music"), f"{tmp_path}/data")
    share = Share.of(collected, 0, 1)
    needed = 2 * sum(piece.size for piece in share.pieces)
    for budget, where in (
        (Budget(0, needed), "cuda"),
        (Budget(needed, needed), "cuda"),
        (Budget(needed, needed - 1), "cpu"),
    ):
        held = share.load(budget, CUDA, (0, 0))
        assert isinstance(held, Waveforms)
        assert held.pcm_S.device.type == where


def test_a_run_trains_validates_and_leaves_a_bundle(corpus: Path, tmp_path: Path) -> None:
    config = TrainConfig(steps=6, pairs=8, per_track=1, validate_every=3, checkpoint_every=3)
    train = functools.partial(
        train_model,
        f"{corpus}/music",
        f"{tmp_path}/run",
        config,
        noise=f"{corpus}/noise",
        num_workers=0,
        gpu=True,
    )
    summary = train()
    assert summary["steps"] == 6
    assert 0.0 <= summary["hit_rate"] <= 1.0
    weights = load_bundle(summary["model"]).encoder.state_dict()
    assert all(torch.isfinite(value.float()).all() for value in weights.values())
    assert train(resume=True)["model_id"] == summary["model_id"]


def test_workers_of_ray_train_gather_their_batches_with_nccl(
    ray_here: None, corpus: Path, tmp_path: Path
) -> None:
    """One worker gathers nothing, so that this needs two GPUs."""
    if (count := torch.cuda.device_count()) < 2:
        pytest.skip("two workers need two GPUs, and this machine has one")
    summary = train_model(
        f"{corpus}/music",
        str(tmp_path / "run"),
        TrainConfig(steps=4, pairs=4, per_track=1),
        num_workers=count,
        gpu=True,
    )
    assert summary["steps"] == 4
    card = json.loads(storage.read(f"{summary['model']}/card.json"))
    assert card["workers"] == count


# FAISS

needs_faiss = pytest.mark.skipif(
    not faiss_gpu.is_there(), reason="this FAISS is for CPUs; make env FAISS=gpu"
)


def clustered(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((400, 128))
    return unit(centers[rng.integers(400, size=count)] + rng.standard_normal((count, 128)))


@needs_faiss
@pytest.mark.parametrize("codec", CODE_BYTES)
def test_fingerprints_encoded_on_the_gpu_have_the_lists_of_the_cpu(codec: str) -> None:
    vectors_ND, ids_N = clustered(20_000), np.arange(20_000)
    parameters = IndexParameters.for_size(20_000, IndexOptions(codec=codec, lists=256))
    trained = train_index(vectors_ND, parameters)
    with logged() as lines:
        on_gpu = ivfpq.encode(trained, vectors_ND, ids_N, gpu=True)
    assert not any("without the GPU" in line for line in lines)
    on_cpu = ivfpq.encode(trained, vectors_ND, ids_N)
    list_N = [codes.list_N[np.argsort(codes.id_N)] for codes in (on_gpu, on_cpu)]
    assert (list_N[0] == list_N[1]).mean() > 0.999


@needs_faiss
@pytest.mark.parametrize("codec", CODE_BYTES)
def test_an_index_trained_on_the_gpu_finds_what_the_cpus_finds(codec: str) -> None:
    """K-means that rounds otherwise ends elsewhere; what counts is what the index finds."""
    vectors_ND, ids_N = clustered(20_000), fingerprint_ids(0, np.arange(20_000))
    queries_QD = unit(vectors_ND[::40] + 0.04 * clustered(500, seed=1))
    parameters = IndexParameters.for_size(20_000, IndexOptions(codec=codec, lists=256))
    recalls = []
    for on in (True, False):
        with logged() as lines:
            trained = train_index(vectors_ND, parameters, gpu=on)
            codes = ivfpq.encode(trained, vectors_ND, ids_N, gpu=on)
        assert not any("without the GPU" in line for line in lines)
        index = parse_index(trained)
        lists = Lists.filled(index, codes, range(index.nlist))
        _, id_QK = lists.nearest(choose_lists(quantizer_of(index), queries_QD, 16), 20)
        recalls.append((id_QK == ids_N[::40][:, None]).any(axis=1).mean())
    assert recalls[1] > 0.9
    assert abs(recalls[0] - recalls[1]) < 0.02
