"""An encoder of another package among those of this one (see grafp.model.registry).

The other package has a dataclass, whose fields are the architecture, with one method:

    @dataclass(frozen=True)
    class MyConfig:
        width: int = 64

        def build(self) -> nn.Module:  # (batch, 64, 32) spectrograms to (batch, 128) vectors
            return MyNetwork(self.width)

Everything else is done here: the card, the length of the vectors and their checks.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from grafp.errors import ModelError
from grafp.model.encoder import read_config
from grafp.model.fingerprint import DIMENSION
from grafp.model.registry import one_line, registered_class
from grafp.model.spectrogram import DEFAULT


class Buildable(Protocol):
    """What a package registers: a dataclass with this method."""

    def build(self) -> nn.Module:
        """A network with random weights: (batch, 64, 32) log-mel spectrograms to (batch, 128)."""


@dataclass(frozen=True)
class RegisteredConfig:
    """The configuration of another package's encoder, under the name that it is registered by."""

    kind: str
    fields: Any
    """A `Buildable` dataclass."""

    spectrogram: ClassVar[str] = DEFAULT.name
    """Its input, one of `SPECTROGRAMS`."""
    nodes: ClassVar[int] = 1024
    """Graph nodes that one spectrogram is worth, to choose how many are computed at once."""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self.fields), "kind": self.kind}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RegisteredConfig":
        """What `to_dict` gave. Raises ModelError when it is not registered or does not fit."""
        from pydantic.errors import PydanticUserError  # here, like in grafp.storage.records

        kind = values["kind"]
        try:
            return cls(kind, read_config(values, registered_class(kind)))
        except PydanticUserError as error:  # a field of a type that JSON does not have
            raise ModelError(f"encoder {kind!r}: {one_line(error)}") from error

    @classmethod
    def default(cls, kind: str) -> "RegisteredConfig":
        """The architecture that is trained by name. Raises ModelError if a field has no default."""
        try:
            return cls(kind, registered_class(kind)())
        except TypeError as error:
            raise ModelError(
                f"encoder {kind!r}: every field needs a default to be trained by name "
                f"({one_line(error)})"
            ) from error


class RegisteredEncoder(nn.Module):
    """Another package's network, whose vectors are made unit vectors."""

    def __init__(self, config: RegisteredConfig) -> None:
        """Builds the network and tries it. Raises ModelError when its output does not fit."""
        super().__init__()
        self.config = config
        try:
            self.network: nn.Module = config.fields.build()
            shape = self._trial_shape()
        except Exception as error:
            raise ModelError(
                f"encoder {config.kind!r}: it cannot be built and run ({one_line(error)})"
            ) from error
        if shape != (2, DIMENSION):
            raise ModelError(
                f"encoder {config.kind!r}: gives {shape} for 2 spectrograms, not (2, {DIMENSION})"
            )

    def _trial_shape(self) -> tuple[int, ...]:
        was_training = self.network.training
        self.network.eval()
        with torch.no_grad():
            vectors_BD: torch.Tensor = self.network(
                torch.full((2, DEFAULT.mels, DEFAULT.frames), 0.5)
            )
        self.network.train(was_training)
        return tuple(vectors_BD.shape)

    def forward(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        """(batch, 64, 32) log-mel spectrograms to (batch, 128) float32 unit vectors."""
        vectors_BD: torch.Tensor = self.network(mel_BFT)
        return F.normalize(vectors_BD.float(), dim=-1)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
