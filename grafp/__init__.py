"""Identify recorded music: fingerprints of every second, found again in noise and reverberation.

In a notebook:

    import grafp
    model = grafp.load_model()
    song, clip = model.fingerprint("song.mp3"), model.fingerprint("clip.wav")
    print(grafp.locate(clip, song))

    catalog = grafp.open_catalog("catalog")
    print(catalog.identify("clip.wav"))
    print(catalog.add("more-music/"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grafp.api import Location, Model, load_model, locate
    from grafp.opened import Added, Identified, Match, OpenCatalog, index_catalog, open_catalog

_MODULES = {
    **dict.fromkeys(("Location", "Model", "load_model", "locate"), "grafp.api"),
    **dict.fromkeys(
        ("Added", "Identified", "Match", "OpenCatalog", "index_catalog", "open_catalog"),
        "grafp.opened",
    ),
}
__all__ = [
    "Added", "Identified", "Location", "Match", "Model", "OpenCatalog", "index_catalog",
    "load_model", "locate", "open_catalog",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import PyTorch, which takes seconds, when it is first needed."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'grafp' has no attribute {name!r}")
