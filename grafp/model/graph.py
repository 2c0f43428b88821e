"""The graph: nearest neighbors in feature space, and max-relative aggregation over them.

Nodes are rows of a B x N x C tensor: N points of a spectrogram's feature map, C channels each.
"""

from typing import Any

import torch
import torch.nn.functional as F

# Similarities held at a time, in numbers: on a CPU as many as its cache holds.
_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 27}


def nearest_neighbors(nodes_BNC: torch.Tensor, k: int) -> torch.Tensor:
    """Each node's k nearest nodes, itself included (paper, section II-B).

    Euclidean distance between unit vectors orders as their inner product does, so one batched
    product ranks all pairs. No gradient flows through the choice. Similarities of a few graphs
    at a time are made, ranked and forgotten, so that they stay in the CPU's cache.

    Returns int64 of shape (batch, nodes, k).
    """
    at_once = max(1, _AT_ONCE.get(nodes_BNC.device.type, 1 << 27) // nodes_BNC.shape[1] ** 2)
    with torch.no_grad(), torch.autocast(nodes_BNC.device.type, enabled=False):
        parts = nodes_BNC.detach().split(at_once)
        return torch.cat([_ranked(part_BNC.float(), k) for part_BNC in parts])


def _ranked(nodes_BNC: torch.Tensor, k: int) -> torch.Tensor:
    """The k nearest of all nodes.

    The node's number replaces the lowest bits of each similarity; k passes of a plain maximum
    then yield value and number at once, in less than half the time of a partial sort on a CPU.
    """
    count = nodes_BNC.shape[1]
    low_bits = (1 << (count - 1).bit_length()) - 1
    unit_BNC = F.normalize(nodes_BNC, dim=-1)
    similarity_BNN = unit_BNC @ unit_BNC.transpose(1, 2)
    number_N = torch.arange(count, device=nodes_BNC.device, dtype=torch.int32)
    similarity_BNN.view(torch.int32).bitwise_and_(~low_bits).bitwise_or_(number_N)
    chosen = []
    for _ in range(min(k, count)):
        best_BN1 = similarity_BNN.amax(dim=-1, keepdim=True)
        chosen.append((best_BN1.view(torch.int32) & low_bits).long())
        similarity_BNN.scatter_(2, chosen[-1], -2.0)
    return torch.cat(chosen, dim=-1)


class _MaxOverNeighbors(torch.autograd.Function):
    """max over j in N(i) of x_j; the gradient goes to the winner, shared among equals.

    Neighbors are gathered again for the gradient: keeping them would take k times the memory.
    """

    @staticmethod
    def forward(ctx: Any, nodes_BNC: torch.Tensor, index_BNK: torch.Tensor) -> torch.Tensor:
        start_B = torch.arange(len(nodes_BNC), device=nodes_BNC.device) * nodes_BNC.shape[1]
        rows_R = (index_BNK + start_B[:, None, None]).flatten()
        best_BNC = _rows(nodes_BNC, rows_R).amax(dim=2)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(nodes_BNC, rows_R, best_BNC)
        return best_BNC

    @staticmethod
    def backward(ctx: Any, grad_BNC: torch.Tensor) -> tuple[torch.Tensor, None]:
        nodes_BNC, rows_R, best_BNC = ctx.saved_tensors
        # 1 where a neighbor equals the maximum, else 0; comparing would be several times slower.
        won_BNKC = (_rows(nodes_BNC, rows_R) - best_BNC.unsqueeze(2)).sign_().add_(1)
        won_BNKC *= (grad_BNC / won_BNKC.sum(dim=2)).unsqueeze(2)
        flat_MC = torch.zeros_like(grad_BNC).view(-1, grad_BNC.shape[-1])
        flat_MC.index_add_(0, rows_R, won_BNKC.view(len(rows_R), -1))
        return flat_MC.view_as(grad_BNC), None


def _rows(nodes_BNC: torch.Tensor, rows_R: torch.Tensor) -> torch.Tensor:
    """Rows of all graphs' nodes by number, as (batch, nodes, k, channels)."""
    batch, nodes, channels = nodes_BNC.shape
    picked_RC = nodes_BNC.reshape(-1, channels).index_select(0, rows_R)
    return picked_RC.view(batch, nodes, -1, channels)


def max_relative(nodes_BNC: torch.Tensor, index_BNK: torch.Tensor) -> torch.Tensor:
    """max over neighbors of (x_j - x_i), per channel (paper, eq. 2); shape of `nodes_BNC`.

    x_i does not depend on j, so the maximum is taken first and subtracted from once.
    """
    aggregate: Any = _MaxOverNeighbors.apply  # PyTorch gives it no types
    best_BNC: torch.Tensor = aggregate(nodes_BNC, index_BNK)
    return best_BNC - nodes_BNC
