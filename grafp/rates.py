"""What a fingerprint, a track and a query take: bytes, and seconds of one core, as measured.

Every number that was measured is here, with the command that prints it; grafp.plan multiplies.
"""

import math
from dataclasses import dataclass

from grafp.index.alignment import NEAR_DUPLICATES, QUICK, Effort
from grafp.index.size import (
    CELLS,
    CODE_BYTES,
    FLAT_LISTS,
    ITERATIONS,
    ONE_LEVEL,
    IndexParameters,
    cells_in_view,
)
from grafp.model.fingerprint import DIMENSION

VECTOR_BYTES = 2 * DIMENSION
_ID_BYTES, _CENTROID_BYTES = 8, 4 * DIMENSION
_BLOCK = 32  # FAISS keeps 4-bit codes in blocks of so many, and pads the last one of a list
QUERY_CPUS = 0.3
"""That pipelines.querying claims for a worker that searches."""

# Bytes, by benchmarks/records.py.
TRACK_IN_RUN, NEW_TRACK_IN_RUN, TRACK_IN_QUERY_JOB = 1_300, 3_200, 520  # on the head, at the peak
KNOWN_HASH = 8  # on a machine that decodes
TRACK_IN_TABLES, TRACK_IN_EMBEDDINGS = 198, 1_610
LEVELS, LIST_AND_ID = 6.0, 6.0  # of a fingerprint, beside its vector, and beside its code
SHARD_IN_MANIFEST = 454
MODEL_FILES = 16.35e6  # of `small`, once a catalog: weights and background

CALIBRATION_QUERIES = 3_200  # pipelines.indexing.calibrate, with the background of `small`
START_S = 10.0  # of a run, by benchmarks/start.py: Ray, its workers and their imports

# Of one core in a second, by benchmarks/rates.py: comparisons with a centroid when fingerprints
# are indexed, without and with cells, and likewise for queries; fingerprints coded; codes merged;
# codes compared, by codec.
_INDEXING, _INDEXING_CELLS, _CHOOSING, _CHOOSING_CELLS = 3.3e8, 2.0e8, 1.2e8, 4.0e7
_CODED, _MERGED = 3.0e5, 2.0e6
_SCANNED = {"PQ64x4fs": 4.5e8, "PQ64": 3.2e7, "SQfp16": 8.1e7}
ENCODED = 842.0  # segments, by benchmarks/encoder.py
NEAR_DUPLICATES_SHARE = 0.1
"""Of the time of encoding, for the near duplicates of an index run, at most."""
# Seconds of one core, likewise: reading some lists of a shard; looking for a fingerprint, apart
# from codes; what is left of a query of 5 s and its background, quick and whole, and of a near
# duplicate.
_READ_S, _LOOK_S = 4.0e-3, 2.0e-5
_QUICK_S, _WHOLE_S, _DUPLICATE_S = 1.8e-3, 5.9e-3, 0.7e-3
_IMBALANCE = 1.15  # of lists, by benchmarks/scale.py


def memory_bytes(index: IndexParameters, count: float) -> float:
    """Of each of so many fingerprints in lists: code, id, padding, centroids that codes need."""
    residual = index.codec != "PQ64x4fs"
    codes = index.nlist * padded(index, count) * CODE_BYTES[index.codec]
    return (codes + residual * index.nlist * _CENTROID_BYTES) / count + _ID_BYTES


def padded(index: IndexParameters, count: float) -> float:
    """Codes of a list with its padding; lists are as uneven as a geometric distribution."""
    if index.codec != "PQ64x4fs":
        return count / index.nlist
    more = count / (count + index.nlist)
    return _BLOCK * more / (1 - math.pow(more, _BLOCK))


def trained_bytes(nlist: int) -> int:
    """Of a trained index: its centroids."""
    return nlist * _CENTROID_BYTES


def indexing_s(index: IndexParameters) -> float:
    """To find list and code of a fingerprint."""
    if index.nlist > FLAT_LISTS:
        return (CELLS + 1) * math.sqrt(index.nlist) / _INDEXING_CELLS + 1 / _CODED
    return index.nlist / _INDEXING + 1 / _CODED


def training_s(index: IndexParameters) -> float:
    """Of k-means; in two levels where there are many lists, with a round over all."""
    points, nlist = index.training_points, index.nlist
    if nlist <= ONE_LEVEL:
        return ITERATIONS * points * nlist / _INDEXING
    return 2 * ITERATIONS * points * math.sqrt(nlist) / _INDEXING + points * indexing_s(index)


def merging_s(count: float, parts: float) -> float:
    """To merge codes by list; for each range of lists, all parts are read."""
    return count / _MERGED + _READ_S * parts**2 if parts > 1 else 0.0


def _choose_s(nlist: int, lists: int) -> float:
    """To choose so many lists of all for a fingerprint of a query."""
    if nlist <= FLAT_LISTS:
        return nlist / _CHOOSING
    each = math.sqrt(nlist)
    return (1 + cells_in_view(round(each), nlist, lists)) * each / _CHOOSING_CELLS


@dataclass(frozen=True)
class Search:
    """What a search of a catalog with so many fingerprints takes."""

    index: IndexParameters
    count: float
    codes_rate: float | None = None
    """Codes that are compared per second; None: as measured."""

    def query(
        self, asked: int, probes: int | None, decided: float
    ) -> tuple[dict[str, float], float]:
        """Seconds of a query of so many fingerprints; codes compared for each of these.

        Args:
            probes: as asked of the index; None searches by need.
            decided: share of the queries that the quick search answers.
        """
        if probes:
            whole = Effort(None, probes)
            return self.seconds(asked, whole, _WHOLE_S), self._codes(asked, whole) / asked
        whole = Effort.by_length(self.index.nprobe)
        quick = asked > (QUICK.fingerprints or 0)  # a shorter one is searched at once
        left = 1.0 - quick * decided
        first = self.seconds(asked, QUICK, _QUICK_S)
        then = self.seconds(asked, whole, _WHOLE_S)
        codes = quick * self._codes(asked, QUICK) + left * self._codes(asked, whole)
        return {name: quick * first[name] + left * then[name] for name in first}, codes / asked

    def duplicate_s(self, asked: int) -> float:
        """Seconds of a track that is compared with the catalog."""
        return sum(self.seconds(asked, NEAR_DUPLICATES, _DUPLICATE_S).values())

    def seconds(self, asked: int, effort: Effort, score_s: float) -> dict[str, float]:
        nlist, (looks, lists) = self.index.nlist, self._visits(asked, effort)
        scan = self._codes(asked, effort) / (self.codes_rate or _SCANNED[self.index.codec])
        return {
            "choose lists": looks * _choose_s(nlist, lists),
            "scan": looks * _LOOK_S + scan,
            "score": score_s,
        }

    def _codes(self, asked: int, effort: Effort) -> float:
        """With padding; full lists are searched more often than others."""
        looks, lists = self._visits(asked, effort)
        return looks * lists * _IMBALANCE * padded(self.index, self.count)

    def _visits(self, asked: int, effort: Effort) -> tuple[int, int]:
        """Fingerprints that are looked for, and lists for each."""
        looks = min(asked, effort.fingerprints or asked)
        return looks, min(self.index.nlist, effort.lists_each(asked))
