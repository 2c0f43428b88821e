from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

def loadmat(file_name: BinaryIO, *, variable_names: Sequence[str]) -> dict[str, np.ndarray]: ...
def savemat(
    file_name: BinaryIO, mdict: Mapping[str, Any], *, do_compression: bool = False
) -> None: ...
