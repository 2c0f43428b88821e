"""How large an index and its shards should be; apart from FAISS, so that planning does without."""

from dataclasses import dataclass

MAX_SHARD_FINGERPRINTS = 1_000_000
ACTOR_BYTES = 8 << 30
"""Of shards for one search actor; a smaller catalog is held by one, or by one a machine."""
CODE_BYTES = {"PQ64x4fs": 32, "PQ64": 64, "SQfp16": 256}
"""Bytes of a fingerprint in the lists, by the codec's name in FAISS; ids and padding apart."""
_POINTS_PER_CENTROID = 39  # what FAISS wants to train a k-means centroid well
EXCERPT = 50
"""Fingerprints of each new track, out of its middle, with which near duplicates are searched."""
_POPULATE_BYTES = 500 << 20  # of any task that populates: Python, libraries, one embedding file
_POPULATE_BYTES_EACH = 500  # a fingerprint: benchmarks/merge.py, two at once, 1.6 GiB
_CODEC = "PQ64x4fs"
"""64 sub-quantizers as in the paper, of 4 bits instead of 8: 32 bytes a fingerprint, which FAISS
scans in registers several times as fast. Exact scores tell 40 neighbors apart instead of 20, so
clips of 2 s are found as often, of 1 s within a point: benchmarks/codecs.py."""
_CODEC_MIN = 10_000  # with fewer, exact fingerprints cost little
_MAX_LISTS = 4096
"""All shards have the same lists, and hold a million fingerprints at most. With more lists, the
blocks of 32 codes in which FAISS scans would be mostly padding, centroids most of a shard."""


def populate_bytes(fingerprints: int) -> int:
    """Peak memory of the task that populates a shard of so many, or the largest shard, bytes."""
    return _POPULATE_BYTES + _POPULATE_BYTES_EACH * min(fingerprints, MAX_SHARD_FINGERPRINTS)


def default_nprobe(nlist: int) -> int:
    """Lists to search: a 32nd, since a noisy second lies far from its own list."""
    return min(nlist, max(16, nlist // 32))


@dataclass(frozen=True)
class IndexParameters:
    """What an index of a given size should look like."""

    nlist: int
    """Inverted lists."""
    codec: str
    """FAISS's name of the code, or SQfp16 for a small catalog."""
    nprobe: int
    """Lists to search for each query fingerprint."""
    training_points: int
    """Fingerprints to draw at random for training."""

    @classmethod
    def for_size(cls, fingerprints: int) -> "IndexParameters":
        """About 4 sqrt(n) lists, fewer where they could not be trained, at most `_MAX_LISTS`."""
        most = min(4 * fingerprints**0.5, fingerprints / _POINTS_PER_CENTROID, _MAX_LISTS)
        nlist = 1
        while nlist * 2 <= most:
            nlist *= 2
        codec = _CODEC if fingerprints >= _CODEC_MIN else "SQfp16"
        points = min(fingerprints, max(2 * _CODEC_MIN, nlist * 2 * _POINTS_PER_CENTROID))
        return cls(nlist, codec, default_nprobe(nlist), points)

    def outgrown_by(self, fingerprints: int) -> bool:
        """Whether a catalog of this size should be retrained."""
        wanted = IndexParameters.for_size(fingerprints)
        coded = wanted.codec != "SQfp16" and self.codec == "SQfp16"
        return coded or wanted.nlist >= 4 * self.nlist
