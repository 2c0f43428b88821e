"""Decoded audio to fingerprints, in encoder actors or in this process.

Audio and fingerprints travel as raw bytes: one row is one recording, and a recording that cannot
be used is a row with a status and a reason.
"""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from grafp.errors import ModelError
from grafp.model.fingerprint import DIMENSION
from pipelines.common.work import Encoders, Rows, has_gpu, is_here

if TYPE_CHECKING:
    import ray.data


class Encode:
    """A stage: decoded recordings to fingerprints, as float16 bytes."""

    def __init__(self, model_uri: str, hop_s: float) -> None:
        import torch  # here, since the other stages' processes do without

        from grafp.model.bundle import load_bundle
        from grafp.model.inference import Fingerprinter

        device = "cuda" if has_gpu() else "cpu"
        if device == "cpu" and not is_here():
            torch.set_num_threads(1)  # one actor a core; threads would fight over it
        encoder = load_bundle(model_uri).encoder
        self.fingerprint = Fingerprinter.from_encoder(encoder, device, hop_s)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row in batch.to_pylist():
            samples_S = np.frombuffer(row.pop("pcm"), np.float32)
            try:
                vectors_ND = self.fingerprint(samples_S).astype(np.float16)
            except RuntimeError as error:  # PyTorch's, such as a GPU out of memory
                raise ModelError(f"{_name(row)}: {error}") from error
            rows.append({**row, "n_segments": len(vectors_ND), "embeddings": vectors_ND.tobytes()})
        return pa.Table.from_pylist(rows, schema=_encoded_schema(batch.schema))


def _name(row: dict) -> str:
    """Which recording a row is of, for a person."""
    return row.get("uri") or f"recording {row['number']}"


def _encoded_schema(decoded: pa.Schema) -> pa.Schema:
    """Explicit, because a batch without any failure would make its reasons a column of nulls."""
    fields = [
        pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field
        for field in decoded
        if field.name != "pcm"
    ]
    return pa.schema([*fields, ("n_segments", pa.int64()), ("embeddings", pa.binary())])


def fingerprints_of(row: dict) -> np.ndarray:
    """The fingerprints of a row that was encoded, float32 (segments, 128)."""
    vectors_N = np.frombuffer(row["embeddings"], np.float16).astype(np.float32)
    return vectors_N.reshape(-1, DIMENSION)


def encoded(
    recordings: "ray.data.Dataset | Rows", model_uri: str, hop_s: float, encoders: Encoders
) -> "ray.data.Dataset | Rows":
    """Rows with `pcm` to rows with `n_segments` and `embeddings` (float16 bytes)."""
    return recordings.map_batches(
        Encode,
        fn_constructor_args=(model_uri, hop_s),
        batch_size=4,
        batch_format="pyarrow",
        **_pool(encoders),
    )


def _pool(encoders: Encoders) -> dict[str, object]:
    if is_here():
        return {}
    from pipelines.common.placement import encoder_pool

    return encoder_pool(encoders.count, encoders.gpu, encoders.least)
