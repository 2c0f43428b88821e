"""Which recordings are for training and which for evaluation."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace

from grafp.storage.sources import Item

_PARTS = {"train": ("train", "validation"), "test": ("test",)}
_TEST = 51  # of 256: a fifth
_FOLDERS = 10  # fewer folders are more likely kinds of sound than rooms


def in_part(items: Sequence[Item], part: str) -> list[Item]:
    """The recordings of a part; those without a split are of both."""
    return [item for item in items if (item.row.get("split") or part) in _PARTS[part]]


def split_once(items: Sequence[Item]) -> list[Item]:
    """Noise or impulse responses with a group and a split, the same in every job.

    A fifth of the groups is `test`, chosen by their names, so that neither the path of the folder
    nor other recordings matter. Where that would leave one part empty, one group is moved.

    A recording without a group has the name of its folder, if there are ten such names or more,
    else its own file name.
    """
    folders = {_folder(item) for item in items}
    name = _folder if len(folders) >= _FOLDERS else _file
    groups = [str(item.row.get("group") or item.row.get("room") or name(item)) for item in items]
    test = _test_groups(set(groups))
    return [
        replace(item, row={**item.row, "group": group, "split": _split(group in test)})
        for item, group in zip(items, groups, strict=True)
    ]


def _split(is_test: bool) -> str:
    return "test" if is_test else "train"


def _folder(item: Item) -> str:
    return os.path.basename(os.path.dirname(item.location))


def _file(item: Item) -> str:
    return os.path.splitext(os.path.basename(item.location))[0]


def _test_groups(groups: set[str]) -> set[str]:
    order = sorted(groups, key=lambda group: (_rank(group), group))
    test = {group for group in order if _rank(group) < _TEST}
    if len(groups) < 2:
        return set()  # training is the first to need it
    if not test:
        return {order[0]}
    return test - {order[-1]} if test == groups else test


def _rank(group: str) -> int:
    # Not the first byte, by which training sets its validation part apart.
    return hashlib.sha256(group.encode()).digest()[1]
