"""What the library and the flows log, shown as plain lines on standard output."""

import logging
import sys
from typing import TextIO


class _StandardOutput(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stdout` is now, each line in one piece and at once."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout


def show(level: int = logging.INFO) -> None:
    """Show what is logged from this level on; without a call, Python shows warnings only."""
    for name in ("grafp", "pipelines"):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        if not any(isinstance(handler, _StandardOutput) for handler in logger.handlers):
            logger.addHandler(_StandardOutput())
