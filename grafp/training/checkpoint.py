"""The checkpoint of a training run: one file, which is replaced whole or not at all."""

import io
from pickle import UnpicklingError
from typing import Any

import torch

from grafp import storage
from grafp.errors import TrainingError


def write(uri: str, state: dict[str, Any]) -> None:
    """Store a run's state; what was there before stays if that fails. Raises StorageError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    storage.write(uri, buffer.getvalue())


def read(uri: str) -> dict[str, Any] | None:
    """The state stored last, on the CPU, or None. Raises TrainingError when it is damaged."""
    if storage.stat(uri) is None:
        return None
    data = io.BytesIO(storage.read(uri))
    try:
        state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
    except (EOFError, KeyError, RuntimeError, UnpicklingError, ValueError) as error:
        raise TrainingError(f"{uri}: damaged checkpoint ({type(error).__name__})") from error
    return state
