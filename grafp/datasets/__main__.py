"""Write a data set as a table that every job reads.

    python -m grafp.datasets --folder fma_full/ --subset medium --out medium.csv
    python -m grafp.datasets --kind noise --folder musan/noise --out noise.csv

Jobs accept these folders themselves. The table shows how a folder is divided, can be edited, and
has another subset of FMA than the folder's own. It has the columns path, split and group, and kind
for MUSAN. A path is relative where the recording is below the folder of the table. The last line
on standard output counts the recordings as JSON.

Exit code: 0 done, 1 failed, 2 bad arguments.
"""

import json
import logging
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from grafp import storage
from grafp.datasets import Kind, list_recordings
from grafp.datasets.fma import SUBSETS, recordings
from grafp.datasets.tables import write_table
from grafp.errors import GrafpError, OptionError
from grafp.option_values import Uri, choice
from grafp.options import parse, refuse, tell
from grafp.storage.sources import Item, is_table


@dataclass(kw_only=True)
class Options:
    folder: Uri
    """The data set as it is unpacked, or any folder or prefix of recordings."""
    out: Uri
    """The table to write, .csv or .parquet."""
    kind: Kind = "music"
    """What it is: noise and impulse responses (rir) get a split if they have none."""
    subset: Annotated[str, choice(*SUBSETS)] | None = None
    """Subset of FMA (default: the one that the folder is named after, else all audio there)."""

    def __post_init__(self) -> None:
        if not is_table(self.out):
            raise OptionError(f"--out {self.out}: give a name that ends in .csv or .parquet")


def listed(folder: str, kind: Kind, subset: str | None = None) -> list[Item]:
    """The recordings of a folder. Raises OptionError, StorageError."""
    if subset is None:
        return list_recordings(kind, folder)
    items = recordings(folder, storage.list_files(folder), subset)
    if items is None:
        raise OptionError(f"--subset {subset}: {folder} is not FMA; leave --subset out")
    return items


def main(arguments: list[str] | None = None) -> int:
    chosen = parse(Options, __doc__, arguments, prog="python -m grafp.datasets")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        items = listed(chosen.folder, chosen.kind, chosen.subset)
        if not items:
            raise OptionError(f"--folder {chosen.folder}: no recordings there")
        write_table(chosen.out, items)
    except OptionError as error:
        refuse(str(error))
    except GrafpError as error:
        tell(str(error))
        return 1
    splits = Counter(item.row.get("split") or "none" for item in items)
    groups = len({item.group for item in items})
    print(json.dumps({"recordings": len(items), "groups": groups, "splits": splits}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
