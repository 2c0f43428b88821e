from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pyarrow import BufferOutputStream, BufferReader, RecordBatch, Schema, Table
from pyarrow.compute import Expression
from pyarrow.fs import FileSystem

_Source = str | Path | BinaryIO | BufferReader
_Sink = str | Path | BinaryIO | BufferOutputStream

class ColumnChunkMetaData:
    compression: str
    data_page_offset: int
    total_compressed_size: int

class RowGroupMetaData:
    num_rows: int
    def column(self, i: int) -> ColumnChunkMetaData: ...

class FileMetaData:
    def row_group(self, i: int) -> RowGroupMetaData: ...
    num_rows: int
    num_row_groups: int

class ParquetFile:
    metadata: FileMetaData
    schema_arrow: Schema
    num_row_groups: int
    def __init__(self, source: _Source, *, filesystem: FileSystem | None = None) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def close(self) -> None: ...
    def iter_batches(
        self, batch_size: int = 65536, columns: Sequence[str] | None = None
    ) -> Iterator[RecordBatch]: ...
    def read(self, columns: Sequence[str] | None = None) -> Table: ...
    def read_row_group(self, i: int, columns: Sequence[str] | None = None) -> Table: ...

class ParquetWriter:
    def __init__(
        self, where: _Sink, schema: Schema, *, compression: str | Mapping[str, str] = "snappy"
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def close(self) -> None: ...
    def write_table(self, table: Table, row_group_size: int | None = None) -> None: ...

def read_metadata(where: _Source) -> FileMetaData: ...
def read_schema(where: _Source) -> Schema: ...
def read_table(
    source: _Source,
    *,
    columns: Sequence[str] | None = None,
    filters: Expression | list[Any] | None = None,
    partitioning: str | None = "hive",
    filesystem: FileSystem | None = None,
    memory_map: bool = False,
    page_checksum_verification: bool = False,
    use_threads: bool = True,
) -> Table: ...
def write_table(
    table: Table,
    where: _Sink,
    *,
    row_group_size: int | None = None,
    compression: str | Mapping[str, str] = "snappy",
    use_dictionary: bool | list[str] = True,
    write_statistics: bool | list[str] = True,
    store_schema: bool = True,
    write_page_checksum: bool = False,
) -> None: ...
