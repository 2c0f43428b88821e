"""Recipes: whole sets of training settings, by name.

`paper` is Table I and section III of the paper; what the text leaves open is as in the authors'
code. `grafp` is what the project found better. docs/guide/recipes.md compares them line by line.
"""

from typing import Any

from grafp.training.config import AugmentConfig

RECIPES: dict[str, dict[str, Any]] = {
    "grafp": {"minutes": 60.0},  # everything else: the defaults of TrainConfig
    "paper": {
        "preset": "grafprint",
        "epochs": 400,
        "pairs": 256,  # the paper's B samples "each with an augmented view"; its code agrees
        "per_track": 1,
        "offset_ms": 50.0,
        "optimizer": "adam",
        "learning_rate": 8e-5,
        "final_learning_rate": 7e-7,
        "warm_up": 0.0,
        "weight_decay": 0.0,
        "clip": 0.0,
        "temperature": 0.05,
        "held_out": 0.0,
        "augment": AugmentConfig(
            reverb=1.0,
            dry_past=1.0,  # the segment alone is convolved
            noise=1.0,
            second_noise=0.0,
            music_noise=0.0,
            snr_db=(0.0, 20.0),
            order="room-noise",
        ),
    },
}


def settings_of(recipe: str) -> dict[str, Any]:
    """What a recipe sets of TrainConfig, its name and a length included.

    Raises KeyError for an unknown name.
    """
    return {"recipe": recipe, **RECIPES[recipe]}
