"""How large an index and its shards should be; apart from FAISS, so that planning does without."""

from dataclasses import asdict, dataclass, replace

from grafp.errors import OptionError

MAX_SHARD_FINGERPRINTS = 1_000_000
SMALL_CATALOG = 1_500_000
"""With fewer fingerprints, a process opens the whole index in seconds."""
ACTOR_BYTES = 8 << 30
"""Of shards for one search actor; a smaller catalog is held by one, or by one a machine."""
CODE_BYTES = {"PQ64x4fs": 32, "PQ64": 64, "SQfp16": 256}
"""Bytes of a fingerprint in the lists, by the codec's name in FAISS; ids and padding apart."""
_POINTS_PER_CENTROID = 39  # what FAISS wants to train a k-means centroid well
EXCERPT = 50
"""Fingerprints of each new track, out of its middle, with which near duplicates are searched."""
_POPULATE_BYTES = 500 << 20  # of any task that populates: Python, libraries, one embedding file
_POPULATE_BYTES_EACH = 1_200  # a fingerprint: benchmarks/scale.py, tasks of 1.6 GiB
_CODEC = "PQ64x4fs"
"""64 sub-quantizers as in the paper, of 4 bits instead of 8: 32 bytes a fingerprint, which FAISS
scans in registers several times as fast. Exact scores tell 40 neighbors apart instead of 20, so
clips of 2 s are found as often, of 1 s within a point: benchmarks/codecs.py."""
_CODEC_MIN = 10_000  # with fewer, exact fingerprints cost little
_MAX_LISTS = 1 << 20
FLAT_LISTS = 1 << 14
"""With more lists, centroids are in cells, and a search looks into some of them."""
ITERATIONS = 10  # of k-means
ONE_LEVEL = 2048
"""More lists are trained in two levels: k-means takes the square of their number."""
CELLS = 20
"""To look into for the list of a fingerprint, see grafp.index.cells."""
LISTED_BYTES = 12
"""Of a fingerprint in memory, beside its code: the id, its share of lists and padding."""
_TRAINING_POINTS = 1 << 21  # a GiB in memory; a quantizer of more lists takes eight a centroid


def populate_bytes(fingerprints: int) -> int:
    """Peak memory of the task that populates a shard of so many, or the largest shard, bytes."""
    return _POPULATE_BYTES + _POPULATE_BYTES_EACH * min(fingerprints, MAX_SHARD_FINGERPRINTS)


def default_nprobe(nlist: int) -> int:
    """Lists to search for a noisy second, which lies far from its own list."""
    return min(nlist, 64, max(16, nlist // 32))


def cells_in_view(cells: int, vectors: int, wanted: int) -> int:
    """Cells to look into for nearly all of the nearest so many vectors (benchmarks/rates.py)."""
    return min(cells, 32 + 16 * wanted * cells // vectors)


_MOST = {"lists": 1 << 24, "probes": 1 << 24, "neighbors": 1000, "candidates": 10_000}
"""Beyond, queries or the training take all memory."""


@dataclass(frozen=True)
class IndexOptions:
    """What a catalog's owner asked of its index; None is left to `IndexParameters` and defaults."""

    codec: str | None = None
    """A key of CODE_BYTES."""
    lists: int | None = None
    """Inverted lists."""
    probes: int | None = None
    """Lists to search for each query fingerprint."""
    neighbors: int | None = None
    """Nearest fingerprints to find for each query fingerprint."""
    candidates: int | None = None
    """Proposals to score exactly for each query."""

    def __post_init__(self) -> None:
        """Raises OptionError for a value that cannot work."""
        if self.codec is not None and self.codec not in CODE_BYTES:
            raise OptionError(f"--codec {self.codec}: not one of {', '.join(CODE_BYTES)}")
        for name, most in _MOST.items():
            if (value := getattr(self, name)) is not None and not 1 <= value <= most:
                raise OptionError(f"--{name} {value}: not a whole number of 1 to {most:,}")
        if self.lists and self.probes and self.probes > self.lists:
            raise OptionError(f"--probes {self.probes}: more than the {self.lists} lists")

    def given_later(
        self, later: "IndexOptions", trained: "IndexParameters | None"
    ) -> "IndexOptions":
        """These with what was asked for later, of an index that is already trained.

        Raises OptionError for what would need another index.
        """
        if trained:
            for name, wanted, there in (
                ("codec", later.codec, trained.codec),
                ("lists", later.lists, trained.nlist),
            ):
                if wanted not in (None, there):
                    raise OptionError(
                        f"--{name} {wanted}: the catalog's index has {there}; leave the option "
                        "out, or use another --catalog"
                    )
            if later.probes and later.probes > trained.nlist:
                raise OptionError(f"--probes {later.probes}: more than the {trained.nlist} lists")
        return replace(self, **{k: v for k, v in asdict(later).items() if v is not None})


AUTOMATIC = IndexOptions()
"""Nothing was asked for: the catalog's size decides, by what measures best."""


@dataclass(frozen=True)
class IndexParameters:
    """What an index of a given size should look like."""

    nlist: int
    """Inverted lists."""
    codec: str
    """FAISS's name of the code, or SQfp16 for a small catalog."""
    nprobe: int
    """Lists to search for each query fingerprint, unless `IndexOptions` have another number."""
    training_points: int
    """Fingerprints to draw at random for training."""

    @classmethod
    def for_size(cls, fingerprints: int, asked: IndexOptions = AUTOMATIC) -> "IndexParameters":
        """About 16 sqrt(n) lists, fewer where they could not be trained, at most `_MAX_LISTS`.

        So the codes to scan grow with the square root of the catalog.

        What was asked for is taken as it is; `train_index` refuses what the size cannot train.
        """
        most = min(16 * fingerprints**0.5, fingerprints / _POINTS_PER_CENTROID, _MAX_LISTS)
        nlist = 1
        while nlist * 2 <= most:
            nlist *= 2
        nlist = asked.lists or nlist
        codec = asked.codec or (_CODEC if fingerprints >= _CODEC_MIN else "SQfp16")
        points = max(min(nlist * 2 * _POINTS_PER_CENTROID, _TRAINING_POINTS), nlist * 8)
        points = min(fingerprints, max(2 * _CODEC_MIN, points))
        return cls(nlist, codec, default_nprobe(nlist), points)

    def outgrown_by(self, fingerprints: int, asked: IndexOptions = AUTOMATIC) -> bool:
        """Whether a catalog of this size should be retrained."""
        wanted = IndexParameters.for_size(fingerprints, asked)
        coded = wanted.codec != "SQfp16" and self.codec == "SQfp16"
        # A given number of lists stays, and deserves more points than a small catalog had.
        more_points = asked.lists is not None and wanted.training_points >= 4 * self.training_points
        return coded or more_points or wanted.nlist >= 4 * self.nlist
