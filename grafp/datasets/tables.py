"""Data sets as tables."""

import csv
import io
import os
from collections.abc import Sequence

import pyarrow as pa

from grafp import storage
from grafp.storage.sources import Item
from grafp.storage.tables import to_parquet


def write_table(out: str, items: Sequence[Item]) -> None:
    """Write recordings as a table, CSV or Parquet by its name. Raises StorageError."""
    base = os.path.dirname(storage.absolute(out)) + "/"
    rows = [{"path": item.location.removeprefix(base), **item.row} for item in items]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if out.lower().endswith(".parquet"):
        table = pa.table({name: [row.get(name) for row in rows] for name in columns})
        storage.write(out, to_parquet(table))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    storage.write(out, text.getvalue().encode())
