"""`background.safetensors` in a model bundle: music that is in no catalog.

It is made of the validation tracks of the model's training. Degraded clips of them are the unknown
queries that calibrate a snapshot. Clean excerpts are what every query is compared with beside the
catalog: how well it agrees with them says how much an answer is worth. All are kept as
fingerprints. The file names the model that made it; the model's id does not depend on it.
"""

from dataclasses import dataclass, fields

import numpy as np

from grafp.errors import ModelError
from grafp.model.fingerprint import DIMENSION, HOP_SECONDS, SEGMENT_SECONDS

FILE = "background.safetensors"
CLIP_SECONDS = 10.0
LENGTHS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
"""Lengths of queries at which answers are calibrated."""
_CUTS = 5
_SEGMENTS = 1 + round((CLIP_SECONDS - SEGMENT_SECONDS) / HOP_SECONDS)  # of a clip


@dataclass(frozen=True)
class Background:
    """Fingerprints of validation music, one every 0.1 s."""

    clips_NMD: np.ndarray
    """Degraded clips, float16 (clips, segments, 128); zeros where a clip is silent."""
    track_N: np.ndarray
    """int32: the track of each clip, counted from 0."""
    references_RD: np.ndarray
    """Clean excerpts of the tracks, and after them sounds that are no music, float16 (segments of
    all, 128)."""
    counts_T: np.ndarray
    """int32: segments of each of them."""
    beside_Q: np.ndarray
    """float32: the score that each query of `queries`, of all lengths one after another, reaches
    in the excerpts of other tracks."""
    alone_L2: np.ndarray
    """float32: location and scale of the evidence that the clips reach in one other excerpt, by
    length; see grafp.index.calibration.Law. For a recording that is searched by itself."""

    @property
    def tracks(self) -> int:
        """How many excerpts are music; the sounds come after them."""
        return int(self.track_N.max()) + 1

    def queries(self, seconds: float, hop_s: float) -> tuple[np.ndarray, list[np.ndarray]]:
        """The clips cut into queries of one of `LENGTHS_S`, at most `_CUTS` of each.

        Args:
            hop_s: seconds between two fingerprints of the clips.

        Returns the clip of each query, (queries,), and its fingerprints, float32 (segments, 128).
        """
        cuts = min(_CUTS, int(CLIP_SECONDS / seconds))
        length = 1 + round((seconds - SEGMENT_SECONDS) / hop_s - 1e-6)
        last = self.clips_NMD.shape[1] - length
        firsts = np.linspace(0, last, cuts).astype(int) if cuts > 1 else np.zeros(1, int)
        clip_Q = np.repeat(np.arange(len(self.clips_NMD)), cuts)
        first_Q = np.tile(firsts, len(self.clips_NMD))
        vectors = [
            self.clips_NMD[clip, first : first + length].astype(np.float32)
            for clip, first in zip(clip_Q, first_Q, strict=True)
        ]
        return clip_Q, vectors

    def beside(self, seconds: float) -> np.ndarray:
        """Of `beside_Q`, what belongs to the queries of one length."""
        cuts = [min(_CUTS, int(CLIP_SECONDS / length)) for length in LENGTHS_S]
        parts = np.split(self.beside_Q, np.cumsum(cuts)[:-1] * len(self.clips_NMD))
        return parts[LENGTHS_S.index(seconds)]

    def at_hop(self, hop_s: float) -> "Background":
        """With a fingerprint every `hop_s`, between two the normalized mean."""
        if hop_s == HOP_SECONDS:
            return self
        step = hop_s / HOP_SECONDS
        clips = np.stack([_resampled(clip_MD, step) for clip_MD in self.clips_NMD])
        parts_T = np.split(self.references_RD, np.cumsum(self.counts_T)[:-1])
        excerpts = [_resampled(part_MD, step) for part_MD in parts_T]
        counts_T = np.array([len(part) for part in excerpts], np.int32)
        return Background(clips, self.track_N, np.concatenate(excerpts), counts_T,
                          self.beside_Q, self.alone_L2)  # fmt: skip


def _resampled(vectors_MD: np.ndarray, step: float) -> np.ndarray:
    """Fingerprints `step` rows apart, float16; silence stays silence."""
    at = np.arange(0.0, len(vectors_MD) - 1 + 1e-6, step)
    low = np.floor(at).astype(np.int64).clip(0, max(0, len(vectors_MD) - 2))
    part_N1 = (at - low)[:, None].astype(np.float32)
    after = (low + 1).clip(max=len(vectors_MD) - 1)
    mean_ND = (1 - part_N1) * vectors_MD[low] + part_N1 * vectors_MD[after]
    length_N1 = np.linalg.norm(mean_ND, axis=1, keepdims=True)
    unit_ND: np.ndarray = np.divide(mean_ND, length_N1, where=length_N1 > 0, out=mean_ND)
    return unit_ND.astype(np.float16)


def parse_background(data: bytes, model_sha256: str, name: str) -> Background:
    """A background from its file. Raises ModelError when damaged, or of another model."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
        owner = bytes(tensors["model_sha256"]).hex()
        background = Background(**{one.name: tensors[one.name] for one in fields(Background)})
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"{name}: damaged {FILE} ({error})") from error
    if owner != model_sha256:
        raise ModelError(
            f"{name}: {FILE} was made by another model; make it with "
            "python -m grafp.training.background"
        )
    if problem := _problem(background):
        raise ModelError(f"{name}: damaged {FILE} ({problem})")
    return background


def _problem(background: Background) -> str | None:
    clips, references = background.clips_NMD, background.references_RD
    if clips.shape[1:] != (_SEGMENTS, DIMENSION) or references.shape[1:] != (DIMENSION,):
        return f"fingerprints of shapes {clips.shape} and {references.shape}"
    if len(background.track_N) != len(clips) or background.counts_T.sum() != len(references):
        return "its tables do not fit each other"
    queries = sum(min(_CUTS, int(CLIP_SECONDS / length)) for length in LENGTHS_S) * len(clips)
    shapes = background.beside_Q.shape, background.alone_L2.shape
    if shapes != ((queries,), (len(LENGTHS_S), 2)):
        return f"scores and laws of shapes {shapes}"
    if not all(np.isfinite(getattr(background, one.name)).all() for one in fields(background)):
        return "not all of its numbers are finite"
    return None


def background_to_bytes(background: Background, model_sha256: str) -> bytes:
    """The file of a model's background."""
    from safetensors.numpy import save

    owner = np.frombuffer(bytes.fromhex(model_sha256), np.uint8)
    tensors = {one.name: getattr(background, one.name) for one in fields(background)}
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return save({**contiguous, "model_sha256": owner})
