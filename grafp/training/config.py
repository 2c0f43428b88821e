"""The settings of a training run: its length, batch and rates, and its augmentation."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from grafp.errors import OptionError, TrainingError
from grafp.model.registry import registered_names

Preset = Literal["small", "grafprint", "nafp", "ast", "ast-small"]  # names of grafp.model.presets
PRESET_NAMES: tuple[str, ...] = get_args(Preset)


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
    def from_settings(cls, settings: Iterable[str]) -> "AugmentConfig":
        """The defaults with settings such as codec=0.2, snr_db=0:20 and order=noise-room.

        Raises OptionError, which names --augment, the setting and what would be right.
        """
        try:
            return cls(**dict(_parse(setting) for setting in settings))
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

    preset: str = "small"
    """Architecture: the graph network of the paper (grafprint), a smaller one for CPUs (small), or
    a baseline of the paper: a convolutional network (nafp), a transformer (ast) or a smaller one
    (ast-small); or the name of an encoder that an installed package registers. Baselines learn at
    lower rates: about 2e-4 for ast, 3e-4 for the others."""
    steps: int | None = None
    """Length of training, optimizer steps; either this or `minutes`."""
    minutes: float | None = None
    """Length of training, minutes; either this or `steps`."""
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
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate."""
    weight_decay: float = 0.01
    """AdamW's weight decay, of matrices alone."""
    warm_up: float = 0.02
    """Share of the run in which the learning rate rises, 0 to 1; a cosine then lowers it to 0."""
    temperature: float = 0.05
    """Temperature tau of the NT-Xent loss (paper, eq. 5)."""
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
        if self.preset not in (names := preset_names()):
            raise TrainingError(f"no preset {self.preset!r}; choose one of {', '.join(names)}")
        if (self.steps is None) == (self.minutes is None) or (self.steps or self.minutes or 0) <= 0:
            raise TrainingError("give a length above 0: either steps or minutes")
        if not 1 <= self.accumulate <= self.pairs:
            raise TrainingError(f"{self.pairs} pairs cannot be cut into {self.accumulate} parts")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; tuples become lists there."""
        return asdict(self)
