#!/usr/bin/env python3
"""Enlarge a corpus of game music for training: whole tracks, and noise made of voices.

    python benchmarks/training_audio.py --corpus CORPUS --packages DIR --out DIR
    python jobs/train.py --music OUT/music.csv --noise OUT/noise.csv --rir CORPUS/rir.csv ...

CORPUS holds music.csv, noise.csv and rir.csv with the columns path, split and group; music.csv
names the Debian package of each track. PACKAGES holds these packages, unpacked into folders of
their names, and packages of speech (VOICES below). Written are

- music.csv: the training tracks, in full where the package's file was found by its name;
- noise.csv: the training noises, and as many mixes of 1 to 12 voices, half of them reverberant.

Voices set apart for validation never meet others in a mix. None of the speech packages may have
served for the corpus's own noise: test noise must stay unheard.
"""

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from grafp.audio import SAMPLE_RATE, decode, encode
from grafp.errors import AudioError
from grafp.storage.sources import Item, held_out, read_table

VOICES = ("klettres-data", "fillets-ng-data-cs", "fillets-ng-data-nl")
MUSIC_FILES = {".ogg", ".opus", ".mp3", ".flac", ".wav", ".m4a", ".oga"}
MIX_SECONDS = 20


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("corpus", "packages", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path, metavar="DIR")
    parser.add_argument("--mixes", type=int, default=400, help="mixes of voices to make")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> None:
    (chosen.out / "voices").mkdir(parents=True, exist_ok=True)
    tracks = _training_rows(chosen.corpus / "music.csv")
    whole = 0
    for row in tracks:
        found = _original(chosen.packages / row["package"], Path(row["path"]).stem)
        whole += found is not None
        row["path"] = str((found or chosen.corpus / row["path"]).resolve())
    once = {row["path"]: row for row in tracks}  # two tracks can be parts of one file
    _write(chosen.out / "music.csv", list(once.values()))
    print(f"{whole} of {len(tracks)} tracks whole")

    noises = _training_rows(chosen.corpus / "noise.csv")
    for row in noises:
        row["path"] = str((chosen.corpus / row["path"]).resolve())
    rirs = [chosen.corpus / row["path"] for row in _training_rows(chosen.corpus / "rir.csv")]
    rng = np.random.default_rng(0)
    for number, (speaker, mix) in enumerate(_mixes(chosen.packages, rirs, chosen.mixes, rng)):
        path = chosen.out / "voices" / f"{number:04d}.flac"
        path.write_bytes(encode(mix, "flac"))
        noises.append({"path": str(path.resolve()), "split": "train", "group": speaker})
    _write(chosen.out / "noise.csv", noises)


def _original(package: Path, name: str) -> Path | None:
    """The one file of a package whose path ends like this name; of several, the longest."""
    name = _plain(name)
    fits = [
        path
        for path in sorted(package.rglob("*"))
        if path.suffix.lower() in MUSIC_FILES
        and path.stat().st_size > 200_000
        and (_plain(str(path.with_suffix(""))).endswith(name) or name.endswith(_plain(path.stem)))
    ]
    longest = max((len(_plain(path.stem)) for path in fits), default=0)
    fits = [path for path in fits if len(_plain(path.stem)) == longest]
    return fits[0] if len(fits) == 1 else None


def _mixes(
    packages: Path, rirs: list[Path], count: int, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """(one of its speakers, mixed voices); those held out mix among themselves."""
    speakers = _speakers(packages)
    sides: dict[bool, list[str]] = {False: [], True: []}
    for speaker in sorted(speakers):
        sides[held_out(Item(speaker, speaker, None, {"group": speaker}))].append(speaker)
    print(f"{len(sides[False])} voices for training, {len(sides[True])} for validation")
    for number in range(count):
        side = sides[number % 8 == 0 and bool(sides[True])]
        talkers = rng.choice(side, size=int(rng.integers(1, 13)))
        mix = sum(_talk(speakers[name], rng) * 10 ** rng.uniform(-0.3, 0) for name in talkers)
        if rirs and rng.random() < 0.5:
            response = decode(
                rirs[int(rng.integers(len(rirs)))].read_bytes(), min_seconds=0, allow_silent=True
            )
            size = len(mix) + len(response)
            mix = np.fft.irfft(np.fft.rfft(mix, size) * np.fft.rfft(response, size), size)
            mix = mix[: MIX_SECONDS * SAMPLE_RATE]
        yield str(talkers[0]), (0.5 * mix / np.abs(mix).max()).astype(np.float32)


def _speakers(packages: Path) -> dict[str, list[np.ndarray]]:
    """Utterances by speaker: klettres has one for each language, fillets one for each film."""
    speakers = defaultdict(list)
    files = [path for name in VOICES for path in sorted((packages / name).rglob("*.ogg"))]
    for path in files:
        package = path.relative_to(packages).parts[0]
        language = path.parts[-3] if package == "klettres-data" else package
        try:
            utterance = decode(path.read_bytes(), min_seconds=0.2)
        except AudioError as error:
            print(f"  left out: {path.name}: {error}")
            continue
        loud = np.flatnonzero(np.abs(utterance) > 0.05 * np.abs(utterance).max())
        utterance = utterance[loud[0] : loud[-1] + 1]
        speakers[language].append(utterance / np.sqrt(np.mean(utterance**2)))
    return speakers


def _talk(utterances: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One voice talking, a little faster or slower than it was recorded, with pauses."""
    wanted, parts, length = MIX_SECONDS * SAMPLE_RATE, [], 0
    speed = rng.uniform(0.85, 1.2)
    while length < wanted:
        spoken = utterances[int(rng.integers(len(utterances)))]
        at = np.arange(0, len(spoken) - 1, speed)
        parts += [np.interp(at, np.arange(len(spoken)), spoken)]
        parts += [np.zeros(int(rng.exponential(0.15) * SAMPLE_RATE))]
        length += len(parts[-1]) + len(parts[-2])
    return np.roll(np.concatenate(parts), int(rng.integers(length)))[:wanted]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _training_rows(table: Path) -> list[dict[str, str]]:
    return [row for row in read_table(str(table)) if row["split"] == "train"]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "split", "group"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(options())
