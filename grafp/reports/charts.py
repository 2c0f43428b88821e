"""Charts as inline SVG and pictures as PNG, for pages that load nothing."""

import base64
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 20, 10, 40
COLOURS = 5
_SHAPES = (
    "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0z",
    "M-3,-3h6v6h-6z",
    "M0,-4l4,7h-8z",
    "M0,-4.5l4,4.5l-4,4.5l-4,-4.5z",
    "M0,4l4,-7h-8z",
)
# matplotlib's viridis at ten equal steps (public domain, CC0)
_VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142),
        (31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """From the first tick to the last; values outside are drawn at the edge."""

    label: str
    ticks: Sequence[float]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies along the axis, 0..1."""
        low, high, value = (
            math.log10(max(v, 1e-12)) if self.log else v
            for v in (self.ticks[0], self.ticks[-1], value)
        )
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5


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


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """A figure with lines, their legend, and intervals as bars."""
    drawn = ""
    for line in lines:
        at = [(_x(x, a), _y(y, b)) for a, b in zip(line.x, line.y, strict=True)]
        kind = "s dash" if line.dashed else "s"
        part = f'<polyline class="{kind}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in at)}"/>'
        for (across, _), (low, high) in zip(at, line.bounds):
            part += f'<path class="s" d="M{across:.1f},{_y(y, low):.1f}V{_y(y, high):.1f}"/>'
        for n, (across, up) in enumerate(at if line.points else ()):
            told = f"{line.label} at {line.x[n]:.3g}: {line.y[n]:.1f}"
            part += (
                f'<path class="f" transform="translate({across:.1f},{up:.1f})" '
                f'd="{_SHAPES[line.color % COLOURS]}"><title>{escape(told)}</title></path>'
            )
        drawn += f'<g class="c{line.color % COLOURS}">{part}</g>'
    return _figure(title, [_key(line) for line in lines if line.label], _axes(x, y) + drawn)


def histogram(
    title: str,
    groups: Mapping[str, Sequence[float] | np.ndarray],
    x: Axis,
    *,
    bins: int = 40,
    mark: tuple[float, str] | None = None,
) -> str:
    """A figure with the distribution of each group in % of it; what lies outside is at the edge.

    `mark` is a value to draw a line at, and its name.
    """
    edges = np.linspace(x.ticks[0], x.ticks[-1], bins + 1)
    shares = {
        name: 100 * np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
        for name, values in groups.items()
        if len(values)
    }
    # A group of a few is a few spikes: it may stick out of the chart, the others must be seen.
    many = [share for name, share in shares.items() if len(groups[name]) >= bins]
    tallest = max((share.max() for share in many or shares.values()), default=1.0)
    y = Axis("% of the group", _round_ticks(tallest))
    drawn, keys = "", []
    for color, (name, values) in enumerate(groups.items()):
        keys.append(_key(Line(f"{name} ({len(values):,})", (), (), color, points=False)))
        if name not in shares:
            continue
        steps = "".join(
            f"V{_y(y, share):.1f}H{_x(x, edge):.1f}" for share, edge in zip(shares[name], edges[1:])
        )
        path = f"M{_x(x, edges[0]):.1f},{_y(y, 0):.1f}{steps}V{_y(y, 0):.1f}"
        drawn += f'<path class="area c{color % COLOURS}" d="{path}"/>'
    if mark:
        at = _x(x, mark[0])
        end, aside = ("end", -4) if at > _WIDTH / 2 else ("start", 4)
        drawn += (
            f'<path class="mark" d="M{at:.1f},{_TOP}V{_HEIGHT - _BOTTOM}"/><text '
            f'x="{at + aside:.1f}" y="{_TOP + 9}" text-anchor="{end}">{escape(mark[1])}</text>'
        )
    return _figure(title, keys, _axes(x, y) + drawn)


def picture(values_FT: np.ndarray, alt: str, height: int) -> str:
    """An image of values 0..1, first row at the bottom, its pixels drawn large; `height` in px."""
    width = round(height * values_FT.shape[1] / values_FT.shape[0])
    data = base64.b64encode(png(values_FT)).decode()
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{width}" '
        f'height="{height}">'
    )


def png(values_FT: np.ndarray) -> bytes:
    """A PNG file of values 0..1 in viridis, first row at the bottom (ISO 15948, with palette)."""
    rows_FT = np.rint(values_FT[::-1].clip(0.0, 1.0) * 255).astype(np.uint8)
    height, width = rows_FT.shape
    steps = np.linspace(0, 255, len(_VIRIDIS))
    palette = np.stack(
        [np.interp(np.arange(256), steps, channel) for channel in _VIRIDIS.T], axis=1
    )
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows_FT], axis=1)  # 0: no filter
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": np.rint(palette).astype(np.uint8).tobytes(),
        b"IDAT": zlib.compress(lines.tobytes(), 9),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.share(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.share(value) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(x: Axis, y: Axis) -> str:
    """Grid lines, ticks and labels."""
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<path class="axis" d="M{_LEFT},{_y(y, t):.1f}H{right}"/>' for t in y.ticks]
    parts += [
        f'<text x="{_LEFT - 6}" y="{_y(y, t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in y.ticks
    ]
    parts += [
        f'<path class="axis" d="M{_x(x, t):.1f},{floor}v4"/>'
        f'<text x="{_x(x, t):.1f}" y="{floor + 16}" text-anchor="middle">{_short(t)}</text>'
        for t in x.ticks
    ]
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>'
        f'<text transform="translate(11,{(_TOP + floor) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y.label)}</text>'
    )
    return "".join(parts)


def _figure(title: str, keys: Sequence[str], drawn: str) -> str:
    told = escape(title)
    return (
        f"<figure><figcaption><strong>{told}</strong><br>{' '.join(keys)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{told}">{drawn}</svg>'
        "</figure>\n"
    )


def _key(line: Line) -> str:
    """A line of the legend."""
    shape = _SHAPES[line.color % COLOURS]
    point = f'<path class="f" transform="translate(13,5)" d="{shape}"/>' if line.points else ""
    kind = "s dash" if line.dashed else "s"
    return (
        f'<span class="legend"><svg viewBox="0 0 26 10" class="c{line.color % COLOURS}" '
        f'aria-hidden="true"><path class="{kind}" d="M0,5H26"/>{point}</svg> '
        f"{escape(line.label)}</span>"
    )


def _round_ticks(top: float) -> list[float]:
    """Four or so round numbers from 0 to at least `top`."""
    step = 10.0 ** math.floor(math.log10(max(top, 1e-9)))
    step = next(step * f for f in (0.25, 0.5, 1.0, 2.5) if step * f * 5 >= top)
    return [step * n for n in range(math.ceil(top / step - 1e-9) + 1)]


def _short(value: float) -> str:
    """A number as one would say it: 1.2M, 15k, 0.5."""
    for limit, letter in ((1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e6 if letter == 'M' else 1e3):.3g}{letter}"
    return f"{value:g}"
