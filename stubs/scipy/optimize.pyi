from collections.abc import Callable, Sequence

import numpy as np

class OptimizeResult:
    x: np.ndarray

def minimize(
    fun: Callable[[np.ndarray], float], x0: np.ndarray | Sequence[float], *, method: str
) -> OptimizeResult: ...
