"""The gradient of a batch embedded in parts is that of the whole batch."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from grafp.training.accumulate import backward_in_parts, embed_without_graph, split
from grafp.training.loss import gather_with_gradient, nt_xent

WORLD, PAIRS = 2, 7
Embed = Callable[[torch.Tensor], torch.Tensor]


def network(*, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(3)
    between = nn.BatchNorm1d(32) if norm else nn.Tanh()
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 32), between, nn.Linear(32, 16))


def batch(pairs: int = PAIRS) -> torch.Tensor:
    """First views, then second views, as small spectrograms."""
    first = torch.randn(pairs, 3, 4, generator=torch.Generator().manual_seed(1))
    return torch.cat([first, first + 0.3 * first.flip(1)])


def gradients(model: nn.Module, mel_BFT: torch.Tensor, parts: int) -> dict[str, torch.Tensor]:
    """Of the loss over all workers, if there are more, embedding in so many parts."""

    def embed(part: torch.Tensor) -> torch.Tensor:
        return F.normalize(model(part), dim=1)

    pieces = split(mel_BFT, parts)
    vectors = embed_without_graph(model, embed, pieces) if parts > 1 else embed(mel_BFT)
    views = vectors.chunk(2)
    if dist.is_initialized():
        views = tuple(gather_with_gradient(view) for view in views)
    nt_xent(*views, temperature=0.1).backward()
    if parts > 1:
        backward_in_parts(model, embed, pieces, vectors.grad)
    return {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("parts", [2, 3, 4, 7])
def test_the_gradient_is_that_of_the_whole_batch(parts: int, norm: bool) -> None:
    """Batch norm, which looks at a part only, is frozen."""
    whole, cut = (gradients(network(norm=norm).eval(), batch(), n) for n in (1, parts))
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient)


def test_losses_of_the_parts_would_be_another_thing() -> None:
    whole = gradients(network(), batch(), 1)["1.weight"]
    apart = network()
    for part in split(batch(), 2):
        nt_xent(*F.normalize(apart(part), dim=1).chunk(2), temperature=0.1).backward()
    assert F.cosine_similarity(whole.flatten(), apart[1].weight.grad.flatten(), dim=0) < 0.99


def test_both_views_of_a_pair_are_in_one_part() -> None:
    rows = torch.arange(2 * PAIRS, dtype=torch.float32).view(-1, 1, 1)
    for part in split(rows, 3):
        first, second = part.flatten().chunk(2)
        assert torch.equal(first + PAIRS, second)


def test_running_statistics_see_each_part_once() -> None:
    cut, once = network(norm=True).train(), network(norm=True).train()
    gradients(cut, batch(), 3)
    for part in split(batch(), 3):
        once(part)
    for name, value in once.state_dict().items():
        assert torch.equal(value, cut.state_dict()[name]), name


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store, limit = f"file://{folder}/store", timedelta(seconds=120)
    dist.init_process_group("gloo", store, rank=rank, world_size=WORLD, timeout=limit)
    first, second = (view.chunk(WORLD)[rank] for view in batch(8).chunk(2))
    model = DistributedDataParallel(network())
    torch.save(gradients(model, torch.cat([first, second]), 3), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(worker, args=(str(tmp_path),), nprocs=WORLD)
    whole = gradients(network(), batch(8), 1)
    for rank in range(WORLD):
        for name, theirs in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(theirs, whole[name])
