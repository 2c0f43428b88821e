"""Noise and impulse responses: MUSAN, AIR and other folders, divided once."""

import io
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from logged import logged
from scipy.io import savemat

from grafp import storage
from grafp.audio import SAMPLE_RATE, decode, encode
from grafp.audio.mixing import direct_first
from grafp.datasets import Kind, list_part, list_recordings, waveforms
from grafp.datasets.__main__ import main
from grafp.errors import OptionError, UnreadableAudio
from grafp.storage.sources import Item


def splits(items: list[Item]) -> dict[str, str]:
    """The split of each recording, by the name of its file."""
    return {item.uri.rpartition("/")[2]: item.row["split"] for item in items}


def put(folder: str, names: list[str]) -> str:
    for name in names:
        storage.write(f"{folder}/{name}", b"x")
    return folder


def test_a_folder_is_divided_once_wherever_it_is(store: str, tmp_path: Path) -> None:
    names = [f"noise {number}.wav" for number in range(100)]
    first = splits(list_recordings("noise", put(f"{store}/one", names)))
    more = names + [f"later {number}.flac" for number in range(50)]
    second = splits(list_recordings("noise", put(f"{tmp_path}/two/deep/down", more)))
    assert 10 < list(first.values()).count("test") < 35
    assert first.items() <= second.items()
    train, test = (list_part("noise", f"{store}/one", part) for part in ("train", "test"))
    assert {item.uri for item in train}.isdisjoint(item.uri for item in test)
    assert len(train) + len(test) == 100


def test_ten_folders_are_rooms_and_stay_whole(tmp_path: Path) -> None:
    names = [f"room {room}/{ear}.wav" for room in range(12) for ear in ("left", "right")]
    items = list_recordings("rir", put(f"{tmp_path}/rooms", names))
    rooms = {(item.group, item.row["split"]) for item in items}
    assert len(rooms) == 12
    assert {split for _, split in rooms} == {"train", "test"}
    few = list_recordings("rir", put(f"{tmp_path}/few", names[:8]))
    assert {item.group for item in few} == {"left", "right"}


def test_a_table_without_splits_is_divided_by_its_groups(tmp_path: Path) -> None:
    rows = "".join(f"{number}.wav,room {number // 3}\n" for number in range(60))
    (tmp_path / "list.csv").write_text("path,room\n" + rows)
    items = list_recordings("rir", f"{tmp_path}/list.csv")
    parts = {(item.row["room"], item.row["split"]) for item in items}
    assert len(parts) == 20
    assert {item.group for item in items} == {room for room, _ in parts}
    assert {split for _, split in parts} == {"train", "test"}


def test_a_table_with_splits_is_used_as_it_says(tmp_path: Path) -> None:
    table = f"{tmp_path}/list.csv"
    Path(table).write_text("path,split\na,train\nb,test\nc,\nd,validation\ne,other\n")
    kinds: tuple[Kind, ...] = ("music", "noise", "rir")
    for kind in kinds:
        assert [item.uri for item in list_part(kind, table, "train")] == ["a", "c", "d"]
        assert [item.uri for item in list_part(kind, table, "test")] == ["b", "c"]


def test_music_without_splits_is_not_divided(tmp_path: Path) -> None:
    folder = put(f"{tmp_path}/music", [f"{number}.wav" for number in range(9)])
    assert len(list_part("music", folder, "train")) == 9
    assert len(list_part("music", folder, "test")) == 9


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_recordings_are_divided_too(count: int, tmp_path: Path) -> None:
    for word in ("a", "b", "c", "d", "e", "f", "g", "h"):  # with any names
        folder = put(f"{tmp_path}/{word}", [f"{word}{number}.wav" for number in range(count)])
        train, test = (list_part("noise", folder, part) for part in ("train", "test"))
        assert (len(train) + len(test), bool(train), bool(test)) == (count, True, True)


def test_what_has_nothing_for_one_part_is_one_line(tmp_path: Path) -> None:
    folder = put(f"{tmp_path}/one", ["only.wav"])
    assert len(list_part("noise", folder, "train")) == 1
    with pytest.raises(
        OptionError, match=r"none of its 1 recordings is of the split test, but of train"
    ):
        list_part("noise", folder, "test")
    (tmp_path / "list.csv").write_text("path,split\na,test\nb,test\n")
    with pytest.raises(OptionError, match=r"list\.csv: none of its 2 recordings is of the split t"):
        list_part("rir", f"{tmp_path}/list.csv", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="empty: no recordings there"):
        list_part("rir", f"{tmp_path}/empty", "train")


def test_musan_has_kinds_and_artists(tmp_path: Path) -> None:
    folder = datasets.musan(tmp_path)
    with logged() as lines:
        items = list_recordings("noise", str(folder))
    rows = {Path(item.uri).stem: item.row for item in items}
    assert len(rows) == 18
    assert [row["kind"] for row in rows.values()].count("noise") == 12
    assert rows["music-fma-0000"]["group"] == rows["music-fma-0002"]["group"] == "Artist_0"
    assert rows["speech-librivox-0001"]["group"] == "speech-librivox-0001"
    assert rows["noise-free-sound-0000"]["group"] == "noise-free-sound-0000"
    count = len(list_part("noise", str(folder), "test"))
    told = f"evaluation takes {count} of 18 recordings, training the others"
    assert lines == [f"{folder}: has no splits; {told}"]
    assert len(waveforms(list_part("noise", str(folder), "test"))[0]) == 2 * SAMPLE_RATE


def test_a_folder_of_musan_is_divided_like_the_whole(tmp_path: Path) -> None:
    folder = datasets.musan(tmp_path, noises=40)
    whole = splits(list_recordings("noise", str(folder)))
    for part in ("noise", "noise/free-sound"):
        of_part = splits(list_recordings("noise", f"{folder}/{part}"))
        assert of_part.items() <= whole.items()
        assert set(of_part.values()) == {"train", "test"}


def test_air_is_read_as_it_is(tmp_path: Path) -> None:
    folder = datasets.air(tmp_path)
    items = list_recordings("rir", str(folder))
    assert len(items) == 3 * len(datasets.AIR_ROOMS)
    assert {item.group for item in items} == {f"AIR {room}" for room in datasets.AIR_ROOMS}
    test = list_part("rir", str(folder), "test")
    assert {item.group for item in test} == {"AIR lecture", "AIR aula_carolina"}
    [first, *_] = waveforms(test)
    assert first.dtype == np.int16
    assert abs(len(first) / SAMPLE_RATE - 0.31) < 0.001


def test_both_ears_and_all_ways_to_hold_a_phone_are_one_room(tmp_path: Path) -> None:
    names = {
        "air_binaural_aula_carolina_0_1_1_90_3": "aula_carolina",
        "air_binaural_stairway_1_1_3_45": "stairway",
        "air_phone_bt_corridor_hhp_0": "corridor",
        "air_phone_lecture1_hfrp_1": "lecture",
        "air_phone_lecture_hhp_1": "lecture",
        "mine": "mine",
    }
    for name in names:
        (tmp_path / f"{name}.mat").write_bytes(datasets.air_file(datasets.air_response(0)))
    groups = {Path(item.uri).stem: item.group for item in list_recordings("rir", str(tmp_path))}
    assert groups == {name: f"AIR {room}" for name, room in names.items()}


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_response_keeps_its_delay_and_its_decay(rate: int) -> None:
    """The delay is taken off where a response is used, see `direct_first`."""
    response = datasets.air_response(1, rate=rate, delay_s=0.05)
    decoded_S = decode(datasets.air_file(30 * response, rate=rate), min_seconds=0)
    assert abs(int(np.abs(decoded_S).argmax()) - 0.05 * SAMPLE_RATE) <= 1
    as_wav_S = decode(encode(response, "wav", rate=rate), min_seconds=0)
    assert len(decoded_S) == len(as_wav_S)
    assert np.corrcoef(decoded_S, as_wav_S)[0, 1] > 0.9999
    used_S = direct_first(torch.tensor(decoded_S))
    assert len(decoded_S) - len(used_S) == pytest.approx(0.05 * SAMPLE_RATE, abs=2)


def test_two_channels_are_mixed_as_in_any_recording() -> None:
    left, right = datasets.air_response(1)[0], datasets.air_response(2)[0]
    both = np.stack([left, right])
    expected_S = decode(datasets.air_file(left + right), min_seconds=0)
    for shape in (both, both.T):
        mixed_S = decode(datasets.air_file(shape), min_seconds=0)
        assert np.corrcoef(mixed_S, expected_S)[0, 1] > 0.999


def of_others() -> bytes:
    data = io.BytesIO()
    savemat(data, {"rir": np.ones((1, 100)), "fs": 48_000.0})
    return data.getvalue()


def without_rate() -> bytes:
    data = io.BytesIO()
    savemat(data, {"h_air": np.ones((1, 100)), "air_info": {"room": "office"}})
    return data.getvalue()


GOOD = datasets.air_file(datasets.air_response(0))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (of_others(), "without h_air and air_info.fs"),
        (without_rate(), "without h_air and air_info.fs"),
        (datasets.air_file(np.array([["text"]])), "without h_air and air_info.fs"),
        (datasets.air_file(np.ones((3, 100))), r"h_air has the shape \(3, 100\)"),
        (datasets.air_file(np.zeros((1, 100))), "empty, silent or not finite"),
        (datasets.air_file(np.zeros((1, 0))), "h_air has the shape"),
        (datasets.air_file(np.full((1, 9), np.nan)), "empty, silent or not finite"),
        (datasets.air_file(np.ones((1, 9)), rate=0), "at 0 Hz"),
        (GOOD[: len(GOOD) // 2], "without h_air and air_info.fs"),
        (GOOD[:128], "without h_air and air_info.fs"),
        (GOOD[:200] + bytes(300) + GOOD[500:], "without h_air and air_info.fs"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(500), "without h_air and"),
        (b"no MATLAB", "not a MATLAB file"),
    ],
)
def test_a_matlab_file_of_others_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    folder = datasets.air(tmp_path, ["office"])
    (folder / "other.mat").write_bytes(data)
    with pytest.raises(OptionError, match=rf"other\.mat: not a response of AIR: .*{reason}"):
        list_part("rir", str(folder), "train")
    with pytest.raises(UnreadableAudio):
        decode(data)


def test_matlab_files_beside_audio_are_ignored(tmp_path: Path) -> None:
    put(str(tmp_path), ["a.wav", "b.wav", "notes.mat"])
    assert len(list_recordings("rir", str(tmp_path))) == 2


@pytest.mark.parametrize("make", [datasets.musan, datasets.air])
def test_a_table_of_it_divides_in_the_same_way(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder, out = make(tmp_path), f"{tmp_path}/tables/list.parquet"
    assert main(["--folder", str(folder), "--kind", "rir", "--out", out]) == 0
    direct, through = list_recordings("rir", str(folder)), list_recordings("rir", out)
    assert [item.location for item in through] == [item.location for item in direct]
    assert [item.row for item in through] == [item.row for item in direct]
