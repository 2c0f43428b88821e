"""The background of a model: degraded clips of its validation music, as fingerprints.

    python -m grafp.training.background --model MODEL --music URI --noise URI --rir URI

adds `background.safetensors` to a bundle that has none, or replaces it. `jobs/train.py` does so at
its end. --music must be music that the model is not trained on: of a table or data set with splits
the part that train.py holds out, as train.py chooses it; of a folder all of it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from grafp import storage
from grafp.audio import SAMPLE_RATE
from grafp.audio.degrade import random_clip
from grafp.datasets import Kind, list_part, waveforms
from grafp.errors import GrafpError, OptionError
from grafp.index.alignment import align
from grafp.index.background import BackgroundSearch
from grafp.index.calibration import fit_law
from grafp.index.evidence import against, reached
from grafp.model.background import (
    CLIP_SECONDS,
    FILE,
    LENGTHS_S,
    Background,
    background_to_bytes,
)
from grafp.model.bundle import load_bundle
from grafp.model.fingerprint import HOP_SECONDS
from grafp.model.inference import Fingerprinter
from grafp.option_values import Uri
from grafp.options import parse, refuse, tell
from grafp.storage.sources import Item
from grafp.training.config import TrainConfig
from grafp.training.data.prepare import validation_groups

CLIPS = 200
"""In all: 23 kB each."""
_SNR_DB = (0.0, 20.0)
_REVERB = 0.5
_LONGEST = round(CLIP_SECONDS * SAMPLE_RATE)
_REFERENCE = 30 * SAMPLE_RATE  # of each track, samples
_STEADY = 12 * SAMPLE_RATE  # of a sound that is no music
_CHORD = 2 * SAMPLE_RATE  # of each of six different ones


def make_background(
    tracks: Sequence[np.ndarray],
    noises: Sequence[np.ndarray],
    rirs: Sequence[np.ndarray],
    fingerprinter: Fingerprinter,
    *,
    clips: int = CLIPS,
    seed: int = 0,
) -> Background | None:
    """Cut and degrade clips of 10 s, from all tracks alike, and fingerprint them.

    Half of them are reverberant, all have noise at 0 to 20 dB, as far as there are impulse
    responses and noises. None if fewer than two tracks are long enough.

    Args:
        tracks, noises, rirs: int16 waveforms (samples,), 16 kHz.
    """
    random = np.random.default_rng(seed)
    usable = [track_S for track_S in tracks if len(track_S) >= _LONGEST]
    if len(usable) < 2:
        return None
    track_N = np.resize(np.arange(len(usable), dtype=np.int32), clips)
    vectors = []
    for number in track_N:
        clip_S = random_clip(
            usable[number], CLIP_SECONDS, noises, rirs, random, snr_db=_SNR_DB, reverb=_REVERB
        )
        vectors.append(fingerprinter(clip_S).astype(np.float16))
    references = [fingerprinter(_middle(track_S)).astype(np.float16) for track_S in usable]
    references += [fingerprinter(sound_S).astype(np.float16) for sound_S in steady_sounds(seed)]
    counts_T = np.array([len(part) for part in references], np.int32)
    nothing = np.zeros(0, np.float32), np.zeros((len(LENGTHS_S), 2), np.float32)
    made = Background(np.stack(vectors), track_N, np.concatenate(references), counts_T, *nothing)
    return _with_scores(made)


def _middle(track_S: np.ndarray) -> np.ndarray:
    """float32 samples of up to half a minute."""
    first = max(0, (len(track_S) - _REFERENCE) // 2)
    return track_S[first : first + _REFERENCE].astype(np.float32) / 32768


def _with_scores(background: Background) -> Background:
    """What its clips reach in the excerpts of other tracks, and in one other excerpt alone."""
    excerpts = np.split(background.references_RD, np.cumsum(background.counts_T)[:-1])
    tracks = range(background.tracks)
    others = [BackgroundSearch.of(background, HOP_SECONDS, without=track) for track in tracks]
    beside, laws = [], []
    for seconds in LENGTHS_S:
        clip_Q, queries = background.queries(seconds, HOP_SECONDS)
        beside_Q, score_Q = np.zeros(len(queries), np.float32), np.zeros(len(queries))
        for track in tracks:
            mine = np.flatnonzero(background.track_N[clip_Q] == track)
            found = reached([queries[q] for q in mine], others[track])
            beside_Q[mine] = [one.score for one in found]
            # Not the next track, which may be of the same album.
            other_ND = excerpts[(track + len(tracks) // 2) % len(tracks)].astype(np.float32)
            matches = [align(queries[q], other_ND) for q in mine]
            score_Q[mine] = [match.rank_score if match else 0.0 for match in matches]
        law = fit_law(score_Q - [against(score) for score in beside_Q.tolist()])
        beside.append(beside_Q)
        laws.append((law.location, law.scale))
    alone_L2 = np.array(laws, np.float32)
    return replace(background, beside_Q=np.concatenate(beside), alone_L2=alone_L2)


def steady_sounds(seed: int) -> list[np.ndarray]:
    """Hum, tones and noise, which resemble a held note or the silence between two tracks.

    Returns float32 waveforms (samples,) of 12 s, 16 kHz.
    """
    random = np.random.default_rng([seed, 1])
    return [
        *(_hum(random, base) for base in (50.0, 60.0) for _ in range(8)),
        *(_tones(random) for _ in range(32)),
        *(np.concatenate([_tones(random)[:_CHORD] for _ in range(6)]) for _ in range(32)),
        *(_hiss(random, slope) for slope in (0.0, 0.5, 1.0) for _ in range(3)),
    ]


def _hum(random: np.random.Generator, base: float) -> np.ndarray:
    """Mains hum: a base frequency in Hz, some of its harmonics, and faint noise."""
    time_S = np.arange(_STEADY) / SAMPLE_RATE
    sound_S = random.normal(0.0, 10 ** random.uniform(-4, -2), _STEADY)
    fall = random.uniform(0.3, 2.0)
    for harmonic in range(1, int(random.integers(2, 20))):
        phase, level = random.uniform(0, 2 * np.pi), random.uniform(0.3, 1.0)
        sound_S += (
            0.03 * level / harmonic**fall * np.sin(2 * np.pi * base * harmonic * time_S + phase)
        )
    return sound_S.astype(np.float32)


def _tones(random: np.random.Generator) -> np.ndarray:
    """One to five tones from 60 Hz to 6 kHz, half of them interrupted."""
    time_S = np.arange(_STEADY) / SAMPLE_RATE
    sound_S = random.normal(0.0, 1e-4, _STEADY)
    for _ in range(int(random.integers(1, 6))):
        tone_S = np.sin(2 * np.pi * 60 * 100 ** random.random() * time_S)
        if random.random() < 0.5:
            tone_S *= (time_S * random.uniform(0.3, 3.0) + random.random()) % 1 < 0.6
        sound_S += 0.1 * tone_S
    return sound_S.astype(np.float32)


def _hiss(random: np.random.Generator, slope: float) -> np.ndarray:
    """Noise whose amplitude falls with a power of the frequency: white, pink, brown."""
    spectrum_F = np.fft.rfft(random.normal(0.0, 1.0, _STEADY))
    spectrum_F[1:] /= np.arange(1, len(spectrum_F)) ** slope
    sound_S = np.fft.irfft(spectrum_F, _STEADY)
    hiss_S: np.ndarray = 10 ** random.uniform(-3, -1) * sound_S / sound_S.std()
    return hiss_S.astype(np.float32)


@dataclass(kw_only=True)
class Options:
    model: Uri
    """The model: a folder or prefix with a bundle."""
    music: Uri
    """Music that the model is not trained on; of a table or data set with splits, the part that
    train.py holds out."""
    noise: Uri
    """Background noise, like --music."""
    rir: Uri
    """Impulse responses (RIRs), like --music."""


def main(arguments: list[str] | None = None) -> int:
    """The command line above."""
    chosen = parse(Options, __doc__, arguments, prog="python -m grafp.training.background")
    try:
        if storage.stat(storage.join(chosen.model, "card.json")) is None:
            raise OptionError(f"--model {chosen.model}: not a folder or prefix with a model bundle")
        bundle = load_bundle(chosen.model)
        share = bundle.card.get("training", {}).get("held_out", TrainConfig.held_out)
        uris: dict[Kind, str] = {"music": chosen.music, "noise": chosen.noise, "rir": chosen.rir}
        music, noises, rirs = (
            waveforms(_validation(what, uri, share), _tell) for what, uri in uris.items()
        )
        made = make_background(music, noises, rirs, Fingerprinter.from_encoder(bundle.encoder))
        if made is None:
            raise OptionError(
                f"--music {chosen.music}: fewer than two recordings of {CLIP_SECONDS:g} s"
            )
        uri = storage.join(chosen.model, FILE)
        storage.write(uri, background_to_bytes(made, bundle.sha256))
    except OptionError as error:
        refuse(str(error))
    except GrafpError as error:
        tell(str(error))
        return 1
    print(f"{len(made.clips_NMD)} clips of {len(set(made.track_N.tolist()))} tracks: {uri}")
    return 0


def _validation(what: Kind, uri: str, share: float) -> list[Item]:
    """What train.py holds out with this share; all music that has no splits.

    Where it holds out no noise or impulse response, all that it trains with, as in its validation.
    """
    items = list_part(what, uri, "train")
    if not any(item.row.get("split") for item in items):
        return items
    marked = {item.group for item in items if item.row.get("split") == "validation"}
    held = validation_groups({item.group for item in items}, marked, share)
    chosen = [item for item in items if item.group in held]
    return chosen if what == "music" else chosen or items


def _tell(line: str) -> None:
    print(line.strip(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
