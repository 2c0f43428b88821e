"""The settings of a training run: its length, batch and rates, and its augmentation."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from grafp.errors import OptionError, TrainingError
from grafp.model.registry import registered_names

PRESET_NAMES = (  # of grafp.model.presets, which imports PyTorch
    "small",
    "grafprint",
    "grafprint-readout",
    "grafprint-s",
    "grafprint-m",
    "grafprint-b",
    "nafp",
    "ast",
    "ast-published",
    "ast-small",
)
OPTIMIZERS = ("adamw", "adam")


def preset_names() -> list[str]:
    """What `preset` may be: our own names, and those that installed packages register."""
    return [*PRESET_NAMES, *registered_names()]


Range = tuple[float, float]
ORDERS = ("room-noise", "noise-room")
_BOUNDS = {
    "snr_db": (-60, 100),
    "speed_percent": (-10, 10),  # FUTURE_SAMPLES is enough for it
    "pitch_semitones": (-4, 4),
    "response_db": (-30, 30),
    "low_cut_hz": (1, 2000),
    "high_cut_hz": (2000, 8000),
    "drive_db": (0, 40),
    "codec_kbps": (8, 160),  # what mp3 has at 16 kHz
    "mask_percent": (0, 50),
}


@dataclass(frozen=True)
class AugmentConfig:
    """How one view of each pair is degraded.

    Numbers are probabilities per clip, 0 to 1; of a range, a value is drawn uniformly for each
    clip.

    Raises TrainingError naming the field whose value cannot work.
    """

    reverb: float = 0.75
    """Probability of reverberation: convolution with an impulse response."""
    dry_past: float = 0.3
    """Probability that a reverberant clip starts from silence, without the reverberation of the
    music before it."""
    noise: float = 0.97
    """Probability of background noise."""
    second_noise: float = 0.3
    """Probability that the noise is a mix of two recordings."""
    music_noise: float = 0.15
    """Probability that the noise is other music, backwards, which changes as fast as voices do."""
    snr_db: Range = (-4.0, 18.0)
    """Signal-to-noise ratio, dB."""
    order: str = "room-noise"
    """Order of reverberation and noise: room-noise adds noise that is not reverberant; noise-room
    makes the noise reverberant too, as NAFP and NMFP do."""
    speed: float = 0.0
    """Probability of another speed, which changes tempo and pitch together."""
    speed_percent: Range = (-3.0, 3.0)
    """Change of speed, percent."""
    pitch: float = 0.0
    """Probability of another pitch at the same tempo; all such clips of a batch share one pitch."""
    pitch_semitones: Range = (-1.0, 1.0)
    """Change of pitch, semitones."""
    loudspeaker: float = 0.0
    """Probability of a loudspeaker's frequency response, before reverberation and noise."""
    microphone: float = 0.0
    """Probability of a microphone's frequency response, after reverberation and noise."""
    response_db: Range = (-8.0, 8.0)
    """Gain of each band of a loudspeaker or microphone, dB."""
    low_cut_hz: Range = (30.0, 400.0)
    """Frequency below which a loudspeaker or microphone falls off, Hz."""
    high_cut_hz: Range = (4000.0, 8000.0)
    """Frequency above which a loudspeaker or microphone falls off, Hz."""
    drive: float = 0.0
    """Probability of an overdriven microphone amplifier; half of them clip hard, half softly."""
    drive_db: Range = (0.0, 20.0)
    """Level of the loudest sample before clipping, dB above full scale."""
    codec: float = 0.0
    """Probability of a low-rate codec at the end, mp3 or Opus; it runs on the CPU."""
    codec_kbps: Range = (24.0, 64.0)
    """Bit rate of the codec, kbit/s."""
    time_mask: float = 0.0
    """Probability of a stripe of silence in the spectrogram, over all frequencies."""
    frequency_mask: float = 0.0
    """Probability of a stripe of silence in the spectrogram, over all times."""
    mask_percent: Range = (3.0, 20.0)
    """Width of a stripe, percent of the spectrogram's."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value, default = getattr(self, one.name), one.default
            if isinstance(default, tuple):
                lowest, highest = _BOUNDS[one.name]
                if len(value) != 2 or not lowest <= value[0] <= value[1] <= highest:
                    raise TrainingError(
                        f"{one.name}: {value} is not a range, lower end first, "
                        f"within {lowest} to {highest}"
                    )
            elif isinstance(default, float) and not 0 <= value <= 1:
                raise TrainingError(f"{one.name}: {value} is not a probability, 0 to 1")
        if self.order not in ORDERS:
            raise TrainingError(f"order: {self.order!r} is not one of {', '.join(ORDERS)}")

    @classmethod
    def from_settings(
        cls, settings: Iterable[str], base: "AugmentConfig | None" = None
    ) -> "AugmentConfig":
        """`base`, or the defaults, with settings such as codec=0.2, snr_db=0:20, order=noise-room.

        Raises OptionError, which names --augment, the setting and what would be right.
        """
        try:
            return replace(base or cls(), **dict(_parse(setting) for setting in settings))
        except TrainingError as error:
            raise OptionError(f"--augment {error}") from None


def _parse(setting: str) -> tuple[str, Any]:
    name, _, text = setting.partition("=")
    defaults = {one.name: one.default for one in fields(AugmentConfig)}
    if name not in defaults:
        raise OptionError(
            f"--augment {setting}: no setting {name!r}; choose one of {', '.join(defaults)}"
        )
    if isinstance(defaults[name], str):
        return name, text
    try:
        numbers = tuple(float(part) for part in text.split(":"))
    except ValueError:
        numbers = ()
    if isinstance(defaults[name], tuple):
        if len(numbers) == 2:
            return name, numbers
        raise OptionError(f"--augment {setting}: give a range LOW:HIGH, such as {name}=1:5")
    if len(numbers) == 1:
        return name, numbers[0]
    raise OptionError(f"--augment {setting}: give a probability, such as {name}=0.2")


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of a training run, stored in the model's card.

    Raises TrainingError when a value cannot work.
    """

    recipe: str = "grafp"
    """Recipe that the settings come from, unless they were given; one of `RECIPES`."""
    preset: str = "small"
    """Architecture: the graph network of the paper (grafprint; larger: grafprint-s, -m, -b), the
    same with a head that knows where each node lies (grafprint-readout), a smaller one for CPUs
    (small), or a baseline of the paper: a convolutional network (nafp), a transformer (ast; as its
    authors trained it: ast-published; smaller: ast-small); or the name of an encoder that an
    installed package registers. With --recipe grafp, baselines learn at
    lower rates: about 2e-4 for ast, 3e-4 for the others."""
    steps: int | None = None
    """Length of training, optimizer steps; either this, `epochs` or `minutes`."""
    epochs: int | None = None
    """Length of training: each track of the training part is used so many times, `per_track`
    segments each time, on average. When the tracks are known, `steps` is set from it."""
    minutes: float | None = None
    """Length of training, minutes."""
    pairs: int = 128
    """Positive pairs in a batch, per worker."""
    accumulate: int = 1
    """Parts in which a worker embeds its batch, to save memory; negatives come from all of it. More
    than 1 costs another forward pass."""
    per_track: int = 2
    """Neighboring segments of one track in a batch, negatives of each other."""
    offset_ms: float = 50.0
    """Largest shift in time between the two views of a pair, either way, 0 to 250 ms; see Fig. 2 of
    the paper."""
    optimizer: str = "adamw"
    """Optimizer: adamw or adam."""
    learning_rate: float = 1e-3
    """Peak of the learning rate."""
    final_learning_rate: float = 0.0
    """Learning rate at the end, to which a cosine lowers it."""
    warm_up: float = 0.02
    """Share of the run in which the learning rate rises to its peak, 0 to 1; 0: it starts there."""
    weight_decay: float = 0.01
    """Weight decay, of matrices alone; with adam it is added to the gradient."""
    clip: float = 1.0
    """Largest norm of the gradient, which is clipped to it; 0: never clipped."""
    temperature: float = 0.05
    """Temperature tau of the NT-Xent loss (paper, eq. 5)."""
    held_out: float = 0.1
    """Share of the groups of music, noise and impulse responses that is kept for validation, 0 to
    0.5, where no recording has the split `validation`; 0: no validation, and the model is that of
    the last step."""
    validate_every: int = 500
    """Steps between two validations."""
    log_every: int = 20
    """Steps between two lines of progress."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""
    compile: bool = False
    """Train with torch.compile: minutes of compiling first; slower on CPUs."""
    seed: int = 0
    """Seed of weights, batches and augmentation."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How one view of each pair is degraded."""

    def __post_init__(self) -> None:
        if self.preset not in (presets := preset_names()):
            raise TrainingError(f"no preset {self.preset!r}; choose one of {', '.join(presets)}")
        lengths = [one for one in (self.steps, self.epochs, self.minutes) if one is not None]
        counted = self.steps is not None or self.epochs is not None
        if counted == (self.minutes is not None) or min(lengths) <= 0:
            raise TrainingError("give a length above 0: one of steps, epochs and minutes")
        if not 1 <= self.accumulate <= self.pairs:
            raise TrainingError(f"{self.pairs} pairs cannot be cut into {self.accumulate} parts")
        if self.optimizer not in OPTIMIZERS:
            names = " or ".join(OPTIMIZERS)
            raise TrainingError(f"no optimizer {self.optimizer!r}; choose {names}")
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise TrainingError(
                f"final_learning_rate: {self.final_learning_rate:g} is not within 0 to the "
                f"learning rate, {self.learning_rate:g}"
            )
        if not self.temperature > 0:
            raise TrainingError(f"temperature: {self.temperature:g} is not above 0")
        for name, most in {
            "warm_up": 1,
            "weight_decay": 1,
            "clip": math.inf,
            "held_out": 0.5,
        }.items():
            if not 0 <= getattr(self, name) <= most:
                raise TrainingError(f"{name}: {getattr(self, name)} is not within 0 to {most}")

    def for_tracks(self, tracks: int, workers: int) -> "TrainConfig":
        """The same with the number of steps that its epochs take, if they are its length.

        In an epoch, `tracks` x `per_track` segments are drawn, and a step draws `pairs` for each of
        `workers`.
        """
        if self.epochs is None:
            return self
        segments = self.epochs * tracks * self.per_track
        return replace(self, steps=math.ceil(segments / (self.pairs * workers)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; tuples become lists there."""
        return asdict(self)
