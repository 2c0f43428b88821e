from typing import Any, Self

class Event:
    step: int
    wall_time: float
    summary: Any
    @classmethod
    def FromString(cls, s: bytes) -> Self: ...
