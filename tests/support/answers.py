"""Answers of two ways to ask."""

import pyarrow as pa
import pytest

from grafp.matches import MATCH_SCHEMA


def assert_same(one: pa.Table, other: pa.Table) -> None:
    """Answers of two tables; encoders round differently in batches of other sizes."""
    assert one.num_rows == other.num_rows
    for name in MATCH_SCHEMA.names:
        pairs = zip(one[name].to_pylist(), other[name].to_pylist(), strict=True)
        for mine, yours in pairs:
            if name in ("track_start_s", "score", "threshold", "speed") and mine is not None:
                assert mine == pytest.approx(yours, abs=2e-3), name
            else:
                assert mine == yours, name
