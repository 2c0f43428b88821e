"""OUT/run.json: what a training run was started with, so that --resume continues the same run."""

import json
from dataclasses import MISSING, fields
from typing import Any

from grafp import storage
from grafp.errors import OptionError, TrainingError
from grafp.storage.records import read_record
from grafp.training.config import TrainConfig

_FILE = "run.json"
# What a run of an earlier version was started with where its file says nothing.
_DEFAULTS = {one.name: one.default for one in fields(TrainConfig) if one.default is not MISSING}


def read(out: str) -> dict[str, Any]:
    """The settings of the run under `out`, by the names of their options.

    Raises OptionError when there is no run, TrainingError when its file is damaged.
    """
    uri = storage.join(out, _FILE)
    if storage.stat(uri) is None:
        raise OptionError(f"--resume: there is no run under --out {out}")
    return read_record(uri, dict[str, Any], TrainingError)


def write(out: str, settings: dict[str, Any]) -> None:
    """Store the settings of a run that begins."""
    text = json.dumps(settings, indent=2) + "\n"
    storage.write(storage.join(out, _FILE), text.encode())


def check(out: str, settings: dict[str, Any]) -> None:
    """Raises OptionError unless the run under `out` was started with just these settings."""
    started = _flat({**_DEFAULTS, **read(out)})
    now = _flat(json.loads(json.dumps(settings)))  # with lists for tuples
    differing = [name for name, value in now.items() if value != started.get(name)]
    if differing:
        name = min(differing, key=lambda name: now[name] is None)  # prefer a given option
        option, *setting = f"--{name}".split()
        option = option.replace("_", "-")
        raise OptionError(
            f"{' '.join([option, *setting, _told(now[name])])}: the run under --out {out} was "
            f"started with {_told(started.get(name))}; leave {option} out to resume it"
        )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """With every setting of augmentation under a name of its own, such as `augment codec`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = value.items() if isinstance(value, dict) else ()
        flat |= {f"{name} {key}": one for key, one in inner} or {name: value}
    return flat


def _told(value: Any) -> str:
    return "none" if value is None else str(value)
