"""What this project uses of pyarrow.csv."""

from collections.abc import Mapping, Sequence
from typing import IO

from pyarrow import DataType, Table

class ReadOptions:
    def __init__(
        self,
        *,
        column_names: Sequence[str] | None = None,
        skip_rows: int = 0,
        block_size: int | None = None,
    ) -> None: ...

class ParseOptions:
    def __init__(self, *, newlines_in_values: bool = False) -> None: ...

class ConvertOptions:
    def __init__(
        self,
        *,
        include_columns: Sequence[str] | None = None,
        column_types: Mapping[str, DataType] | None = None,
    ) -> None: ...

def read_csv(
    input_file: IO[bytes],
    read_options: ReadOptions | None = None,
    parse_options: ParseOptions | None = None,
    convert_options: ConvertOptions | None = None,
) -> Table: ...
