"""The background that training makes of its validation music."""

import csv
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from grafp import storage
from grafp.audio import encode, synthesis, to_pcm
from grafp.model.background import FILE, LENGTHS_S, Background, parse_background
from grafp.model.bundle import load_bundle, read_background, read_card, save_bundle
from grafp.model.inference import Fingerprinter
from grafp.training.background import main, make_background, steady_sounds

pytestmark = pytest.mark.usefixtures("short_sounds")

SECOND = 16_000
CLIPS = 6


@pytest.fixture(scope="module")
def fingerprinter() -> Fingerprinter:
    return Fingerprinter.from_encoder(load_bundle("small").encoder)


@pytest.fixture(scope="module")
def tracks() -> list[np.ndarray]:
    """Two tracks of 12 and 14 s, and between them one that is too short."""
    return [to_pcm(synthesis.piece(seed, s)) for seed, s in ((0, 12.0), (1, 9.9), (2, 14.0))]


@pytest.fixture(scope="module")
def noises() -> list[np.ndarray]:
    return [to_pcm(synthesis.noise(seed, 3.0)) for seed in range(2)]


def made(
    tracks: list[np.ndarray], noises: list[np.ndarray], fingerprinter: Fingerprinter, seed: int = 0
) -> Background:
    rirs = [to_pcm(synthesis.impulse_response(1))]
    background = make_background(tracks, noises, rirs, fingerprinter, clips=CLIPS, seed=seed)
    assert background is not None
    return background


@pytest.fixture(scope="module")
def background(
    tracks: list[np.ndarray], noises: list[np.ndarray], fingerprinter: Fingerprinter
) -> Background:
    return made(tracks, noises, fingerprinter)


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    assert np.linalg.norm(vectors, axis=-1) == pytest.approx(1.0, abs=2e-3)
    return vectors


def test_all_long_tracks_have_clips_and_an_excerpt(background: Background) -> None:
    assert background.clips_NMD.shape == (CLIPS, 91, 128)
    assert background.track_N.tolist() == [0, 1, 0, 1, 0, 1]
    sounds = [1] * len(steady_sounds(0))
    assert background.counts_T.tolist() == [111, 131, *sounds]
    assert background.references_RD.shape == (242 + sum(sounds), 128)
    assert background.beside_Q.shape == ((5 + 5 + 3 + 2 + 1) * CLIPS,)
    assert background.alone_L2.shape == (len(LENGTHS_S), 2)
    assert (background.alone_L2[:, 1] > 0).all()
    unit(background.clips_NMD)
    unit(background.references_RD)


def test_a_clip_is_a_degraded_part_of_its_track(background: Background) -> None:
    excerpts = np.split(unit(background.references_RD), [111])
    for clip_MD, track in zip(unit(background.clips_NMD), background.track_N, strict=True):
        scores = [
            max((clip_MD * part[n : n + 91]).sum(1).mean() for n in range(len(part) - 90))
            for part in excerpts
        ]
        assert scores[track] > scores[1 - track] + 0.1
        assert scores[track] < 0.999


def test_what_clips_reach_is_of_other_tracks(background: Background) -> None:
    """The longest queries lie at one place only, so that all of it is known."""
    [one, other] = np.split(unit(background.references_RD), [111])
    for seconds in LENGTHS_S:
        beside_Q = background.beside(seconds)
        assert (beside_Q >= 0).all()
        assert (beside_Q < 0.9).all()
    for clip_MD, track, beside in zip(
        unit(background.clips_NMD), background.track_N, background.beside(10.0), strict=True
    ):
        others = other if track == 0 else one
        plain = max((clip_MD * others[n : n + 91]).sum(1).mean() for n in range(len(others) - 90))
        assert beside > plain - 0.02


@pytest.mark.slow
def test_the_seed_decides(
    background: Background,
    tracks: list[np.ndarray],
    noises: list[np.ndarray],
    fingerprinter: Fingerprinter,
) -> None:
    again, other = (made(tracks, noises, fingerprinter, seed) for seed in (0, 1))
    for field in fields(Background):
        same = getattr(again, field.name)
        assert np.array_equal(same, getattr(background, field.name))
    assert not np.array_equal(other.clips_NMD, background.clips_NMD)


def test_without_noise_and_rooms_clips_are_clean(
    tracks: list[np.ndarray], fingerprinter: Fingerprinter
) -> None:
    background = make_background(tracks, [], [], fingerprinter, clips=2)
    assert background is not None
    excerpts = np.split(unit(background.references_RD), [111])
    for clip_MD, part in zip(unit(background.clips_NMD), excerpts, strict=True):
        best = max((clip_MD * part[n : n + 91]).sum(1).mean() for n in range(len(part) - 90))
        assert best > 0.9


def test_fewer_than_two_long_tracks_make_none(
    tracks: list[np.ndarray], noises: list[np.ndarray], fingerprinter: Fingerprinter
) -> None:
    for few in ([], tracks[:1], tracks[:2]):
        assert make_background(few, noises, [], fingerprinter, clips=2) is None


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music in a folder and in a table with splits, noise, impulse responses, and a bundle."""
    folder = tmp_path_factory.mktemp("background")
    rows = [["path", "split"]]
    for seed, split in enumerate(("train", "validation", "test", "validation")):
        piece_S = synthesis.piece(seed, 11.0)
        storage.write(f"{folder}/music/{seed}.flac", encode(piece_S, "flac"))
        rows.append([f"music/{seed}.flac", split])
    for name, some in (("splits", rows), ("one", rows[:3])):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(some)
    for seed in range(3):
        storage.write(f"{folder}/noise/{seed}.wav", encode(synthesis.noise(seed, 2.0), "wav"))
        data = encode(synthesis.impulse_response(seed), "wav")
        storage.write(f"{folder}/rirs/{seed}.wav", data)
    storage.write(f"{folder}/short/1.wav", encode(synthesis.piece(1, 3.0), "wav"))
    save_bundle(f"{folder}/model", load_bundle("small").encoder, {"preset": "mine"})
    return folder


def words(corpus: Path, **others: str) -> list[str]:
    named = {"model": "model", "music": "music", "noise": "noise", "rir": "rirs"} | others
    return [part for name, value in named.items() for part in (f"--{name}", str(corpus / value))]


@pytest.mark.parametrize(("music", "count"), [("music", 4), ("splits.csv", 2)])
def test_the_command_adds_it_to_a_bundle(
    music: str, count: int, corpus: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(make_background, "__kwdefaults__", {"clips": 8, "seed": 0})
    before = read_card(str(corpus / "model")).model_id
    assert main(words(corpus, music=music)) == 0
    uri = corpus / "model" / FILE
    assert capsys.readouterr().out.splitlines()[-1] == f"8 clips of {count} tracks: {uri}"
    card, data = read_card(str(corpus / "model")), read_background(str(corpus / "model"))
    assert card.model_id == before
    assert data is not None
    made = parse_background(data, card.sha256, "mine")
    assert len(made.counts_T) == count + len(steady_sounds(0))


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"model": "nowhere"}, "nowhere: not a folder or prefix with a model bundle"),
        ({"music": "nowhere"}, "nowhere"),
        ({"noise": "nowhere"}, "nowhere"),
        ({"music": "short"}, "fewer than two recordings of 10 s"),
        ({"music": "one.csv"}, "fewer than two recordings of 10 s"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    others: dict[str, str], told: str, corpus: Path, capsys: pytest.CaptureFixture
) -> None:
    try:
        code = main(words(corpus, **others))
    except SystemExit as stopped:  # a wrong option
        code = stopped.code
    assert code in (1, 2)
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert told in shown.err
    assert shown.err.count("\n") == 1


def test_a_shipped_model_is_refused_by_its_name(
    corpus: Path, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the file would lie in a folder `small` that has no bundle."""
    monkeypatch.chdir(tmp_path)
    arguments = words(corpus)
    arguments[1] = "small"
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error: --model small: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_cannot_be_read_is_left_out_by_name(
    corpus: Path, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_background, "__kwdefaults__", {"clips": 2, "seed": 0})
    for seed in range(2):
        (tmp_path / f"{seed}.flac").write_bytes((corpus / "music" / f"{seed}.flac").read_bytes())
    (tmp_path / "broken.mp3").write_bytes(b"this is not music\n" * 50)
    assert main(words(corpus, music=str(tmp_path))) == 0
    shown = capsys.readouterr()
    assert "broken.mp3" in shown.err
    assert shown.err.count("\n") == 1
