"""Identify recorded music: fingerprints of every second, found again in noise and reverberation.

In a notebook:

    import grafp
    model = grafp.load_model()
    song, clip = model.fingerprint("song.mp3"), model.fingerprint("clip.wav")
    print(grafp.locate(clip, song))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grafp.api import Location, Model, load_model, locate

__all__ = ["Location", "Model", "load_model", "locate"]


def __getattr__(name: str) -> Any:
    """Import PyTorch, which takes seconds, when it is first needed."""
    if name in __all__:
        from grafp import api

        return getattr(api, name)
    raise AttributeError(f"module 'grafp' has no attribute {name!r}")
