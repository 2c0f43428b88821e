"""What may be found instead of a file."""

from collections.abc import Callable
from typing import Any

import pytest

_FOUND: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "garbage first": lambda data: b"\xff" * 100 + data,
    "a web page": lambda _: b"<html>\n<p>404</p>\n</html>\n",
}
DAMAGES: list[Any] = [pytest.param(damage, id=name) for name, damage in _FOUND.items()]
"""For `pytest.mark.parametrize`: what becomes of a file's bytes."""
