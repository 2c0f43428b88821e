"""clips.parquet: how each clip of an evaluation was made, the truth and the answer."""

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from grafp.evaluation.hit_rates import ClipAnswer
from grafp.evaluation.protocol import Clip
from grafp.storage.tables import table_of, to_parquet

CLIP_SCHEMA = pa.schema(
    [
        ("source", pa.string()),  # the track that it was cut from
        ("number", pa.int64()),
        ("place", pa.float64()),  # where in the track, 0..1: `Clip.position`
        ("seconds", pa.float64()),
        ("longest", pa.float64()),
        ("snr_db", pa.float64()),
        ("reverb", pa.bool_()),
        ("seed", pa.int64()),
        ("grid_s", pa.float64()),
        ("query", pa.string()),
        ("track", pa.string()),
        ("start_s", pa.float64()),
        ("score", pa.float64()),
        ("matched", pa.bool_()),
        ("error", pa.string()),
        ("true_track", pa.string()),
        ("true_start_s", pa.float64()),
        ("threshold", pa.float64()),
        ("false_positive_rate", pa.float64()),
        ("best_wrong", pa.string()),
        ("best_wrong_score", pa.float64()),
        ("right_place", pa.bool_()),  # `Answer.right_offset`
    ]
)


def clips_to_bytes(clips: Sequence[Clip], answers: Sequence[ClipAnswer]) -> bytes:
    """The table as a Parquet file; an answer for each clip."""
    rows = []
    for clip, answer in zip(clips, answers, strict=True):
        row = {"source": clip.track, **asdict(clip), **asdict(answer)}
        del row["position"]
        rows.append({**row, "place": clip.position, "right_place": answer.right_offset})
    return to_parquet(table_of(rows, CLIP_SCHEMA))
