"""What tests of training and validation hear."""

from functools import lru_cache

import numpy as np
import torch

from grafp.audio import synthesis
from grafp.training.augment import Augmenter
from grafp.training.config import AugmentConfig
from grafp.training.validation import Validation

CPU = torch.device("cpu")
CLEAN = AugmentConfig(reverb=0.0, noise=0.0)


@lru_cache(maxsize=4)
def music(count: int, seconds: float) -> list[torch.Tensor]:
    """int16 tracks, as training holds them."""
    pieces = [synthesis.piece(seed, seconds) for seed in range(count)]
    return [torch.from_numpy((piece * 32767).astype(np.int16)) for piece in pieces]


def validation(config: AugmentConfig, tracks: int = 3, queries: int = 60) -> Validation:
    noises = [torch.from_numpy(synthesis.noise(seed, 3.0)) for seed in range(2)]
    augmenter = Augmenter(noises, [], config, CPU)
    return Validation.build(music(tracks, 8.0), augmenter, queries=queries)
