from collections.abc import Callable

import numpy as np

class OptimizeResult:
    x: np.ndarray

def minimize(
    fun: Callable[[np.ndarray], float], x0: np.ndarray, *, method: str
) -> OptimizeResult: ...
