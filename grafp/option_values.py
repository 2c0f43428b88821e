"""Values of options: how each kind is written, read and refused."""

import argparse
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

_LARGEST = 2**31 - 1


def not_empty(text: str) -> str:
    """Any text but none, which is mostly a variable of the shell that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


@dataclass(frozen=True)
class Kind:
    """How an option's value is written."""

    metavar: str
    """Its unit or kind in the help."""
    read: Callable[[str], Any] = not_empty
    """Raises argparse.ArgumentTypeError that says what would be right."""
    repeatable: bool = False
    variable: str | None = None
    """The variable of the environment that has the value where the command line has none."""


def choice(*names: str) -> Kind:
    """One of some names."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return Kind("{" + ",".join(names) + "}", read)


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """A reader of numbers within two bounds."""

    def read(text: str) -> float:
        value = _finite(text)
        if not low <= value <= high:
            bounds = f"between {low:g} and {high:g}" if high < math.inf else f"{low:g} or more"
            raise argparse.ArgumentTypeError(f"{text} is not {bounds}")
        return value

    return read


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def local_folder(text: str) -> str:
    """A path on this machine."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder of this machine")
    return not_empty(text)


def positive_float(text: str) -> float:
    """A number above 0."""
    with contextlib.suppress(argparse.ArgumentTypeError):
        if (value := _finite(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def positive_int(text: str) -> int:
    """A whole number above 0."""
    return _whole_number(text, 1)


def natural_number(text: str) -> int:
    """A whole number of 0 or more."""
    return _whole_number(text, 0)


def _whole_number(text: str, low: int) -> int:
    if not (text.isascii() and text.isdigit()):
        value = low - 1
    else:  # Python reads no more than some thousand digits
        value = int(text) if len(text.lstrip("0")) <= len(str(_LARGEST)) else _LARGEST + 1
    if value < low:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {low} or more")
    if value > _LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is more than {_LARGEST}")
    return value


def numbers(low: float, high: float) -> Callable[[str], list[float]]:
    """A reader of lists such as 1,2,5 with each number between two bounds."""

    def read(text: str) -> list[float]:
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not values or not all(low <= value <= high for value in values):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of numbers of {low:g} to {high:g}, such as 1,2,5"
            )
        return sorted(set(values))

    return read


def whole_numbers(low: int, high: int) -> Callable[[str], list[int]]:
    """The same of whole numbers; 1e6 is one too."""
    read_numbers = numbers(low, high)

    def read(text: str) -> list[int]:
        values = read_numbers(text)
        if not all(value.is_integer() for value in values):
            raise argparse.ArgumentTypeError(f"{text!r} has a number that is not whole")
        return [int(value) for value in values]

    return read


Uri = Annotated[str, Kind("URI")]
Folder = Annotated[str, Kind("FOLDER", local_folder)]
Count = Annotated[int, Kind("N", positive_int)]
Natural = Annotated[int, Kind("N", natural_number)]
Seconds = Annotated[float, Kind("S", positive_float)]
Price = Annotated[float, Kind("PRICE", number(low=0.0))]
