#!/usr/bin/env python3
"""A catalog and an incremental run: index, then add, change, remove and break recordings.

    python benchmarks/nights.py --music music.csv --first 300 --add 60

Copies recordings of a collection to a folder, indexes it, changes the folder, indexes it again,
and asks for excerpts of everything that changed. Prints what the second run did and found.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from pipelines.common import cli

CHANGED, REMOVED, BROKEN, EXCERPT_SECONDS = 5, 10, 3, 5


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--music", required=True, metavar="URI", help="folder or table")
    parser.add_argument(
        "--first",
        type=cli.positive_int,
        default=300,
        metavar="N",
        help="recordings of the first run",
    )
    parser.add_argument(
        "--add",
        type=cli.positive_int,
        default=60,
        metavar="N",
        help="recordings that the second run adds",
    )
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> tuple[dict, int]:
    import ray

    from grafp import storage
    from grafp.catalog.catalog import Catalog
    from grafp.storage.sources import list_items
    from pipelines.indexing.flow import index_catalog
    from pipelines.indexing.maintain import verify

    items = list_items(chosen.music)
    needed = chosen.first + chosen.add + CHANGED
    if len(items) < needed:
        raise SystemExit(f"--music has {len(items)} recordings, {needed} are needed")
    with tempfile.TemporaryDirectory() as folder:
        audio, root = Path(folder, "music"), str(Path(folder, "catalog"))
        audio.mkdir()
        names = [f"{n:04d}{Path(item.uri).suffix}" for n, item in enumerate(items)]

        def put(number: int, name: str) -> None:
            (audio / name).write_bytes(storage.read(items[number].location))

        for number in range(chosen.first):
            put(number, names[number])
        first = index_catalog(str(audio), root)
        before = Catalog.open_published(root).manifest
        gone = list(range(REMOVED))
        replaced = list(range(REMOVED, REMOVED + CHANGED))
        broken = list(range(REMOVED + CHANGED, REMOVED + CHANGED + BROKEN))
        new = list(range(chosen.first, chosen.first + chosen.add))
        instead = list(range(chosen.first + chosen.add, needed))
        for number in gone:
            (audio / names[number]).unlink()
        for number, other in zip(replaced, instead, strict=True):
            put(other, names[number])
        for number in broken:
            (audio / names[number]).write_bytes(b"no music")
        for number in new:
            put(number, names[number])
        second = index_catalog(str(audio), root)
        after = Catalog.open_published(root).manifest
        assert before
        assert after
        kept = [entry for entry in before.shards if entry in after.shards]
        expected = {number: None for number in [*gone, *replaced, *broken]}
        expected |= {number: names[number] for number in new}
        expected |= dict(zip(instead, (names[number] for number in replaced), strict=True))
        right = _ask(root, Path(folder, "queries"), items, expected)
        shutil.rmtree(audio)
        result = {
            "first": {name: first[name] for name in ("embedded", "failed", "tracks", "seconds")},
            "second": {
                name: second[name]
                for name in ("added", "changed", "withdrawn", "embedded", "failed", "tracks")
            },
            "shards_unchanged": f"{len(kept)} of {len(before.shards)}",
            "answers_right": f"{right} of {len(expected)}",
            "files_damaged": verify(root)["damaged"],
        }
        ray.shutdown()  # its actors would miss the folder
    for name, value in result.items():
        print(f"{name:18} {value}")
    return result, cli.DONE


def _ask(root: str, folder: Path, items: list, expected: dict[int, str | None]) -> int:
    """How many excerpts got the right answer: this track, or none where None is expected."""
    from grafp import storage
    from grafp.audio import SAMPLE_RATE, decode, encode
    from pipelines.querying.flow import query_batch

    folder.mkdir()
    for number in expected:
        samples_S = decode(storage.read(items[number].location))
        middle = len(samples_S) // 2
        excerpt_S = samples_S[middle : middle + EXCERPT_SECONDS * SAMPLE_RATE]
        (folder / f"{number}.wav").write_bytes(encode(excerpt_S, "wav"))
    _, table = query_batch(root, str(folder), f"{folder}-answers")
    right = 0
    for row in table.to_pylist():
        wanted = expected[int(Path(row["query"]).stem)]
        found = Path(row["track"]).name if row["matched"] else None
        right += row["rank"] == 1 and found == wanted
        if row["rank"] == 1 and found != wanted:
            print(f"  {row['query']}: {found} instead of {wanted}, score {row['score']:.3f}")
    return right


if __name__ == "__main__":
    sys.exit(cli.run(main, options()))
