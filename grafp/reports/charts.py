"""Charts as SVG and spectrograms as WebP, to be part of an HTML report.

Matplotlib draws with the colors of the light scheme. The SVG names them as the CSS variables of
templates/base.html instead, so that one drawing fits light screens, dark screens and paper.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator

COLORS = ("#0b63b5", "#c2500a", "#0d8a62", "#9c3f8f", "#8a6d00")
_MARKERS = "os^Dv"
_SOFT, _GRID = "#566273", "#d8dee6"
_VARIABLES = {color: f"var(--c{n})" for n, color in enumerate(COLORS)} | {
    _SOFT: "var(--soft)",
    _GRID: "var(--line)",
}
_WIDTH, _HEIGHT = 420, 270  # px
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: the page's font, and readable by machines
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "font.family": ["DejaVu Sans"],  # comes with Matplotlib: the same layout everywhere
    "font.size": 11,
    "text.color": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _GRID,
    "axes.grid.axis": "y",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _GRID,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "ytick.left": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "lines.markeredgewidth": 0,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "legend.borderpad": 0,
}


@dataclass(frozen=True)
class Chart:
    """A drawing and what it shows."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its size on the screen in px."""

    name: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Axis:
    """From the first tick to the last; values outside are drawn at the edge."""

    label: str
    ticks: Sequence[float]
    log: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a chart; `color` counts from 0."""

    label: str
    """Empty: not in the legend."""
    x: Sequence[float]
    y: Sequence[float]
    color: int
    bounds: Sequence[tuple[float, float]] = ()
    """An interval around each point."""
    dashed: bool = False
    points: bool = True
    tips: Sequence[str] = ()
    """Tooltips of the points (default: their numbers)."""


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> Chart:
    """Lines with a legend, intervals as bars, and the value of each point as a tooltip."""
    tooltips = {}
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes(x, y)
        for number, line in enumerate(lines):
            _draw_line(axes, line, f"line-{number}", x, y)
            if line.points:
                tips = line.tips or [
                    f"{line.label} at {a:.3g}: {b:.1f}".strip()
                    for a, b in zip(line.x, line.y, strict=True)
                ]
                tooltips[f"line-{number}"] = [
                    tip for tip, b in zip(tips, line.y, strict=True) if np.isfinite(b)
                ]
        _legend(figure, axes, columns=5)
        return _chart(figure, title, tooltips)


def histogram(
    title: str,
    groups: Mapping[str, Sequence[float] | np.ndarray],
    x: Axis,
    *,
    bins: int = 40,
    mark: tuple[float, str] | None = None,
) -> Chart:
    """The distribution of each group, in % of the group; values outside `x` count at its edges.

    `mark` is a value to draw a vertical line at, and its name.
    """
    edges = np.linspace(x.ticks[0], x.ticks[-1], bins + 1)
    shares = {
        name: 100 * np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
        for name, values in groups.items()
        if len(values)
    }
    # A group of a few values is a few spikes: they may leave the chart, the others may not.
    large = [share for name, share in shares.items() if len(groups[name]) >= bins]
    top = 1.05 * max((float(share.max()) for share in large or shares.values()), default=1.0)
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes(x, Axis("% of the group", ()))
        axes.set_ylim(0, top)
        for number, (name, values) in enumerate(groups.items()):
            color = COLORS[number % len(COLORS)]
            axes.plot([], [], color=color, label=f"{name} ({len(values):,})")
            if name in shares:
                axes.stairs(shares[name], edges, fill=True, color=color, alpha=0.2)
                axes.stairs(shares[name], edges, color=color, gid=f"group-{number}")
        if mark:
            _draw_mark(axes, *mark)
        _legend(figure, axes, columns=3)
        return _chart(figure, title, {})


def picture(name: str, values_FT: np.ndarray, height: int = 128) -> Picture:
    """An image of values 0..1, first row at the bottom."""
    buffer = io.BytesIO()
    imsave(
        buffer, values_FT, vmin=0.0, vmax=1.0, cmap="viridis", origin="lower",
        format="webp", pil_kwargs={"quality": 80},
    )  # fmt: skip
    data = base64.b64encode(buffer.getvalue()).decode()
    width = round(height * values_FT.shape[1] / values_FT.shape[0])
    return Picture(name, f"data:image/webp;base64,{data}", width, height)


def rising(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Five ticks or fewer from `low` to `high` or beyond; `whole`: none between whole numbers."""
    locator = MaxNLocator(nbins=4, integer=whole, min_n_ticks=1)
    return [float(tick) for tick in locator.tick_values(low, high if high > low else low + 1)]


def _axes(x: Axis, y: Axis) -> tuple[Figure, Axes]:
    """An empty chart. Without ticks an axis chooses its own."""
    figure = Figure((_WIDTH / 72, _HEIGHT / 72), layout="constrained")  # SVG has 72 px an inch
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    if x.log:
        axes.set_xscale("log")
    axes.set_xticks(x.ticks, [_short(tick) for tick in x.ticks])
    axes.set_xticks([], minor=True)
    if len(x.ticks) > 1:
        axes.set_xlim(x.ticks[0], x.ticks[-1])
    if len(y.ticks):
        axes.set_yticks(y.ticks, [_short(tick) for tick in y.ticks])
        axes.set_ylim(y.ticks[0], y.ticks[-1])
    return figure, axes


def _draw_line(axes: Axes, line: Line, name: str, x: Axis, y: Axis) -> None:
    """Draw a line and its intervals; `name` becomes the ID of its group in the SVG."""
    color = COLORS[line.color % len(COLORS)]
    across = np.clip(line.x, x.ticks[0], x.ticks[-1])
    axes.plot(
        across,
        np.clip(line.y, y.ticks[0], y.ticks[-1]),
        color=color,
        alpha=0.75 if line.dashed else None,
        linestyle="--" if line.dashed else "-",
        marker=_MARKERS[line.color % len(_MARKERS)] if line.points else None,
        label=line.label or None,
        clip_on=False,
        gid=name,
    )
    if line.bounds:
        low, high = np.clip(np.transpose(line.bounds), y.ticks[0], y.ticks[-1])
        axes.vlines(across, low, high, color=color, linewidth=1.2, clip_on=False)


def _draw_mark(axes: Axes, value: float, name: str) -> None:
    """Draw a dashed vertical line with its name beside it, on the side with more space."""
    low, high = axes.get_xlim()
    value = min(max(value, low), high)
    left = value > (low + high) / 2
    axes.axvline(value, color=_SOFT, linestyle="--", linewidth=1)
    axes.annotate(
        name,
        (value, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if left else 4, -2),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
    )


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Name the lines above the chart."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, len(labels)))


def _chart(figure: Figure, title: str, tooltips: Mapping[str, Sequence[str]]) -> Chart:
    """Write a figure as SVG for HTML: no metadata, CSS variables for colors, tooltips on points.

    `tooltips` are those of the markers of each group, by its ID.
    """
    buffer = io.BytesIO()
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=none)
    root = ElementTree.fromstring(buffer.getvalue())
    root.attrib |= {"role": "img", "aria-label": title}
    for group in root.iter(f"{{{_SVG}}}g"):
        # Matplotlib counts its groups: without their IDs, charts can share a document.
        name = group.attrib.pop("id", "")
        markers = group.iter(f"{{{_SVG}}}use") if name in tooltips else ()
        for marker, text in zip(markers, tooltips.get(name, ()), strict=True):
            ElementTree.SubElement(marker, f"{{{_SVG}}}title").text = text
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    text = ElementTree.tostring(root, encoding="unicode")
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return Chart(title, Markup(text))


def _short(value: float) -> str:
    """A number as one would say it: 1.2M, 15k, 0.5."""
    for limit, unit, letter in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= limit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:g}"
