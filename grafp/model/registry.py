"""Encoders of other installed packages, by name; without PyTorch, so that a card is read quickly.

A package registers an encoder as an entry point of the group `grafp.encoders`: a name, and the
dataclass that configures and builds it (grafp.model.registered). A model card only gives the name.
Code comes from what is installed, never from a bundle.
"""

from dataclasses import is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from grafp.errors import ModelError

GROUP = "grafp.encoders"
BUILT_IN_KINDS = ("convolution", "transformer")
"""Of this package; a card without a kind describes a graph encoder."""


def registered_names() -> list[str]:
    """The names that installed packages register."""
    return sorted(set(entry_points(group=GROUP).names))


def check_kind(encoder: Any) -> None:
    """Raise ModelError when nothing that is installed can build the `encoder` of a card."""
    kind = encoder.get("kind") if isinstance(encoder, dict) else None
    if kind is not None and kind not in BUILT_IN_KINDS:
        _entry_point(kind)


def registered_class(name: str) -> type[Any]:
    """The dataclass that is registered under a name.

    Raises ModelError when there is none, several packages claim the name, or it cannot be used.
    """
    found = _entry_point(name)
    try:
        config = found.load()
    except Exception as error:
        raise ModelError(
            f"encoder {name!r}: {found.value} cannot be imported ({one_line(error)})"
        ) from error
    if not (isinstance(config, type) and is_dataclass(config) and hasattr(config, "build")):
        raise ModelError(f"encoder {name!r}: {found.value} is no dataclass with a method build()")
    return config


def _entry_point(name: Any) -> EntryPoint:
    found = {e.value: e for e in entry_points(group=GROUP) if e.name == name}
    if not found:
        raise ModelError(
            f"encoder in the model card: unknown kind {name!r}; install the package that registers "
            f"it (entry points {GROUP}, now: {', '.join(registered_names()) or 'none'})"
        )
    if len(found) > 1:
        raise ModelError(
            f"encoder {name!r}: registered by {' and '.join(sorted(found))}; uninstall all but one"
        )
    return next(iter(found.values()))


def one_line(error: Exception) -> str:
    """What another package raised, short enough for a message."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
