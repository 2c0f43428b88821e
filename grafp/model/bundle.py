"""Model bundles: `weights.safetensors` and `card.json`, in a folder or under a prefix.

The card holds the architecture and features, and where the weights come from (settings, data,
steps, loss, hit rate, versions). `background.safetensors` beside them is optional, see
grafp.model.background. A trained model has `training.png` too, the curves of its run, which nothing
reads. Nothing in a bundle is executable: an encoder of another package is named, and comes from
what is installed (grafp.model.registry). A card is read without PyTorch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grafp import storage
from grafp.errors import ModelError, StorageError
from grafp.model.background import FILE as BACKGROUND
from grafp.model.registry import check_kind
from grafp.model.spectrogram import SPECTROGRAMS

if TYPE_CHECKING:
    import torch

    from grafp.model.presets import AnyEncoder

FORMAT_VERSION = 1
BUNDLE_FILES = ("card.json", "weights.safetensors", BACKGROUND)
SHIPPED = Path(__file__).parent / "shipped"
DEFAULT_MODEL = "small"
DEFAULT_MIN_SCORE = 0.75  # for a model whose card does not say
_LARGEST_CORRECTION_S = 0.15


@dataclass(frozen=True)
class ModelCard:
    """A model without its weights; `model_id` names exactly one set of them."""

    card: dict[str, Any]
    model_id: str
    sha256: str
    min_scores: dict[float, float]
    """Scores that a match must reach, by its length in seconds; `min_score` in the card."""
    offset_correction_s: float
    """Subtracted from the offset of a match, s; see `Validation.offset_correction`."""
    files: dict[str, bytes]
    """The bundle's own files, to copy it elsewhere unchanged."""

    def min_score(self, seconds: float) -> float:
        """What a match of this length must reach: interpolated between `min_scores`."""
        lengths = sorted(self.min_scores)
        return float(np.interp(seconds, lengths, [self.min_scores[length] for length in lengths]))


def read_card(name_or_uri: str = DEFAULT_MODEL) -> ModelCard:
    """The card of a shipped model, by name, or of a bundle in a folder or under a prefix.

    Raises ModelError when it is not a bundle that this version can use.
    """
    where = _where(name_or_uri)
    try:
        files = {
            name: storage.read(storage.join(where, name))
            for name in ("card.json", "weights.safetensors")
        }
    except StorageError as error:
        names = ", ".join(_shipped()) or "none"
        raise ModelError(
            f"{name_or_uri}: not a model bundle ({error}); shipped models: {names}"
        ) from error
    return parse_card(files, name_or_uri)


def read_background(name_or_uri: str) -> bytes | None:
    """The file of a bundle's background, see grafp.model.background; None if it has none."""
    uri = storage.join(_where(name_or_uri), BACKGROUND)
    return None if storage.stat(uri) is None else storage.read(uri)


def shipped_background(card: ModelCard) -> bytes | None:
    """The background of the shipped model that this is, perhaps a copy of before it had one."""
    preset = str(card.card.get("preset"))
    if preset not in _shipped() or read_card(preset).sha256 != card.sha256:
        return None
    return read_background(preset)


def _where(name_or_uri: str) -> str:
    """The folder of a shipped model, by name, or the folder or prefix itself."""
    return str(SHIPPED / name_or_uri) if name_or_uri in _shipped() else name_or_uri


def _shipped() -> list[str]:
    return sorted(path.name for path in SHIPPED.glob("*/"))


def parse_card(files: dict[str, bytes], name: str) -> ModelCard:
    """A card from its bundle's files; `name` is used in errors. Raises ModelError."""
    try:
        card = json.loads(files["card.json"])
    except ValueError as error:
        raise ModelError(f"{name}: damaged model bundle ({error})") from error
    if not isinstance(card, dict):
        raise ModelError(f"{name}: damaged model bundle (its card is not a JSON object)")
    known = [one.to_card() for one in SPECTROGRAMS.values()]
    if card.get("format_version") != FORMAT_VERSION or card.get("features") not in known:
        raise ModelError(
            f"{name}: made for format {card.get('format_version')} with features "
            f"{card.get('features')}; this version reads format {FORMAT_VERSION} with features "
            f"that are one of {known}"
        )
    try:
        check_kind(card.get("encoder"))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    digest = hashlib.sha256(files["weights.safetensors"] + files["card.json"]).hexdigest()
    model_id = f"{card.get('preset', 'model')}-{digest[:12]}"
    return ModelCard(
        card, model_id, digest, _min_scores(card, name), _offset_correction_s(card, name), files
    )


def _min_scores(card: dict[str, Any], name: str) -> dict[float, float]:
    values = card.get("min_score", {"1": DEFAULT_MIN_SCORE})
    try:
        scores = {float(seconds): float(score) for seconds, score in values.items()}
    except (AttributeError, TypeError, ValueError):
        scores = {}
    if not scores or not all(np.isfinite([*scores, *scores.values()])):
        raise ModelError(f"{name}: min_score in its card must be scores by length in seconds")
    return scores


def _offset_correction_s(card: dict[str, Any], name: str) -> float:
    key = "offset_bias_s" if "offset_bias_s" in card else "offset_correction_s"  # older bundles
    seconds = card.get(key, 0.0)
    if not isinstance(seconds, int | float) or not abs(seconds) <= _LARGEST_CORRECTION_S:
        raise ModelError(
            f"{name}: {key} in its card must be seconds, at most {_LARGEST_CORRECTION_S}"
        )
    return float(seconds)


@dataclass(frozen=True)
class ModelBundle(ModelCard):
    """A loaded model."""

    encoder: "AnyEncoder"


def load_bundle(name_or_uri: str = DEFAULT_MODEL) -> ModelBundle:
    """Load a shipped model by name, or a bundle from a folder or prefix.

    Raises ModelError when it is not a bundle that this version can use.
    """
    return _with_weights(read_card(name_or_uri), name_or_uri)


def parse_bundle(files: dict[str, bytes], name: str) -> ModelBundle:
    """A bundle from its files' bytes; `name` is used in errors. Raises ModelError."""
    return _with_weights(parse_card(files, name), name)


def _with_weights(card: ModelCard, name: str) -> ModelBundle:
    import torch  # here, since most readers of a card do without
    from safetensors import SafetensorError
    from safetensors.torch import load as parse_tensors

    from grafp.model.presets import build_encoder, config_from_dict
    from grafp.model.registered import RegisteredConfig

    try:
        tensors = parse_tensors(card.files["weights.safetensors"])
    except SafetensorError as error:
        raise ModelError(f"{name}: damaged model bundle ({error})") from error
    weights = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    try:
        config = config_from_dict(card.card.get("encoder", {}))
        if (features := card.card["features"]["name"]) != config.spectrogram:
            raise ModelError(f"its encoder takes {config.spectrogram}, not {features}")
        # Without memory: a damaged card may ask for any amount. Another package's network is
        # tried with data, which needs it.
        with torch.device("cpu" if isinstance(config, RegisteredConfig) else "meta"):
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
    uri: str, encoder: "AnyEncoder", card: dict[str, Any], beside: Mapping[str, bytes] | None = None
) -> str:
    """Write a bundle and return its model id. `card` needs at least `preset`.

    Files `beside` the bundle's own are for people; nothing reads them, and the id does not depend
    on them.
    """
    from safetensors.torch import save as dump_tensors

    tensors = {
        key: _stored(value).contiguous().cpu()
        for key, value in encoder.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    whole_card = {
        "format_version": FORMAT_VERSION,
        "features": SPECTROGRAMS[encoder.config.spectrogram].to_card(),
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


def _stored(value: "torch.Tensor") -> "torch.Tensor":
    """Matrices lose nothing that matters in float16; variances could underflow."""
    if not value.is_floating_point():
        return value
    return value.half() if value.ndim > 1 else value.float()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
