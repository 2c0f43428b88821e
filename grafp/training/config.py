"""The settings of a training run: its length, batch and rates, and its augmentation."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from grafp.errors import OptionError, TrainingError

Preset = Literal["small", "grafprint", "nafp", "ast", "ast-small"]  # names of grafp.model.presets
PRESET_NAMES: tuple[str, ...] = get_args(Preset)
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
    """Numbers are probabilities per clip; ranges are drawn from uniformly, per clip.

    Raises TrainingError naming the field whose value cannot work.
    """

    reverb: float = 0.75
    """Probability of a room."""
    dry_past: float = 0.3
    """Probability that a reverberant clip starts from silence, as one cut before it was played."""
    noise: float = 0.97
    """Probability of background noise."""
    second_noise: float = 0.3
    """Probability that the noise is two recordings mixed."""
    music_noise: float = 0.15
    """Probability that other music, backwards, is the noise: it moves as voices do."""
    snr_db: Range = (-4.0, 18.0)
    """The signal-to-noise ratio, dB."""
    order: str = "room-noise"
    """What comes first; "noise-room": the noise is heard in the room too, as NAFP and NMFP do."""
    speed: float = 0.0
    """Probability of another speed, tempo and pitch together."""
    speed_percent: Range = (-3.0, 3.0)
    pitch: float = 0.0
    """Probability of another pitch at the same tempo; one pitch for all such clips of a batch."""
    pitch_semitones: Range = (-1.0, 1.0)
    loudspeaker: float = 0.0
    """Probability that the music passes a loudspeaker, before room and noise."""
    microphone: float = 0.0
    """Probability that everything passes a microphone, after room and noise."""
    response_db: Range = (-8.0, 8.0)
    """Gain of a band of a loudspeaker or microphone."""
    low_cut_hz: Range = (30.0, 400.0)
    high_cut_hz: Range = (4000.0, 8000.0)
    drive: float = 0.0
    """Probability that the microphone's amplifier is overdriven; hard and soft as often."""
    drive_db: Range = (0.0, 20.0)
    """How far the loudest sample would be above full scale."""
    codec: float = 0.0
    """Probability of a low-rate codec at the end, mp3 and Opus as often; on the processor."""
    codec_kbps: Range = (24.0, 64.0)
    time_mask: float = 0.0
    """Probability of a stripe of the spectrogram without sound, over all frequencies."""
    frequency_mask: float = 0.0
    """Probability of a stripe of the spectrogram without sound, over all times."""
    mask_percent: Range = (3.0, 20.0)
    """Width of a stripe, share of the spectrogram's."""

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
    """Everything that decides how a model is trained; stored in its card."""

    preset: str = "small"
    """Architecture: the graph network of the paper (grafprint), a smaller one for CPUs (small), or
    a baseline of the paper: a convolutional network (nafp), a transformer (ast) or a smaller one
    (ast-small). Baselines learn at lower rates: about 2e-4 for ast, 3e-4 for the others."""
    steps: int | None = None
    """Length in optimizer steps; None: until `minutes` are over."""
    minutes: float | None = None
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
    warm_up: float = 0.02
    """Share of the run in which the learning rate rises; a cosine brings it down to 0."""
    temperature: float = 0.05
    validate_every: int = 500
    log_every: int = 20
    checkpoint_every: int = 100
    compile: bool = False
    """Train with torch.compile: minutes of compiling first; slower on CPUs."""
    seed: int = 0
    """Seed of weights, batches and augmentation."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.preset not in PRESET_NAMES:
            names = ", ".join(PRESET_NAMES)
            raise TrainingError(f"no preset {self.preset!r}; choose one of {names}")
        if (self.steps is None) == (self.minutes is None) or (self.steps or self.minutes or 0) <= 0:
            raise TrainingError("give a length above 0: either steps or minutes")
        if not 1 <= self.accumulate <= self.pairs:
            raise TrainingError(f"{self.pairs} pairs cannot be cut into {self.accumulate} parts")

    def to_dict(self) -> dict:
        return asdict(self)
