"""A model bundle with its weights loaded; see grafp.card for what a bundle is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as dump_tensors

from grafp import storage
from grafp.card import DEFAULT_MODEL, FEATURES, FORMAT_VERSION, ModelCard, parse_card, read_card
from grafp.errors import ModelError
from grafp.presets import AnyEncoder, build_encoder, config_from_dict


@dataclass(frozen=True)
class ModelBundle(ModelCard):
    """A loaded model."""

    encoder: AnyEncoder


def load_bundle(name_or_uri: str = DEFAULT_MODEL) -> ModelBundle:
    """Load a shipped model by name, or a bundle from a folder or prefix.

    Raises ModelError when it is not a bundle that this version can use.
    """
    return _with_weights(read_card(name_or_uri), name_or_uri)


def parse_bundle(files: dict[str, bytes], name: str) -> ModelBundle:
    """A bundle from its files' bytes; `name` is used in errors. Raises ModelError."""
    return _with_weights(parse_card(files, name), name)


def _with_weights(card: ModelCard, name: str) -> ModelBundle:
    try:
        tensors = parse_tensors(card.files["weights.safetensors"])
    except SafetensorError as error:
        raise ModelError(f"{name}: damaged model bundle ({error})") from error
    weights = {key: value.float() for key, value in tensors.items()}
    try:
        config = config_from_dict(card.card.get("encoder", {}))
        with torch.device("meta"):  # without memory: a damaged card may ask for any amount
            trial = build_encoder(config)
        missing, unexpected = trial.load_state_dict(weights, strict=False, assign=True)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{name}: the weights do not fit the card ({reason})") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ModelError(
            f"{name}: the weights do not fit the card (missing {missing[:3]}, "
            f"unexpected {unexpected[:3]})"
        )
    encoder = build_encoder(config)
    encoder.load_state_dict(weights, strict=False)
    return ModelBundle(**vars(card), encoder=encoder.eval())


def save_bundle(
    uri: str, encoder: AnyEncoder, card: dict[str, Any], beside: Mapping[str, bytes] | None = None
) -> str:
    """Write a bundle and return its model id. `card` needs at least `preset`.

    Files `beside` the bundle's own are for people; no reader needs them, and the id says nothing
    of them.
    """
    tensors = {
        # Matrices lose nothing that matters in float16; variances could underflow.
        key: (value.half() if value.ndim > 1 else value.float()).contiguous().cpu()
        for key, value in encoder.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    whole_card = {
        "format_version": FORMAT_VERSION,
        "features": FEATURES,
        "encoder": encoder.config.to_dict(),
        "parameters": encoder.parameter_count(),
        "versions": {name: _version(name) for name in ("grafp", "torch", "torchaudio", "av")},
        **card,
    }
    files = {
        "weights.safetensors": dump_tensors(tensors),
        "card.json": (json.dumps(whole_card, indent=2) + "\n").encode(),
    }
    for name, data in {**files, **(beside or {})}.items():
        storage.write(storage.join(uri, name), data)
    return parse_bundle(files, uri).model_id


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
