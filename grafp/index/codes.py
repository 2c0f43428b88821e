"""Fingerprints as the index keeps them: an inverted list, an id and a code each.

A shard is a range of lists with the codes in it (grafp.catalog.shard_files). Needs NumPy alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grafp.index.ids import ordinals_of


@dataclass(frozen=True)
class Codes:
    """Codes of some fingerprints; `encode` sorts them by list, then by id."""

    list_N: np.ndarray
    """int32."""
    id_N: np.ndarray
    """int64, see grafp.index.ids."""
    code_NB: np.ndarray
    """uint8 (fingerprints, bytes of a code)."""

    def __len__(self) -> int:
        return len(self.list_N)

    def ordered(self) -> "Codes":
        return self.at(np.lexsort((self.id_N, self.list_N)))

    def at(self, rows: np.ndarray | slice) -> "Codes":
        return Codes(self.list_N[rows], self.id_N[rows], self.code_NB[rows])

    def within(self, lists: range) -> "Codes":
        """Those in a range of lists; both are sorted by list."""
        low, high = np.searchsorted(self.list_N, [lists.start, lists.stop])
        return self.at(slice(low, high))

    def of(self, ordinals: np.ndarray) -> "Codes":
        """Those of some tracks."""
        return self.at(np.isin(ordinals_of(self.id_N), ordinals))

    @classmethod
    def together(cls, parts: Sequence["Codes"]) -> "Codes":
        """All of several, sorted. Raises ValueError for none."""
        joined = cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("list_N", "id_N", "code_NB")
            )
        )
        return joined if len(parts) == 1 else joined.ordered()

    def imbalance(self, lists: range) -> float:
        """How unevenly they fill the lists: 1 is even; searching costs as much more."""
        count_L = np.bincount(self.list_N - lists.start, minlength=len(lists)).astype(float)
        return float(len(lists) * (count_L**2).sum() / max(1.0, count_L.sum()) ** 2)
