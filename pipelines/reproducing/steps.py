"""Steps that a killed run does not repeat: each leaves a record when it is done.

OUT/steps/NAME.json   what the step was made from, and its summary
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from grafp import storage
from grafp.errors import OptionError
from grafp.storage.records import read_record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """A step that is done."""

    inputs: dict[str, Any]
    summary: dict[str, Any]


@dataclass(frozen=True)
class Steps:
    """The steps of one run, by name."""

    out: str

    def done(self, name: str) -> Record | None:
        """The record of a step; None if it is not done. Raises StorageError when damaged."""
        uri = self._uri(name)
        return read_record(uri, Record) if storage.stat(uri) else None

    def once(
        self, name: str, inputs: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The summary of a step, whose work is done now unless it was done before.

        Raises OptionError when it was done with other inputs.
        """
        given = json.loads(json.dumps(inputs))  # with lists for tuples
        if record := self.done(name):
            self._check_same(name, record.inputs, given)
            logger.info(f"{name}: done before")
            return record.summary
        logger.info(f"{name}: begins")
        summary = dict(work())
        data = json.dumps(asdict(Record(given, summary)), indent=1) + "\n"
        storage.write(self._uri(name), data.encode())
        return summary

    def _check_same(self, name: str, before: dict[str, Any], now: dict[str, Any]) -> None:
        for key in before.keys() | now.keys():
            if before.get(key) != now.get(key):
                raise OptionError(
                    f"--out {self.out}: {name} was made with {key} {before.get(key)}, now it is "
                    f"{now.get(key)}; choose another --out"
                )

    def _uri(self, name: str) -> str:
        return storage.join(self.out, "steps", f"{name}.json")
