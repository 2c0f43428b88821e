"""Pieces that sound like music, background noises, impulse responses: synthesized from a seed.

The project ships no audio: `make demo` and the tests run on these. A piece is composed as notes,
then rendered note by note. Sections return, but no bar is played the same way twice, because a
fingerprint must be able to tell every second of a piece from every other.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator, default_rng

T = TypeVar("T")
VIBRATO = 2 * math.pi * 5.5  # radians a second
MAJOR = (0, 2, 4, 5, 7, 9, 11)  # semitones; the other modes start on its other degrees
PROGRESSIONS = ("0453", "0534", "5304", "0343", "0314", "1403", "0635", "3045")  # degrees
RHYTHMS = ((1,), (0.5, 0.5), (0.75, 0.25), (0.25, 0.25, 0.5), (1 / 3, 1 / 3, 1 / 3), (1.5, 0.5))
OCTAVES = {"lead": 12, "chords": 0, "bass": -24}  # semitones above the tonic of the chords
LEVELS = {"lead": 1.0, "chords": 0.5, "bass": 0.8, "kick": 2.0, "snare": 1.0, "hat": 0.4}


class Timbre(NamedTuple):
    """How an instrument sounds, times in seconds. A depth above 0 selects FM."""

    rolloff: float  # amplitude of harmonic n is n**-rolloff
    attack: float
    release: float
    damp: float = 0.0  # decay of a partial of 220 Hz, in nepers a second; 0 if blown or bowed
    even: float = 1.0  # factor on the even harmonics
    vibrato: float = 0.0  # deviation of the frequency, relative
    chorus: float = 0.0  # detuning between two voices, in semitones; 0 for one voice
    ratio: float = 1.0  # FM: modulator frequency to carrier frequency
    depth: float = 0.0  # FM: modulation index, in radians
    color: tuple[float, ...] = ()  # factor on each harmonic; its length is their number


TIMBRES = {
    "flute": Timbre(2.0, 0.06, 0.1, vibrato=0.006),
    "reed": Timbre(0.9, 0.03, 0.08, even=0.15, vibrato=0.004),
    "violin": Timbre(0.9, 0.08, 0.15, vibrato=0.008),
    "organ": Timbre(1.1, 0.01, 0.05, even=1.5),
    "pad": Timbre(1.2, 0.25, 0.4, chorus=0.15),
    "saw": Timbre(0.9, 0.01, 0.08, chorus=0.1),
    "guitar": Timbre(0.6, 0.003, 0.3, damp=1.5),
    "harp": Timbre(1.1, 0.003, 0.8, damp=1.3),
    "piano": Timbre(0.8, 0.004, 0.2, damp=1.0, chorus=0.02),
    "tine": Timbre(0, 0.004, 0.2, damp=1.3, depth=1.6),
    "brass": Timbre(0, 0.05, 0.06, damp=0.3, vibrato=0.004, depth=2.5),
    "bell": Timbre(0, 0.002, 0.6, damp=1.5, ratio=3.53, depth=1.3),
}
TEXTURES = (  # who plays the lead, the chords and the bass; styles of the chords; drums
    ("violin reed guitar saw", "guitar organ", "guitar", "strum", "rock"),
    ("saw bell brass", "saw pad bell", "saw tine", "arpeggio held", "floor"),
    ("reed brass piano", "piano tine", "guitar", "strum held", "brushes"),
    ("flute violin bell", "pad", "guitar organ", "held", "brushes"),
    ("flute reed violin", "harp pad", "organ harp", "arpeggio held", "none"),
    ("guitar", "guitar", "guitar", "arpeggio strum", "none"),
    ("harp piano", "piano", "piano", "arpeggio", "rock none"),
)
DRUMS: dict[str, dict[str, str]] = {  # chance of a hit, in ninths, on each sixteenth of two beats
    "none": {},
    "rock": {"kick": "90210041", "snare": "00109002", "hat": "91819182"},
    "floor": {"kick": "90009001", "snare": "00018002", "hat": "32933394"},
    "brushes": {"kick": "70011020", "snare": "10115012", "hat": "80148053"},
}
NOISES = (  # per band: lowest and highest Hz, amplitude, swells a second
    ((20, 120, 1.0, 0.3), (80, 500, 0.5, 0.4), (500, 3000, 0.15, 0.7)),  # street
    tuple((150 * 1.6**k, 300 * 1.6**k, 1 / (1 + k), 4) for k in range(6)),  # talk in a cafe
    ((400, 8000, 0.5, 1.0), (1500, 7000, 0.7, 60)),  # rain
    tuple((49 * k, 51 * k, 1 / k, 0.2) for k in range(1, 12)),  # hum of a machine
)


class Note(NamedTuple):
    part: str  # "lead", "chords", "bass", "kick", "snare" or "hat"
    beat: float  # onset in the bar
    beats: float  # duration
    degree: int = 0  # of the scale, 0 for the tonic; drums have none


class Plan:
    """What holds for a whole piece."""

    def __init__(self, seed: int) -> None:
        rng = default_rng((seed, 0))
        *players, styles, drums = (names.split() for names in _pick(rng, TEXTURES))
        self.seed = seed
        self.tempo = rng.uniform(70, 160)  # beats a minute
        self.beats = _pick(rng, (3, 4, 4, 4))  # in a bar
        self.bars = _pick(rng, (2, 4))  # in a section
        self.form = _pick(rng, ("AABA", "ABAB", "AABC", "ABAC", "ABCB"))
        self.tonic = rng.integers(53, 65)  # of the chords, as a MIDI note
        self.mode = _pick(rng, (0, 5, 1, 4))  # major, minor, Dorian or Mixolydian
        self.timbres = {
            part: _player(rng, names) for part, names in zip(OCTAVES, players, strict=True)
        }
        self.levels = {part: level * rng.uniform(0.7, 1.3) for part, level in LEVELS.items()}
        self.style = _pick(rng, styles)
        self.drums = _pick(rng, drums)


def piece(seed: int, seconds: float = 30.0, rate: int = 16_000) -> np.ndarray:
    """One piece of music, float32 of shape (samples,), peak 0.7; the same seed gives the same."""
    plan = Plan(seed)
    rng = default_rng((seed, 1))
    dry = np.zeros(round(seconds * rate), np.float32)
    for start, note in _compose(plan, seconds):
        at = round(start * rate)
        sound = (_tone if note.part in OCTAVES else _drum)(rng, plan, note, rate)
        sound = sound[: max(0, dry.size - at)] * (plan.levels[note.part] * rng.uniform(0.5, 1.0))
        dry[at : at + sound.size] += sound
    return _peaked(dry + rng.uniform(0.1, 0.4) * _convolve(dry, impulse_response(seed, rate)))


def noise(seed: int, seconds: float, rate: int = 16_000) -> np.ndarray:
    """Noise of a street, a cafe, rain or a machine: float32 of shape (samples,), peak 0.7."""
    rng = default_rng((seed, 2))
    mix = 0.02 * rng.standard_normal(round(seconds * rate))
    scale = rng.uniform(0.8, 1.25)
    for low, high, amplitude, swells in _pick(rng, NOISES):
        knots = rng.random(math.ceil(seconds * swells) + 2) ** 2
        swell = np.interp(np.linspace(0, knots.size - 1, mix.size), np.arange(knots.size), knots)
        mix += amplitude * (0.1 + swell) * _band(rng, mix.size, rate, low * scale, high * scale)
    return _peaked(mix)


def impulse_response(seed: int, rate: int = 16_000) -> np.ndarray:
    """A room impulse response: float32 of shape (samples,), unit energy, RT60 of 0.2 to 0.9 s.

    The direct sound is sample 0, so that convolving moves nothing in time.
    """
    rng = default_rng((seed, 3))
    rt60 = rng.uniform(0.25, 0.85)
    t = np.arange(round(rt60 * rate)) / rate
    treble = _band(rng, t.size, rate, 1000, rate / 2) * 10 ** (-t / rt60)  # walls absorb it sooner
    tail = (_band(rng, t.size, rate, 60, 1000) + treble) * 10 ** (-3 * t / rt60)
    tail *= np.minimum(1, t / 0.02)  # until then come the sparse early reflections
    tail *= rng.uniform(0.3, 0.8) / np.linalg.norm(tail)
    delays = rng.uniform(0.002, 0.05, 8)
    tail[(delays * rate).astype(int)] += rng.normal(0, 0.25, 8) * np.exp(-delays / 0.03)
    tail[0] = 1.0
    return (tail / np.linalg.norm(tail)).astype(np.float32)


def _player(rng: Generator, names: Sequence[str]) -> Timbre:
    """One player's own instrument: like the others of its kind, not the same."""
    timbre = TIMBRES[_pick(rng, names)]
    return timbre._replace(
        attack=timbre.attack * rng.uniform(0.7, 1.5),
        damp=timbre.damp * rng.uniform(0.6, 1.6),
        depth=timbre.depth * rng.uniform(0.6, 1.5),
        color=tuple(rng.lognormal(0, 0.5, 16).tolist()),
    )


def _compose(plan: Plan, seconds: float) -> Iterator[tuple[float, Note]]:
    """Each note and its onset in seconds, the same at every sampling rate."""
    rng = default_rng((plan.seed, 4))
    degree = 4
    for bar in range(math.ceil(seconds * plan.tempo / 60 / plan.beats)):
        turn, within = divmod(bar, plan.bars)
        letter = ord(plan.form[turn % len(plan.form)])
        section = default_rng((plan.seed, letter))
        chord = int(_pick(section, PROGRESSIONS)[within])
        resting = _pick(section, ("", "kick", "snare", "hat", "bass"))
        theme = default_rng((plan.seed, letter, within))  # starts again when the section returns
        notes = _melody(rng, theme, plan.beats, chord, degree)
        degree = notes[-1].degree
        notes += _backing(rng, theme, plan, chord)
        notes += _beat(rng, plan, fill=within == plan.bars - 1)
        for note in notes:
            if note.part != resting:
                on_time = (bar * plan.beats + note.beat) * 60 / plan.tempo
                yield max(0.0, on_time + rng.uniform(-0.015, 0.015)), note  # no player is exact


def _rhythm(theme: Generator, beats: int) -> list[tuple[float, float]]:
    """Onsets and durations, in beats, of notes that fill a bar."""
    lengths: list[float] = []
    while (left := beats - round(sum(lengths))) > 0:
        lengths += _pick(theme, [cell for cell in RHYTHMS if round(sum(cell)) <= left])
    return [(sum(lengths[:i]), length) for i, length in enumerate(lengths)]


def _melody(rng: Generator, theme: Generator, beats: int, chord: int, degree: int) -> list[Note]:
    """A bar that walks on from `degree` in steps of the theme, some replaced, some left out."""
    notes: list[Note] = []
    for beat, length in _rhythm(theme, beats):
        step = int(theme.integers(-3, 4))
        degree += int(rng.integers(-4, 5)) if rng.random() < 0.35 else step
        degree += 5 * (degree < -2) - 5 * (degree > 9)
        if beat == 0:  # a bar opens on a chord tone
            degree -= (degree - chord) % 7 % 2
        if beat == 0 or rng.random() < 0.85:
            notes.append(Note("lead", beat, length, degree))
        if length > 0.6 and rng.random() < 0.3:
            notes.append(Note("lead", beat + length - 0.25, 0.25, degree + _pick(rng, (-1, 1))))
    return notes


def _backing(rng: Generator, theme: Generator, plan: Plan, chord: int) -> list[Note]:
    """A bar of bass (the root, then roots, fifths and passing notes) and of chords."""
    spans = [span for span in _rhythm(theme, plan.beats) if span[1] >= 0.5]
    moves = [_pick(rng, (0, 0, 4, 7, 2, -1)) if beat else 0 for beat, _ in spans]
    notes = [Note("bass", *span, chord + move) for span, move in zip(spans, moves, strict=True)]
    tones = [chord, chord + 2, chord + 4, chord + _pick(rng, (-3, 6, 7))]
    if plan.style == "strum":
        strums = _rhythm(_pick(rng, (theme, rng)), plan.beats)  # the theme's rhythm or a new one
        struck = [(span, tone) for span in strums for tone in tones if rng.random() < 0.85]
        return notes + [Note("chords", *span, tone) for span, tone in struck]
    if plan.style == "arpeggio":
        steps = range(2 * plan.beats)
        return notes + [Note("chords", i / 2, 0.5, _pick(rng, tones)) for i in steps]
    for tone in tones:  # held, but each voice moves once, or a slow bar would stand still
        turn = int(rng.integers(1, plan.beats))
        notes.append(Note("chords", 0, turn, tone))
        notes.append(Note("chords", turn, plan.beats - turn, _pick(rng, tones)))
    return notes


def _beat(rng: Generator, plan: Plan, fill: bool) -> list[Note]:
    """The drums of one bar; a fill adds hits on the snare to its second half."""
    notes: list[Note] = []
    for part, ninths in DRUMS[plan.drums].items():
        chances = np.array([int(ninths[i % 8]) / 9 for i in range(4 * plan.beats)])
        if fill and part == "snare":
            chances[2 * plan.beats :] += 0.3
        hits = np.flatnonzero(rng.random(chances.size) < chances)
        notes += [Note(part, hit / 4, 0.25) for hit in hits.tolist()]
    return notes


def _tone(rng: Generator, plan: Plan, note: Note, rate: int) -> np.ndarray:
    """A pitched note with its envelope, float32 of shape (samples,)."""
    timbre = plan.timbres[note.part]
    octave, step = divmod(note.degree + plan.mode, 7)
    pitch = plan.tonic - MAJOR[plan.mode] + MAJOR[step] + 12 * octave + OCTAVES[note.part]
    seconds = note.beats * 60 / plan.tempo + timbre.release
    t = np.arange(round(seconds * rate), dtype=np.float32) / rate
    sound = np.zeros_like(t)
    for detune in (0.0, timbre.chorus) if timbre.chorus else (0.0,):
        hz = 440 * 2 ** ((pitch + detune - 69) / 12)
        cycles = hz * t.astype(np.float64) + rng.random()  # in float32 the pitch would waver
        cycles += hz * timbre.vibrato / VIBRATO * np.sin(VIBRATO * t)
        decay = np.exp(-timbre.damp * math.sqrt(hz / 220) * t)
        sound += (_fm if timbre.depth else _series)(timbre, cycles, decay, int(0.45 * rate / hz))
    return sound * np.minimum(1, t / timbre.attack) * np.minimum(1, (seconds - t) / timbre.release)


def _fm(timbre: Timbre, cycles: np.ndarray, decay: np.ndarray, _highest: int) -> np.ndarray:
    """Two sines, one in the phase of the other, that grow duller as they fade: shape (samples,)."""
    modulator = timbre.depth * decay * np.sin(_radians(timbre.ratio * cycles))
    tone: np.ndarray = decay * np.sin(_radians(cycles) + modulator)
    return tone


def _series(timbre: Timbre, cycles: np.ndarray, decay: np.ndarray, highest: int) -> np.ndarray:
    """Harmonics up to the `highest` below the Nyquist frequency: shape (samples,).

    They are powers of the damped fundamental z, so the higher ones fade sooner, as on a string.
    """
    color = np.array(timbre.color[:highest])
    n = np.arange(1, color.size + 1)
    amplitudes = color * n**-timbre.rolloff * np.where(n % 2, 1, timbre.even)
    angle = _radians(cycles)
    z = decay * (np.cos(angle) + 1j * np.sin(angle))
    total = np.zeros_like(z)
    for amplitude in (amplitudes / np.linalg.norm(amplitudes)).astype(np.float32)[::-1]:
        total = (total + amplitude) * z  # Horner's rule: one sine for all harmonics
    series: np.ndarray = total.imag
    return series


def _radians(cycles: np.ndarray) -> np.ndarray:
    angle: np.ndarray = 2 * np.pi * (cycles - np.floor(cycles))
    return angle.astype(np.float32)


def _drum(rng: Generator, _plan: Plan, note: Note, rate: int) -> np.ndarray:
    """A hit on the kick, the snare or the hat, float32 of shape (samples,)."""
    t = np.arange(rate // 4, dtype=np.float32) / rate
    if note.part == "kick":  # its pitch falls from 150 to 50 Hz
        kick: np.ndarray = np.sin(2 * np.pi * (50 * t - 4 * np.exp(-25 * t))) * np.exp(-12 * t)
        return kick
    hiss = rng.standard_normal(t.size, np.float32)
    if note.part == "snare":
        return (0.6 * hiss + np.sin(2 * np.pi * 185 * t)) * np.exp(-rng.uniform(18, 28) * t)
    return np.diff(hiss, prepend=0) * np.exp(-rng.uniform(30, 80) * t)


def _band(rng: Generator, size: int, rate: int, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies in Hz: shape (size,), RMS 1."""
    spectrum = np.zeros(size // 2 + 1, complex)
    chosen = spectrum[int(low * size / rate) : math.ceil(high * size / rate) + 1]
    chosen[:] = rng.standard_normal(chosen.size) + 1j * rng.standard_normal(chosen.size)
    samples: np.ndarray = np.fft.irfft(spectrum, size)
    samples /= np.sqrt(np.mean(samples**2))
    return samples


def _convolve(dry: np.ndarray, response: np.ndarray) -> np.ndarray:
    size = 1 << (dry.size + response.size).bit_length()
    return np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(response, size), size)[: dry.size]


def _peaked(samples: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = samples * (0.7 / np.abs(samples).max())
    return scaled.astype(np.float32)


def _pick(rng: Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
