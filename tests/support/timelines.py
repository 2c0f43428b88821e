"""A made-up day of radio, as rows of matches.parquet."""

import numpy as np

from grafp.matches import unmatched
from grafp.storage.tables import Row

DAY_S = 86_400.0
DAY, BAD, QUIET = "radio/monday <b>.mp3", "radio/broken.mp3", "radio/night.mp3"
DURATIONS_S = {DAY: DAY_S, BAD: 0.0, QUIET: 900.0}


def day(tracks: int = 60, seed: int = 0) -> list[Row]:
    """Detections over a day, with gaps; one recording that failed, one with nothing."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    at_s = 30.0
    while at_s < DAY_S - 300:
        length_s = float(random.uniform(60, 280))
        found = {
            "query_start_s": at_s,
            "query_end_s": at_s + length_s,
            "rank": len(rows) + 1,
            "track": f"music/{random.integers(tracks)} & co.mp3",
            "track_start_s": float(random.uniform(0, 40)),
            "speed": 1.02,
            "score": float(random.uniform(0.5, 0.95)),
            "matched": True,
            "false_positive_rate": float(10 ** -random.uniform(3, 9)),
        }
        rows.append({**unmatched(DAY, DAY_S, 0.5, None), **found})
        at_s += length_s + float(random.exponential(90))
    rows.append(unmatched(BAD, 0.0, 0.5, "no audio in it"))
    rows.append(unmatched(QUIET, 900.0, 0.5, None))
    return rows
