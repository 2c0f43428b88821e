"""Train an encoder on a music collection and leave a model bundle under OUT/model.

    grafp train --music music/ --noise noise/ --rir rirs/ --out runs/first --minutes 60
    grafp train --out runs/first --resume

Exit code: 0 done, 1 failed, 2 bad arguments.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar

from grafp.errors import OptionError
from grafp.option_values import (
    Count,
    Kind,
    Natural,
    Uri,
    choice,
    number,
    positive_float,
)
from grafp.training.config import (
    OPTIMIZERS,
    PRESET_NAMES,
    AugmentConfig,
    TrainConfig,
    preset_names,
)
from grafp.training.recipes import RECIPES, settings_of
from pipelines.common import cli

Positive = Annotated[float, Kind("X", positive_float)]
Share = Annotated[float, Kind("X", number(0.0, 1.0))]
LENGTHS = frozenset(("minutes", "steps", "epochs"))


def _preset(text: str) -> str:
    """Looked up when it is given: what is installed costs time to list."""
    name: str = choice(*preset_names()).read(text)
    return name


@dataclass(kw_only=True)
class Options:
    after_interrupt: ClassVar = "add --resume to go on from the last checkpoint"
    exclusive: ClassVar = (tuple(LENGTHS),)
    help_from: ClassVar = TrainConfig

    music: Uri | None = None
    """Folder or prefix, FMA as it is unpacked, or CSV / Parquet with a column `path` and optional
    columns `split` and `group` (required, except with --resume)."""
    out: Uri
    """Folder or prefix of this run."""
    noise: Uri | None = None
    """Background noise, like --music, or MUSAN as it is unpacked; without a column `split` a fifth
    is left to evaluation (default: none)."""
    rir: Uri | None = None
    """Impulse responses (RIRs), like --noise, or AIR as it is unpacked (default: none)."""
    data: Uri | None = None
    """Where the decoded music, noise and impulse responses are kept; other runs with the same
    audio can share it (default: data under --out)."""
    memory_gb: Positive | None = None
    """Music that a worker may hold in memory, GB; the rest is streamed (default: half of the free
    memory, divided by the workers on a machine)."""
    recipe: Annotated[str, choice(*RECIPES)] = TrainConfig.recipe
    """Settings of training: those of the paper, or grafp, which has the defaults shown here. An
    option that is given counts more than the recipe."""
    preset: Annotated[str, Kind(choice(*PRESET_NAMES).metavar, _preset)] = TrainConfig.preset
    start_from: cli.Model | None = None
    """Model whose weights to begin with, to refine it (default: random weights)."""
    minutes: Annotated[float, Kind("M", positive_float)] | None = None
    """Length of training, minutes (default: 60, with --recipe paper 400 epochs)."""
    steps: Count | None = None
    """Length of training, optimizer steps (default: by --minutes)."""
    epochs: Count | None = None
    """Length of training, epochs: each track of the training part is used so many times,
    --per-track segments each time, on average (default: by --minutes)."""
    pairs: Count = TrainConfig.pairs
    per_track: Count = TrainConfig.per_track
    accumulate: Count = TrainConfig.accumulate
    compile: bool = TrainConfig.compile
    optimizer: Annotated[str, choice(*OPTIMIZERS)] = TrainConfig.optimizer
    learning_rate: Positive = TrainConfig.learning_rate
    final_learning_rate: Annotated[float, Kind("X", number(0.0))] = TrainConfig.final_learning_rate
    warm_up: Share = TrainConfig.warm_up
    weight_decay: Share = TrainConfig.weight_decay
    clip: Annotated[float, Kind("X", number(0.0))] = TrainConfig.clip
    temperature: Positive = TrainConfig.temperature
    held_out: Annotated[float, Kind("X", number(0.0, 0.5))] = TrainConfig.held_out
    offset_ms: Annotated[float, Kind("MS", number(0.0, 250.0))] = TrainConfig.offset_ms
    augment: Annotated[list[str], Kind("NAME=VALUE", repeatable=True)] = field(default_factory=list)
    """A setting of AugmentConfig, such as codec=0.2 (a probability), snr_db=0:20 (a range) or
    order=noise-room; repeatable (default: those of the recipe)."""
    seed: Natural = TrainConfig.seed
    num_workers: Natural = 1
    """Ray Train workers; 0 trains in this process, without Ray."""
    gpu: bool | None = None
    """Use a GPU for each worker (default: if there)."""
    resume: bool = False
    """Continue the run under --out, with the options that it was started with."""
    given: frozenset[str] = field(default=frozenset(), init=False)

    def __post_init__(self) -> None:
        if self.music is None and not self.resume:
            raise OptionError("--music: required")


def options(arguments: list[str] | None = None, *, prog: str | None = None) -> Options:
    chosen, given = cli.parse_given(Options, __doc__, arguments, prog=prog)
    chosen.given = given
    return chosen


def main(chosen: Options) -> tuple[dict[str, Any], int]:
    from pipelines.training import run_file  # imports PyTorch, which takes seconds
    from pipelines.training.flow import train_model

    started = run_file.read(chosen.out) if chosen.resume else None
    chosen = _as_started(chosen, started) if started else _by_recipe(chosen)
    if chosen.music is None:  # nor has the run that is resumed
        raise OptionError("--music: required")
    names = {one.name for one in fields(TrainConfig)} & set(vars(chosen))
    settings: dict[str, Any] = {name: getattr(chosen, name) for name in names}
    base = settings_of(chosen.recipe).get("augment")
    settings["augment"] = AugmentConfig.from_settings(chosen.augment, base)
    summary = train_model(
        chosen.music,
        chosen.out,
        TrainConfig(**settings),
        noise=chosen.noise,
        rirs=chosen.rir,
        start_from=chosen.start_from,
        data=chosen.data,
        memory_gb=chosen.memory_gb,
        num_workers=chosen.num_workers,
        gpu=chosen.gpu,
        resume=chosen.resume,
    )
    return summary, cli.DONE


def _by_recipe(chosen: Options) -> Options:
    """The recipe's settings where the command line has none."""
    given = chosen.given | {"augment"}  # which is based on the recipe's, setting by setting
    given |= LENGTHS if given & LENGTHS else set()
    settings = settings_of(chosen.recipe)
    return replace(chosen, **{name: settings[name] for name in settings.keys() - given})


def _as_started(chosen: Options, started: dict[str, Any]) -> Options:
    """The options of a resumed run: those given now, the others as it was started."""
    given = chosen.given | (LENGTHS if chosen.given & LENGTHS else set())
    kept = {name: started[name] for name in vars(chosen).keys() & started.keys() - given}
    if "augment" in kept:
        kept["augment"] = [
            f"{name}={':'.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in kept["augment"].items()
        ]
    return replace(chosen, **kept)
