"""FMA as it is unpacked: subsets, splits, albums, and what is missing."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from logged import logged

from grafp.audio import decode
from grafp.datasets import list_part, list_recordings
from grafp.datasets.__main__ import main
from grafp.datasets.fma import SHORT_CLIPS, read_tracks, recordings
from grafp.errors import OptionError
from grafp.storage import list_files
from grafp.storage.sources import Item, list_items

TRACKS = [2, 5, 10, 1000, 1001, 2000, 2001, 98565, 98566, 155_320]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fma_medium beside fma_metadata; 98565 and 98566 are known to be too short."""
    return datasets.fma(tmp_path_factory.mktemp("fma"), datasets.fma_rows(TRACKS))


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., Path]:
    """Makes FMA with files that nothing decodes: layouts are read by name."""

    def make(rows: list[dict[str, str]], name: str = "fma_medium", *, audio: list[int]) -> Path:
        for track in audio:
            path = tmp_path / name / datasets.fma_path(track)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        (tmp_path / "fma_metadata").mkdir(exist_ok=True)
        (tmp_path / "fma_metadata" / "tracks.csv").write_bytes(datasets.fma_metadata(rows))
        return tmp_path / name

    return make


def numbers(items: list[Item]) -> list[int]:
    return [int(item.uri[-10:-4]) for item in items]


def test_its_split_and_albums_become_columns_and_short_clips_stay_out(whole: Path) -> None:
    with logged() as lines:
        items = list_recordings("music", str(whole))
    assert numbers(items) == [track for track in TRACKS if track not in SHORT_CLIPS]
    assert len(SHORT_CLIPS) == 21
    assert [item.row["split"] for item in items] == [
        "train", "train", "train", "validation", "test", "train", "train", "test",
    ]  # fmt: skip
    assert items[0].uri == f"{whole}/000/000002.mp3" == items[0].location
    assert items[0].group == "FMA album 0"
    assert len(decode(Path(items[-1].location).read_bytes())) > 40_000
    [line] = lines
    assert "8 tracks of FMA medium; left out: 2 known to be too short" in line


def test_jobs_see_the_parts_that_are_theirs(whole: Path) -> None:
    assert numbers(list_part("music", str(whole), "train")) == [2, 5, 10, 1000, 2000, 2001]
    assert numbers(list_part("music", str(whole), "test")) == [1001, 155_320]
    indexed = {item.uri for item in list_items(str(whole))}  # by index_catalog, in the same words
    assert indexed >= {item.uri for item in list_recordings("music", str(whole))}


def test_the_metadata_may_be_beside_in_it_or_above(whole: Path, tmp_path: Path) -> None:
    tracks = (whole.parent / "fma_metadata" / "tracks.csv").read_bytes()
    expected = numbers(list_recordings("music", str(whole)))
    for place in ("music/fma_metadata/tracks.csv", "music/tracks.csv", "tracks.csv"):
        folder = tmp_path / place.replace("/", "-")
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(tracks)
        (folder / "music").mkdir(exist_ok=True)
        for number in sorted(path.name for path in whole.iterdir()):
            (folder / "music" / number).symlink_to(whole / number)
        assert numbers(list_recordings("music", f"{folder}/music/")) == expected
    assert numbers(list_recordings("music", str(whole.parent))) == expected


def test_another_subset_can_be_chosen(whole: Path, bare: Callable[..., Path]) -> None:
    files = list_files(str(whole))
    small = recordings(str(whole), files, "small")
    assert small
    assert numbers(small) == [2, 10, 1001, 2001]
    folder = str(bare(datasets.fma_rows(TRACKS), "fma_small", audio=[2, 10, 1001, 2001]))
    with pytest.raises(OptionError, match=r"tracks of FMA's subset medium are missing, such as"):
        recordings(folder, list_files(folder), "medium")


def test_whole_recordings_in_full_are_long_enough(bare: Callable[..., Path]) -> None:
    folder = bare(datasets.fma_rows(TRACKS), "fma_full", audio=TRACKS)
    assert numbers(list_recordings("music", str(folder))) == TRACKS


def test_a_folder_with_another_name_has_what_is_there(bare: Callable[..., Path]) -> None:
    folder = bare(datasets.fma_rows(TRACKS), "some", audio=[2, 5, 98565])
    assert numbers(list_recordings("music", str(folder))) == [2, 5]


def test_no_album_is_in_two_parts(bare: Callable[..., Path]) -> None:
    rows = datasets.fma_rows(range(10, 16))
    for row, album, split in zip(
        rows, ["7", "7", "8", "8", "-1", ""],
        ["training", "test", "training", "validation", "training", "training"],
    ):  # fmt: skip
        row |= {"album/id": album, "set/split": split}
    with logged() as lines:
        items = list_recordings("music", str(bare(rows, audio=list(range(10, 16)))))
    assert {number: item.row["split"] for number, item in zip(numbers(items), items)} == {
        11: "test", 13: "validation", 14: "train", 15: "train",
    }  # fmt: skip
    assert [item.group for item in items[2:]] == ["FMA artist 1004", "FMA artist 1005"]
    assert "2 of albums in two parts" in lines[-1]


def without_metadata(bare: Callable[..., Path]) -> Path:
    folder = bare([], audio=[2, 5])
    (folder.parent / "fma_metadata" / "tracks.csv").unlink()
    return folder


def with_two_subsets(bare: Callable[..., Path]) -> Path:
    bare([], "fma_small", audio=[2])
    return bare(datasets.fma_rows([2, 5]), audio=[2, 5]).parent


def with_another_table(bare: Callable[..., Path]) -> Path:
    folder = bare([], audio=[2])
    (folder.parent / "fma_metadata" / "tracks.csv").write_text("path,split\na.mp3,train\nb.mp3,x\n")
    return folder


def with_another_split(bare: Callable[..., Path]) -> Path:
    rows = datasets.fma_rows([2])
    rows[0]["set/split"] = "learning"
    return bare(rows, audio=[2])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (without_metadata, "no fma_metadata/tracks.csv is in it or beside it"),
        (lambda bare: bare([], audio=[2]).parent / "fma_metadata", "but no audio such as"),
        (lambda bare: bare(datasets.fma_rows([2]), audio=[2, 5]),
         r"1 of 2 recordings are not in .*tracks\.csv, such as 000/000005\.mp3"),
        (lambda bare: bare(datasets.fma_rows([2, 5, 10]), audio=[2, 5]),
         r"1 of the 3 tracks of FMA's subset medium are missing, such as 000/000010\.mp3"),
        (with_two_subsets, r"in several folders \(fma_medium, fma_small\); name one of them"),
        (with_another_table, r"tracks\.csv: not FMA's tracks\.csv"),
        (with_another_split, r"tracks\.csv: not FMA's tracks\.csv \('learning'\)"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_one_line(
    make: Callable[[Callable[..., Path]], Path], reason: str, bare: Callable[..., Path]
) -> None:
    with pytest.raises(OptionError, match=reason) as error:
        list_part("music", str(make(bare)), "train")
    assert "\n" not in str(error.value)


def test_other_music_beside_it_is_no_fma(bare: Callable[..., Path]) -> None:
    folder = without_metadata(bare)
    (folder / "song.mp3").write_bytes(b"x")
    assert len(list_part("music", str(folder), "train")) == 3


def test_metadata_has_texts_with_quotes_and_line_ends(whole: Path) -> None:
    tracks = read_tracks(str(whole.parent / "fma_metadata" / "tracks.csv"))
    assert list(tracks) == TRACKS
    assert (tracks[5].split, tracks[5].smallest, tracks[5].group) == ("train", 1, "FMA album 1")


@pytest.mark.parametrize("name", ["small.csv", "small.parquet"])
def test_the_command_writes_a_table_that_jobs_read(
    name: str, whole: Path, capsys: pytest.CaptureFixture
) -> None:
    out = whole.parent / name
    assert main(["--folder", str(whole), "--subset", "small", "--out", str(out)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == {"recordings": 4, "groups": 4, "splits": {"train": 3, "test": 1}}
    items = list_part("music", str(out), "test")
    assert [item.uri for item in items] == ["fma_medium/001/001001.mp3"]
    assert items[0].location == f"{whole}/001/001001.mp3"
    assert items[0].info is not None
    assert items[0].group == "FMA album 4"
    out.unlink()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--folder FMA --out table.txt", "--out table.txt: give a name that ends in .csv or"),
        ("--folder FMA/000 --out t.csv --subset small", "no fma_metadata/tracks.csv is in it"),
        ("--folder EMPTY --out t.csv", ": no recordings there"),
        ("--folder EMPTY --out t.csv --subset small", "is not FMA; leave --subset out"),
    ],
)
def test_the_command_refuses_in_one_line(
    words: str, line: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    given = words.replace("FMA", str(whole)).replace("EMPTY", f"{tmp_path}/empty").split()
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert line in error
    assert error.count("\n") == 1
