"""FMA, MUSAN and AIR for the paper's results: checked before any work, FMA's subsets as tables."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from grafp import storage
from grafp.datasets import Kind, fma, list_part
from grafp.datasets.tables import write_table
from grafp.errors import OptionError, StorageError
from grafp.storage.sources import Item
from pipelines.reproducing.plan import Part, Plan, Split

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What all steps work on."""

    splits: Mapping[Split, list[Item]]
    noise: str
    rir: str
    sound_bytes: int
    """Size of the noise and impulse responses for training."""

    @property
    def groups(self) -> int:
        """Groups of music to train on."""
        return len({item.group for item in self.splits["train"] if item.row["split"] == "train"})


def open_sources(fma_uri: str, musan: str, air: str, plan: Plan) -> Sources:
    """List the data sets, with all that can be wrong with them.

    Raises OptionError or StorageError, one line that names the option.
    """
    tracks = _named("--fma", _tracks, fma_uri, plan)
    noise = _noise_of(musan)
    sounds: list[Item] = []
    kinds: tuple[tuple[str, Kind, str], ...] = (("--musan", "noise", noise), ("--air", "rir", air))
    for option, kind, uri in kinds:
        sounds += _named(option, list_part, kind, uri, "train")
        _named(option, list_part, kind, uri, "test")
    size = sum(item.info.size for item in sounds if item.info)
    return Sources(tracks, storage.absolute(noise), storage.absolute(air), size)


def write_tables(sources: Sources, out: str) -> dict[Split, tuple[str, str]]:
    """OUT/splits: the URI of each table, and a hash of the recordings that it names."""
    tables: dict[Split, tuple[str, str]] = {}
    for split, items in sources.splits.items():
        uri = storage.join(out, "splits", f"{split}.parquet")
        write_table(uri, items)
        names = "\n".join(f"{item.location} {item.row['split']}" for item in items)
        tables[split] = (uri, hashlib.sha256(names.encode()).hexdigest()[:16])
    return tables


def _noise_of(musan: str) -> str:
    """MUSAN's noise, as in the paper; another folder as it is."""
    noise = storage.join(musan, "noise")
    return noise if storage.list_files(noise, may_be_missing=True) else musan


def _tracks(uri: str, plan: Plan) -> dict[Split, list[Item]]:
    files = storage.list_files(uri)
    wanted = {split: part for split, part in plan.scale.splits.items() if split in plan.splits}
    found = {part.subset: fma.recordings(uri, files, part.subset) for part in wanted.values()}
    if storage.absolute(uri).rstrip("/").endswith("fma_full"):
        raise OptionError(
            f"{uri}: has whole recordings; the paper's are clips of 30 s, as in fma_large"
        )
    splits: dict[Split, list[Item]] = {}
    for split, part in wanted.items():
        items = found[part.subset]
        if items is None:
            raise OptionError(
                f"{uri}: not FMA, which has audio such as 000/000002.mp3 and "
                "fma_metadata/tracks.csv; name the folder of the audio, such as fma_medium"
            )
        splits[split] = _chosen(uri, split, part, items)
    return {**splits, "train": _without_queries(splits)}


def _without_queries(splits: Mapping[Split, list[Item]]) -> list[Item]:
    """What to train on: an album may have tracks for queries in a larger subset only."""
    asked = {i.group for items in splits.values() for i in items if i.row["split"] == "test"}
    return [item for item in splits["train"] if item.group not in asked]


def _chosen(uri: str, split: Split, part: Part, items: list[Item]) -> list[Item]:
    """Of a subset what a split takes; databases take the tracks that queries are cut of first."""
    asked = split != "train"
    if not asked:
        parts = ("train", "validation") if part.validation else ("train",)
        items = [item for item in items if item.row["split"] in parts]
    needed = "test" if asked else "train"
    if not any(item.row["split"] == needed for item in items):
        raise OptionError(f"{uri}: no track of the subset {part.subset} is of the split {needed}")
    order = sorted(items, key=lambda item: (asked and item.row["split"] != needed, _hash(item)))
    chosen = sorted(order[: part.most], key=lambda item: item.location)
    logger.info(f"{split}: {len(chosen):,} tracks of FMA {part.subset}")
    return chosen


def _hash(item: Item) -> bytes:
    """An order by chance, the same everywhere."""
    return hashlib.sha256(item.location.rpartition("/")[2].encode()).digest()


def _named(option: str, what: Callable[..., T], *given: Any) -> T:
    try:
        return what(*given)
    except (OptionError, StorageError) as error:
        raise type(error)(f"{option} {error}") from error
