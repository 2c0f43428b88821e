"""The k-nearest-neighbor graph and its aggregation, against the plainest way to write them."""

import pytest
import torch

from grafp.model.graph import max_relative, nearest_neighbors


def random_nodes(batch: int, nodes: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Nodes of very different lengths: only directions may matter to the graph."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(batch, nodes, 1, generator=generator) * 100 + 0.01
    return torch.randn(batch, nodes, channels, generator=generator) * scale


def distances(nodes_BNC: torch.Tensor) -> torch.Tensor:
    """Euclidean distances between unit vectors in float64, (batch, nodes, nodes)."""
    unit = nodes_BNC.double() / nodes_BNC.double().norm(dim=-1, keepdim=True)
    return torch.stack(
        [torch.cdist(u, u, compute_mode="donot_use_mm_for_euclid_dist") for u in unit]
    )


def random_index(batch: int, nodes: int, k: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(batch, nodes, nodes, generator=generator).argsort(dim=-1)
    return order[..., :k]


def naive_max_relative(nodes_BNC: torch.Tensor, index_BNK: torch.Tensor) -> torch.Tensor:
    differences = [
        nodes_NC[index_NK] - nodes_NC[:, None]
        for nodes_NC, index_NK in zip(nodes_BNC, index_BNK, strict=True)
    ]
    return torch.stack(differences).amax(dim=2)  # amax shares a gradient evenly among equals


@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("count", [8, 16, 31, 32, 64, 100, 256, 1000, 1024])
def test_the_nearest_are_found_and_the_node_itself_is_first(count: int, k: int) -> None:
    nodes = random_nodes(2, count, 16)
    index = nearest_neighbors(nodes, k)
    assert index.dtype == torch.int64
    assert index.shape == (2, count, k)
    assert (index[..., 0] == torch.arange(count)).all()
    exact = distances(nodes)
    wanted = exact.sort(dim=-1).values[..., :k]
    # Similarities are ranked to 13 bits or more: two that are equal so far may swap.
    torch.testing.assert_close(exact.gather(2, index), wanted, rtol=0, atol=2.5e-4)
    same = index.sort(dim=-1).values == exact.topk(k, largest=False).indices.sort(dim=-1).values
    assert same.double().mean() > 0.99


def test_more_neighbors_than_nodes_gives_all_nodes() -> None:
    index = nearest_neighbors(random_nodes(3, 8, 4), 20)
    assert index.shape == (3, 8, 8)
    assert (index.sort(dim=-1).values == torch.arange(8)).all()


def test_one_node_is_its_own_neighbor() -> None:
    assert nearest_neighbors(torch.ones(2, 1, 4), 3).tolist() == [[[0]], [[0]]]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 1e18])
def test_equal_nodes_still_give_different_neighbors(value: float) -> None:
    """Silence, and inputs without any change: no node may be counted twice."""
    index = nearest_neighbors(torch.full((1, 64, 8), value), 5).sort(dim=-1).values
    assert ((index >= 0) & (index < 64)).all()
    assert (index.diff(dim=-1) > 0).all()


def test_opposite_and_orthogonal_nodes_rank_behind_similar_ones() -> None:
    nodes = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.9, 0.1]]])
    assert nearest_neighbors(nodes, 4)[0, 0].tolist() == [0, 3, 1, 2]


def test_the_choice_of_neighbors_leaves_its_input_alone() -> None:
    nodes = random_nodes(1, 32, 8).requires_grad_()
    before = nodes.detach().clone()
    assert not nearest_neighbors(nodes, 3).requires_grad
    assert torch.equal(nodes.detach(), before)


@pytest.mark.parametrize(("count", "k"), [(8, 3), (32, 8), (100, 1)])
def test_max_relative_is_the_largest_difference_per_channel(count: int, k: int) -> None:
    nodes, index = random_nodes(2, count, 5), random_index(2, count, k)
    result = max_relative(nodes, index)
    for b in range(2):
        for i in range(count):
            for c in range(5):
                best = max(float(nodes[b, j, c]) for j in index[b, i])
                assert float(result[b, i, c]) == pytest.approx(
                    best - float(nodes[b, i, c]), rel=1e-5
                )


def test_gradcheck() -> None:
    nodes = random_nodes(2, 12, 3).double().requires_grad_()
    index = random_index(2, 12, 4)
    assert torch.autograd.gradcheck(lambda x: max_relative(x, index), (nodes,))


@pytest.mark.parametrize("ties", [False, True])
def test_the_gradient_is_that_of_the_plain_form_and_ties_share_it(ties: bool) -> None:
    nodes = random_nodes(3, 40, 6).double()
    if ties:
        nodes = nodes.div(100).round()
        assert len(nodes.unique()) < 10
    index = random_index(3, 40, 5)
    weight = torch.randn(nodes.shape, generator=torch.Generator().manual_seed(1)).double()
    gradients = []
    for form in (max_relative, naive_max_relative):
        leaf = nodes.clone().requires_grad_()
        (form(leaf, index) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
