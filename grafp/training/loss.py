"""NT-Xent, the contrastive loss of the paper (eq. 5 and 6)."""

import torch
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F


def nt_xent(first_BD: torch.Tensor, second_BD: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean loss over the 2B views of a batch of B positive pairs.

    Args:
        first_BD, second_BD: unit vectors of shape (batch, 128); row i of both is one pair.
        temperature: tau of eq. 5.

    Returns a scalar. All other 2B - 2 views are a view's negatives.
    """
    views_VD = torch.cat([first_BD, second_BD]).float()
    logits_VV = views_VD @ views_VD.T / temperature
    logits_VV.fill_diagonal_(float("-inf"))  # indicator of eq. 5: no view is compared to itself
    partner_V = torch.arange(len(views_VD), device=views_VD.device).roll(len(first_BD))
    return F.cross_entropy(logits_VV, partner_V)


def gather_with_gradient(vectors_BD: torch.Tensor) -> torch.Tensor:
    """The vectors of all workers, in rank order, so negatives come from the global batch."""
    return torch.cat(dist_nn.all_gather(vectors_BD))
