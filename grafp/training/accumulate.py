"""The gradient of a contrastive loss over a batch that is too large to embed at once.

Every vector is a negative of every other, so the parts of a batch cannot be losses of their own.
Gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
Limited Setup") embeds all parts without what a gradient needs, takes the gradient of the loss with
respect to the vectors, and then embeds one part after the other again to carry it on. It costs one
more forward pass, and is exact for networks that treat segments alone; batch norm normalizes with
the statistics of each part.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

Embed = Callable[[torch.Tensor], torch.Tensor]


def split(mel_BFT: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Parts of a batch of all first and then all second views; a pair's views stay together."""
    mel_2PFT = mel_BFT.unflatten(0, (2, -1))
    return [part.flatten(0, 1) for part in mel_2PFT.chunk(count, dim=1)]


def embed_without_graph(model: nn.Module, embed: Embed, parts: list[torch.Tensor]) -> torch.Tensor:
    """The whole batch's vectors, (batch, 128), as a leaf that collects the loss's gradient.

    `embed` calls `model`. Batch norm's running statistics stay as they are.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        with torch.no_grad():
            vectors_2PD = torch.cat([embed(part).unflatten(0, (2, -1)) for part in parts], dim=1)
    finally:
        for norm in norms:
            norm.track_running_stats = True
    return vectors_2PD.flatten(0, 1).requires_grad_()


def backward_in_parts(
    model: nn.Module, embed: Embed, parts: list[torch.Tensor], gradient_BD: torch.Tensor
) -> None:
    """Carry the gradient of the vectors on to the weights; workers exchange it once, at the end."""
    for number, (part, gradient) in enumerate(
        zip(parts, split(gradient_BD, len(parts)), strict=True), 1
    ):
        with contextlib.ExitStack() as apart:
            if isinstance(model, DistributedDataParallel) and number < len(parts):
                apart.enter_context(model.no_sync())
            embed(part).backward(gradient)
