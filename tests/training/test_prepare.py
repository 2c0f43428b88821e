"""Collections decoded once: what is kept, reused, refused, and what survives a run that dies."""

import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logged import logged

from grafp import storage
from grafp.audio import decode, encode, synthesis
from grafp.errors import OptionError, StorageError, StoreUnreachable, TrainingError
from grafp.training.data import pcm
from grafp.training.data import prepare as collecting
from grafp.training.data.pcm import Sources
from grafp.training.data.prepare import Collected, collect
from pipelines.training.prepare import _on_ray, collect_all, list_sources

FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a")


def piece(seed: int, extension: str = "wav", seconds: float = 3.0) -> bytes:
    return encode(synthesis.piece(seed, seconds), extension)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Good and bad recordings; the same sound is in a.wav and z.flac."""
    good = {f"{number}.{form}": piece(number, form) for number, form in enumerate(FORMATS)}
    same = {"a.wav": piece(50, "wav"), "z.flac": piece(50, "flac")}
    bad = {
        "broken.mp3": b"nothing",
        "empty.wav": b"",
        "silent.wav": encode(np.zeros(48_000, np.float32), "wav"),
        "short.wav": piece(7, seconds=1.0),
    }
    return {**good, **same, **bad}


@pytest.fixture
def music(store: str, files: dict[str, bytes]) -> str:
    return put(f"{store}/music", files)


@pytest.fixture
def local(tmp_path: Path, files: dict[str, bytes]) -> str:
    return put(f"{tmp_path}/music", files)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcm, "SHARD_BYTES", 200_000)  # two pieces


def put(folder: str, contents: dict[str, bytes]) -> str:
    for name, data in contents.items():
        storage.write(f"{folder}/{name}", data)
    return folder


def collected(music: str, data: str, **options: object) -> tuple[Collected, list[str]]:
    with logged() as lines:
        return collect(Sources.of("music", music), data, **options), lines


def sounds(one: Collected) -> dict[str, np.ndarray]:
    """What can be used, by its name."""
    return {
        row["uri"].rpartition("/")[2]: pcm.read_pcm(f"{one.store}/{row['shard']}", [row["row"]])[0]
        for side in one.usable()
        for row in side.to_pylist()
    }


def never(*_: object, **__: object) -> np.ndarray:
    raise AssertionError("decoded again")


def test_every_format_becomes_pcm_and_the_rest_is_logged(
    music: str, store: str, files: dict[str, bytes]
) -> None:
    one, lines = collected(music, f"{store}/data")
    found = sounds(one)
    assert len(found) == len(FORMATS) + 1
    for name, sound_S in found.items():
        expected = (decode(files[name]).clip(-1, 1) * 32767).round()
        assert np.array_equal(sound_S, expected)
    left_out = {
        line.split(": ")[1].rpartition("/")[2]: line for line in lines if "left out" in line
    }
    reasons = {"broken.mp3": "cannot be decoded", "empty.wav": "no bytes"}
    reasons |= {"silent.wav": "is silent", "short.wav": "lasts 1.00 s"}
    assert all(reason in left_out[name] for name, reason in reasons.items())
    assert "1 exact duplicates left out" in lines[-1]
    assert {"a.wav", "z.flac"} - found.keys() in ({"a.wav"}, {"z.flac"})
    [manifest] = [
        json.loads(storage.read(f.uri)) for f in storage.list_files(one.store, (".json",))
    ]
    assert manifest["table"]["key"] == one.key
    assert sum(shard["count"] for shard in manifest["shards"]) == len(FORMATS) + 2
    for shard in manifest["shards"]:
        data = storage.read(f"{one.store}/{shard['key']}")
        assert len(data) == shard["bytes"]
        table = pq.read_table(io.BytesIO(data))
        assert table.column_names == ["uri", "group", "sha256", "seconds", "pcm"]
        assert sum(table["seconds"].to_pylist()) == pytest.approx(shard["seconds"])
        assert sum(map(len, table["pcm"].to_pylist())) <= 200_000
        assert len(table) == shard["count"]


def test_what_is_decoded_is_used_again_until_the_collection_changes(
    music: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = collected(music, f"{store}/data")
    before = storage.list_files(first.store)
    with monkeypatch.context() as patch:
        patch.setattr(pcm, "decode", never)
        again, lines = collected(music, f"{store}/data")
    assert again == first
    assert storage.list_files(first.store) == before
    assert any("left out: " in line for line in lines)
    put(music, {"new.wav": piece(60), "0.wav": piece(61)})
    storage.delete(f"{music}/1.flac")
    changed, _ = collected(music, f"{store}/data")
    assert changed.digest != first.digest
    assert sounds(changed).keys() == sounds(first).keys() - {"1.flac"} | {"new.wav"}
    assert not np.array_equal(sounds(changed)["0.wav"], sounds(first)["0.wav"])
    told = collecting.changes(first.table(), Sources.of("music", music))
    assert told == f"1 new ({music}/new.wav), 1 gone ({music}/1.flac), 1 replaced ({music}/0.wav)"


@pytest.mark.usefixtures("ray_here")
def test_ray_makes_the_same_shards(music: str, store: str) -> None:
    here, _ = collected(music, f"{store}/here")
    there, lines = collected(music, f"{store}/there", spread=_on_ray)
    assert here.key == there.key
    assert any("12/12 recordings" in line for line in lines)
    assert content(here.store) == content(there.store)


def content(root: str) -> dict[str, bytes]:
    root = storage.absolute(root)
    return {
        file.uri[len(root) :]: storage.read(file.uri)
        for file in storage.list_files(root, (".parquet",))
    }


class Killed(BaseException):
    pass


@pytest.mark.parametrize("writes", [1, 2, 3, 7])
def test_a_run_that_was_killed_leaves_nothing_that_counts_and_the_next_goes_on(
    local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    undisturbed, _ = collected(local, f"{tmp_path}/undisturbed")
    data, left, decoded = f"{tmp_path}/data", writes, []
    write = storage.write

    def killed(uri: str, content: bytes) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        write(uri, content)

    def counted(content: bytes, **options: float) -> np.ndarray:
        decoded.append(content)
        return decode(content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", killed)
        with pytest.raises(Killed):
            collected(local, data)
    assert not list(Path(data).glob("*.json"))
    finished = list(Path(data).glob("parts/*.parquet"))
    spared = sum(len(pq.read_table(path)) for path in finished)
    monkeypatch.setattr(pcm, "decode", counted)
    again, _ = collected(local, data)
    assert len(decoded) == 12 - spared
    assert again.key == undisturbed.key
    assert content(data) == content(undisturbed.store)


def test_a_shard_that_is_gone_is_made_again(local: str, tmp_path: Path) -> None:
    one, _ = collected(local, f"{tmp_path}/data")
    before = content(one.store)
    os.unlink(next(Path(one.store).glob("shards/*")))
    next(Path(one.store).glob("parts/*")).write_bytes(b"")
    (manifest,) = Path(one.store).glob("*.json")
    manifest.write_text("{")
    again, _ = collected(local, one.store)
    assert again == one
    assert content(one.store) == before


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            StorageError, match=r"/data/shards/\S+: No space left on device; free some space"
        ):
            collected(local, f"{tmp_path}/data")
    assert len(sounds(collected(local, f"{tmp_path}/data")[0])) == 7


def test_a_store_that_goes_away_stops_the_run_and_one_file_does_not(
    local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = storage.read

    def gone(kind: type[StorageError]) -> Callable[[str], bytes]:
        def read_or_fail(uri: str) -> bytes:
            if uri.endswith("/1.flac"):
                raise kind(f"{uri}: refused")
            return read(uri)

        return read_or_fail

    data = f"{tmp_path}/data"
    monkeypatch.setattr(storage, "read", gone(StoreUnreachable))
    with pytest.raises(StoreUnreachable):
        collected(local, data)
    monkeypatch.setattr(storage, "read", gone(StorageError))
    without, lines = collected(local, data)
    assert any("left out" in line and "1.flac: refused" in line for line in lines)
    monkeypatch.setattr(storage, "read", read)
    resumed, _ = collected(local, data, before=without)
    assert resumed == without
    assert sounds(collected(local, data)[0]).keys() == sounds(without).keys() | {"1.flac"}


def test_an_unreachable_store_is_told_from_a_missing_file(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError) as error:
        storage.read(f"{s3}/nothing")
    assert not isinstance(error.value, StoreUnreachable)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://[nowhere")
    with pytest.raises(StoreUnreachable):
        storage.read(f"{s3}/nothing")


def test_many_failures_are_counted(tmp_path: Path) -> None:
    put(f"{tmp_path}/music", {f"{number}.wav": b"x" for number in range(25)})
    with logged() as lines, pytest.raises(TrainingError, match="no usable music"):
        collect(Sources.of("music", f"{tmp_path}/music"), f"{tmp_path}/data")
    assert sum("left out: " in line and ".wav" in line for line in lines) == 20
    assert lines[-1] == "  left out: 5 more"


def table_of(folder: Path, rows: list[str]) -> str:
    (folder / "music.csv").write_text("\n".join(rows))
    return f"{folder}/music.csv"


def test_a_group_is_either_trained_on_or_held_out(tmp_path: Path) -> None:
    rows = ["path,split,group"]
    for number in range(40):
        put(str(tmp_path), {f"{number}.wav": piece(number, seconds=1.2)})
        rows.append(f"{number}.wav,train,album {number // 2}")
    put(str(tmp_path), {"test.wav": piece(70), "short.wav": piece(71, seconds=0.5)})
    rows += ["test.wav,test,x", "short.wav,train,y", "missing.wav,,z"]
    one, lines = collected(table_of(tmp_path, rows), f"{tmp_path}/data")
    train, held = (set(side["group"].to_pylist()) for side in one.usable())
    assert not train & held
    assert train | held == {f"album {number}" for number in range(20)}
    assert 0 < len(held) < 8
    assert len(sounds(one)) == 40
    assert [line for line in lines if "short.wav" in line and "0.50 s" in line]
    assert [line for line in lines if "missing.wav" in line and "not found" in line]
    assert not [line for line in lines if "test.wav" in line]


def test_a_split_for_validation_is_held_out_instead_of_a_tenth(tmp_path: Path) -> None:
    parts = ["train", "train", "train", "validation", "validation", "test", ""]
    rows = ["path,split,group"]
    for number, part in enumerate(parts):
        put(str(tmp_path), {f"{number}.wav": piece(number, seconds=1.2)})
        rows.append(f"{number}.wav,{part},album {number}")
    rows[3] = rows[3].replace("album 2", "album 3")  # its other recording is for validation
    for share in (0.1, 0.0, 0.5):  # a share is for collections without that split
        one, _ = collected(table_of(tmp_path, rows), f"{tmp_path}/data", held_out=share)
        train, held = (side["uri"].to_pylist() for side in one.usable())
        assert sorted(train) == ["0.wav", "1.wav", "6.wav"]
        assert sorted(held) == ["2.wav", "3.wav", "4.wav"]


def test_a_table_of_an_earlier_version_is_used_again(local: str, tmp_path: Path) -> None:
    """Its column `held` says nothing: a run holds out its own share."""
    one, _ = collected(local, f"{tmp_path}/data")
    table = one.table().drop_columns("validation")
    held = pa.array([True] * len(table))
    pq.write_table(table.append_column("held", held), f"{one.store}/{one.key}")
    again, lines = collected(local, f"{tmp_path}/data")
    assert again == one
    assert not any("decoding" in line for line in lines)
    assert list(map(len, again.usable())) == list(map(len, one.usable()))
    assert len(again.usable()[0]) > 0


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [  # album 4 is in the tenth, the others here are not
        pytest.param(["album 0"] * 6, (6, 0), id="one group, of those that train"),
        pytest.param(["album 4"] * 6, (6, 0), id="one group, of the tenth"),
        pytest.param(["album 4", "album 0", "album 0"], (2, 1), id="one of two in the tenth"),
        pytest.param([f"album {n}" for n in (0, 1, 2, 3)], (4, 0), id="four"),
        pytest.param([f"album {n}" for n in (0, 1, 2, 3, 5, 5)], (4, 2), id="five, one of two"),
    ],
)
def test_a_small_collection_is_split_between_groups_or_not_at_all(
    groups: list[str], wanted: tuple[int, int], tmp_path: Path
) -> None:
    put(str(tmp_path), {f"{n}.wav": piece(n, seconds=1.2) for n in range(len(groups))})
    rows = [f"{number}.wav,{group}" for number, group in enumerate(groups)]
    one, _ = collected(table_of(tmp_path, ["path,group", *rows]), f"{tmp_path}/data")
    assert tuple(map(len, one.usable())) == wanted


def test_runs_that_hold_out_other_shares_use_the_same_decoded_audio(tmp_path: Path) -> None:
    put(str(tmp_path), {f"{number}.wav": piece(number, seconds=1.2) for number in range(40)})
    sources = Sources.of("music", table_of(tmp_path, ["path", *(f"{n}.wav" for n in range(40))]))
    held, keys = [], set()
    for share in (0.0, 0.01, 0.1, 0.5):
        one = collect(sources, f"{tmp_path}/data", held_out=share)
        train, kept = (set(side["uri"].to_pylist()) for side in one.usable())
        assert not train & kept
        assert len(train | kept) == 40
        held.append(kept)
        keys.add(one.key)
    assert len(keys) == 1
    assert len(held[0]) == 0
    assert len(held[1]) >= 1
    assert held[2] < held[3]
    assert 12 <= len(held[3]) <= 28
    with logged() as lines:
        collect(sources, f"{tmp_path}/data", held_out=0.0)
    assert lines == ["music: 40 for training, 0 for validation, 0.01 h"]


@pytest.mark.parametrize("what", ["music", "noise", "rir"])
def test_what_is_not_there_is_one_line_with_its_option(what: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    option = {"music": "--music", "noise": "--noise", "rir": "--rir"}[what]
    with pytest.raises(StorageError, match=f"^{option} {tmp_path}/nowhere: not found$"):
        list_sources({what: f"{tmp_path}/nowhere"})
    with pytest.raises(OptionError, match=f"^{option} {tmp_path}/empty: no recordings there"):
        list_sources({what: f"{tmp_path}/empty"})


def test_a_run_is_resumed_with_what_it_began_with(local: str, tmp_path: Path) -> None:
    put(f"{tmp_path}/noise", {"0.wav": encode(synthesis.noise(0, 2.0), "wav")})
    out, data = f"{tmp_path}/run", f"{tmp_path}/data"

    def resume(resume: bool, **uris: str) -> dict[str, Collected]:
        return collect_all(list_sources(uris), data, out, resume=resume, on_ray=False)

    both = {"music": local, "noise": f"{tmp_path}/noise"}
    first = resume(False, **both)
    assert resume(True, **both) == first
    with pytest.raises(OptionError, match="--resume: the run began with --noise"):
        resume(True, music=local)
    put(local, {"new.wav": piece(60)})
    with pytest.raises(OptionError, match=r"--resume: --music \S+ has changed .*1 new .*/new.wav"):
        resume(True, **both)
    assert resume(False, **both)["music"].digest != first["music"].digest
    storage.write(f"{out}/data.json", b'{"music": {"store": "x"}}')
    with pytest.raises(TrainingError, match=r"data\.json: damaged \(music\.digest: Field required"):
        resume(True, **both)


def test_two_runs_at_once_make_what_one_makes(music: str, store: str) -> None:
    one, _ = collected(music, f"{store}/one")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: collected(music, f"{store}/both")[0], range(2)))
    assert both[0] == both[1]
    assert both[0].key == one.key
    assert content(both[0].store) == content(one.store)
