"""The graph: nearest neighbours in feature space, and max-relative aggregation over them.

Nodes are rows of a B x N x C tensor: N points of a spectrogram's feature map, C channels each.
"""

from typing import Any

import torch
import torch.nn.functional as F


def nearest_neighbours(nodes_BNC: torch.Tensor, k: int) -> torch.Tensor:
    """Each node's k nearest nodes, itself included (paper, section II-B).

    Euclidean distance between unit vectors orders as their inner product does, so one batched
    product ranks all pairs. No gradient flows through the choice.

    The node's number replaces the lowest bits of each similarity; k passes of a plain maximum
    then yield value and place at once, in less than half the time of a partial sort on a CPU.

    Returns int64 of shape (batch, nodes, k).
    """
    count = nodes_BNC.shape[1]
    low_bits = (1 << (count - 1).bit_length()) - 1
    with torch.no_grad(), torch.autocast(nodes_BNC.device.type, enabled=False):
        unit_BNC = F.normalize(nodes_BNC.detach().float(), dim=-1)
        similarity_BNN = unit_BNC @ unit_BNC.transpose(1, 2)
        number_N = torch.arange(count, device=nodes_BNC.device, dtype=torch.int32)
        similarity_BNN.view(torch.int32).bitwise_and_(~low_bits).bitwise_or_(number_N)
        chosen = []
        for _ in range(min(k, count)):
            best_BN1 = similarity_BNN.amax(dim=-1, keepdim=True)
            chosen.append((best_BN1.view(torch.int32) & low_bits).long())
            similarity_BNN.scatter_(2, chosen[-1], -2.0)
        return torch.cat(chosen, dim=-1)


class _MaxOverNeighbours(torch.autograd.Function):
    """max over j in N(i) of x_j; the gradient goes to the winner, shared among equals."""

    @staticmethod
    def forward(ctx: Any, nodes_BNC: torch.Tensor, index_BNK: torch.Tensor) -> torch.Tensor:
        batch, nodes, channels = nodes_BNC.shape
        start_B11 = torch.arange(batch, device=nodes_BNC.device)[:, None, None] * nodes
        rows_R = (index_BNK + start_B11).reshape(-1)
        picked_BNKC = nodes_BNC.reshape(-1, channels)[rows_R].view(batch, nodes, -1, channels)
        best_BNC = picked_BNKC.amax(dim=2)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(rows_R, picked_BNKC, best_BNC)
        return best_BNC

    @staticmethod
    def backward(ctx: Any, grad_BNC: torch.Tensor) -> tuple[torch.Tensor, None]:
        rows_R, picked_BNKC, best_BNC = ctx.saved_tensors
        won_BNKC = (picked_BNKC == best_BNC.unsqueeze(2)).to(grad_BNC.dtype)
        share_BNC = grad_BNC / won_BNKC.sum(dim=2)
        channels = grad_BNC.shape[-1]
        flat_MC = torch.zeros_like(grad_BNC).view(-1, channels)
        flat_MC.index_add_(0, rows_R, (won_BNKC * share_BNC.unsqueeze(2)).view(-1, channels))
        return flat_MC.view_as(grad_BNC), None


def max_relative(nodes_BNC: torch.Tensor, index_BNK: torch.Tensor) -> torch.Tensor:
    """max over neighbours of (x_j - x_i), per channel (paper, eq. 2); shape of `nodes_BNC`.

    x_i does not depend on j, so the maximum is taken first and subtracted from once.
    """
    return _MaxOverNeighbours.apply(nodes_BNC, index_BNK) - nodes_BNC
