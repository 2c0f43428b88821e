"""The right answers to queries (`--truth`), and the answers beside them."""

import pyarrow as pa

from grafp.errors import OptionError
from grafp.evaluation.metrics import Answer
from grafp.storage.sources import read_table

Truth = dict[str, tuple[str | None, float | None]]
"""query: (track or None, offset in the track in s or None)"""


def read_truth(uri: str) -> Truth:
    """A table with columns query, track, start_s. Raises OptionError when it is not that."""
    truth: Truth = {}
    for number, row in enumerate(read_table(uri), 2):
        try:
            query, track, start = row["query"], row["track"], row["start_s"]
            offset = float(start) if start not in ("", None) else None
        except (KeyError, TypeError, ValueError) as error:
            raise OptionError(
                f"--truth {uri}, line {number}: needs query, track and start_s (s): {error!r}"
            ) from error
        if query in truth:
            raise OptionError(f"--truth {uri}, line {number}: {query} is there twice")
        truth[query] = (track or None, offset)
    return truth


def compare(matches: pa.Table, truth: Truth) -> list[Answer]:
    """The best answer to each query beside its truth, with the offset of the query's first sample.

    Raises OptionError when a query is not in the truth.
    """
    answers = []
    for row in matches.to_pylist():
        if row["rank"] != 1:
            continue
        if row["query"] not in truth:
            raise OptionError(f"--truth has no line for the query {row['query']}")
        true_track, true_start = truth[row["query"]]
        start = row["track_start_s"]
        answers.append(
            Answer(
                query=row["query"],
                track=row["track"],
                start_s=None if start is None else start - row["query_start_s"],
                score=row["score"],
                matched=row["matched"],
                error=row["error"],
                true_track=true_track,
                true_start_s=true_start,
                false_positive_rate=row["false_positive_rate"],
            )
        )
    return answers
