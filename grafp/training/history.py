"""The course of a training run: where it stands, TensorBoard events, a picture of the curves."""

import io
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grafp import storage

_EVENTS = "events.out.tfevents.grafp."
_SMOOTH = 30  # the picture averages the loss over this part of the run
_BLUE, _ORANGE, _GREEN = "#1f5fa8", "#d9822b", "#2a8a4a"


@dataclass
class Progress:
    """Where a run stands; reported every `log_every` steps."""

    step: int = 0
    seconds: float = 0.0
    """Time spent training, earlier parts of the run included."""
    loss: float = math.nan
    hit_rate: float = math.nan
    """Of the latest validation, 0..1."""
    pairs_per_second: float = 0.0
    seconds_left: float = math.nan
    done: bool = False

    def line(self) -> str:
        """One line for a terminal or a job's log."""
        hit = "-" if math.isnan(self.hit_rate) else f"{100 * self.hit_rate:.1f}%"
        left = "?" if math.isnan(self.seconds_left) else f"{self.seconds_left / 60:.1f} min"
        return (
            f"step {self.step}  loss {self.loss:.3f}  {self.pairs_per_second:.0f} pairs/s  "
            f"hit rate {hit}  time left {left}"
        )


@dataclass(frozen=True)
class Point:
    """A training run at one step."""

    step: int
    seconds: float
    """Time spent training up to here."""
    time: float
    """Unix time."""
    loss: float
    """Mean since the last point."""
    learning_rate: float
    pairs_per_second: float
    hit_rate: float
    """0..1; NaN where the model was not validated."""

    def scalars(self) -> dict[str, float]:
        names = ("loss", "learning_rate", "pairs_per_second", "hit_rate")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if not math.isnan(value)}


class Events:
    """TensorBoard event files below `uri`, one for each checkpoint, named by its step.

    TensorBoard keeps the file that it reads open and goes on with the next by name: new files
    are seen on disk and in a bucket, where nothing can be appended.
    """

    def __init__(self, uri: str, step: int) -> None:
        """A run that goes on after `step`: what a stopped one wrote after it goes."""
        self.uri, self.step = uri, step
        for info in storage.list_files(uri, may_be_missing=True):
            _, ours, number = info.uri.rpartition(_EVENTS)
            if ours and int(number) > step:
                storage.delete(info.uri)

    def write(self, history: Sequence[Point]) -> None:
        """Add what is new in `history`. Raises StorageError."""
        from tensorboardX import SummaryWriter

        with tempfile.TemporaryDirectory() as folder:
            with SummaryWriter(folder) as writer:
                for point in history:
                    for name, value in point.scalars().items() if point.step > self.step else ():
                        writer.add_scalar(name, value, point.step, walltime=point.time)
            [file] = Path(folder).iterdir()
            self.step = history[-1].step
            uri = storage.join(self.uri, f"{_EVENTS}{self.step:010}")
            storage.write(uri, file.read_bytes())


def curves_png(history: Sequence[Point], title: str, best_step: int | None) -> bytes:
    """A picture of loss, learning rate and hit rate over the steps, 1080 x 780; PNG.

    Args:
        best_step: marked, as the step whose weights were kept; None: nothing is marked.
    """
    from matplotlib.figure import Figure  # without pyplot: no windows, nothing global

    figure = Figure(figsize=(9.0, 6.5), dpi=120, layout="constrained")
    figure.suptitle(title)
    validated = [point for point in history if not math.isnan(point.hit_rate)]
    panels = figure.subplots(2 if validated else 1, sharex=True, squeeze=False)[:, 0]
    lines = _draw_loss(panels[0], history)
    if validated:
        _draw_hit_rate(panels[1], validated, best_step)
    for axes in panels:
        axes.grid(alpha=0.3)
        if best_step is not None:
            axes.axvline(best_step, color="black", linewidth=1, linestyle=":")
    panels[0].legend(handles=lines, loc="upper right")
    panels[-1].set_xlabel("step")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_loss(axes: Any, history: Sequence[Point]) -> list[Any]:
    """The loss, its running mean, and the learning rate on an axis of its own; the lines."""
    steps = [point.step for point in history]
    losses = np.array([point.loss for point in history])
    window = np.ones(max(1, len(losses) // _SMOOTH))
    means = np.convolve(losses, window, "same") / np.convolve(losses**0, window, "same")
    [raw] = axes.plot(steps, losses, color=_BLUE, alpha=0.3, linewidth=1, label="loss")
    [mean] = axes.plot(steps, means, color=_BLUE, linewidth=2, label="loss, running mean")
    axes.set_ylabel("NT-Xent loss")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    rates = [point.learning_rate for point in history]
    [rate] = right.plot(steps, rates, color=_ORANGE, linestyle="--", label="learning rate")
    right.set_ylabel("learning rate")
    right.set_ylim(bottom=0)
    right.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return [raw, mean, rate]


def _draw_hit_rate(axes: Any, validated: Sequence[Point], best_step: int | None) -> None:
    steps = [point.step for point in validated]
    rates = [100 * point.hit_rate for point in validated]
    axes.plot(steps, rates, color=_GREEN, marker="o", markersize=4, label="hit rate, validation")
    for point in validated:
        if point.step == best_step:
            told = f"kept: {100 * point.hit_rate:.1f}% at step {best_step:,}"
            axes.plot(
                best_step, 100 * point.hit_rate, "*", color="black", markersize=14, label=told
            )
    axes.set_ylabel("hit rate, %")
    axes.set_ylim(0, 100)
    axes.legend(loc="lower right")
