"""NT-Xent against a naive loop, alone and spread over processes."""

import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F

from grafp.training.loss import gather_with_gradient, nt_xent

WORLD = 2


def unit(rows: int, seed: int, dimension: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dimension, generator=generator), dim=1)


def naive(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """Eq. 5 and 6 word by word, in float64."""
    z = [view.double().tolist() for pair in zip(first, second, strict=True) for view in pair]

    def similarity(i: int, j: int) -> float:
        return sum(a * b for a, b in zip(z[i], z[j], strict=True)) / temperature

    def loss(i: int, j: int) -> float:
        others = sum(math.exp(similarity(i, k)) for k in range(len(z)) if k != i)
        return -math.log(math.exp(similarity(i, j)) / others)

    pairs = range(len(first))
    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in pairs) / len(z)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("pairs", [2, 3, 8])
def test_it_is_equations_5_and_6(pairs: int, temperature: float) -> None:
    first, second = unit(pairs, 1), unit(pairs, 2)
    loss = nt_xent(first, second, temperature)
    assert loss.ndim == 0
    assert float(loss) == pytest.approx(naive(first, second, temperature), rel=1e-5)


def test_perfect_pairs_cost_next_to_nothing_and_wrong_ones_much() -> None:
    basis = torch.eye(8)
    assert float(nt_xent(basis, basis, 0.05)) < 1e-6
    assert float(nt_xent(basis, basis.roll(1, dims=0), 0.05)) == pytest.approx(20.0, abs=0.01)


def test_indistinguishable_views_cost_as_much_as_guessing() -> None:
    same = torch.ones(5, 16) / 4
    assert float(nt_xent(same, same, 0.05)) == pytest.approx(math.log(2 * 5 - 1), rel=1e-5)


def test_the_order_of_the_pairs_and_of_the_views_does_not_matter() -> None:
    first, second = unit(6, 1), unit(6, 2)
    loss = float(nt_xent(first, second, 0.1))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    assert float(nt_xent(first[order], second[order], 0.1)) == pytest.approx(loss, rel=1e-6)
    assert float(nt_xent(second, first, 0.1)) == pytest.approx(loss, rel=1e-6)


def test_half_precision_views_are_compared_in_full_precision() -> None:
    first, second = unit(6, 1).bfloat16(), unit(6, 2).bfloat16()
    loss = nt_xent(first, second, 0.05)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(naive(first, second, 0.05), rel=1e-5)


def a_model() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 16))


def views_of(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(model(rows), dim=1)


def worker(rank: int, folder: str) -> None:
    """One of two processes: half of the batch, the loss of the whole, gradients averaged."""
    torch.set_num_threads(1)
    store, limit = f"file://{folder}/store", timedelta(seconds=120)
    dist.init_process_group("gloo", store, rank=rank, world_size=WORLD, timeout=limit)
    model = a_model()
    first, second = (unit(8, seed).chunk(WORLD)[rank] for seed in (1, 2))
    both = views_of(model, torch.cat([first, second]))
    views = [gather_with_gradient(part) for part in both.chunk(2)]
    loss = nt_xent(*views, temperature=0.1)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    for gradient in gradients:  # the mean over workers, as DistributedDataParallel takes it
        dist.all_reduce(gradient)
        gradient /= WORLD
    torch.save((loss.detach(), [v.detach() for v in views], gradients), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(worker, args=(str(tmp_path),), nprocs=WORLD)
    model = a_model()
    views = [views_of(model, unit(8, seed)) for seed in (1, 2)]
    loss = nt_xent(*views, temperature=0.1)
    loss.backward()
    for rank in range(WORLD):
        their_loss, their_views, their_gradients = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(their_loss, loss.detach())
        for theirs, ours in zip(their_views, views, strict=True):  # in rank order
            torch.testing.assert_close(theirs, ours.detach())
        for theirs, parameter in zip(their_gradients, model.parameters(), strict=True):
            torch.testing.assert_close(theirs, parameter.grad)
