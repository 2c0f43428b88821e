"""Charts are well-formed SVG with everything inside; pictures are PNG that a decoder reads."""

import io
import re
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from grafp.reports.charts import Axis, Line, histogram, line_chart, picture, png
from grafp.reports.pages import page, table

NAME = '<script>alert("x")</script> & co'


def drawing(figure: str) -> ElementTree.Element:
    """The chart itself, parsed: an error here is one in a browser."""
    assert "<script" not in figure
    assert "nan" not in figure.lower()
    return ElementTree.fromstring(figure[figure.rindex("<svg") : figure.index("</figure>")])


def test_lines_are_where_their_numbers_are() -> None:
    line = Line(NAME, (0, 10, 20), (0, 50, 200), 1, [(0, 10), (40, 60), (90, 100)])
    chart = drawing(line_chart(NAME, [line], Axis("dB", (0, 10, 20)), Axis("%", (0, 50, 100))))
    assert chart.get("aria-label") == NAME
    [points] = [part.get("points") for part in chart.iter("polyline")]
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in (points or "").split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)  # 200 is drawn at the edge
    assert x0 < x2
    assert y0 > y2
    assert len([path for path in chart.iter("path") if path.get("transform")]) == 3


@pytest.mark.parametrize("axis", [Axis("one", (3.0,)), Axis("sizes", (100, 1000, 1e6), log=True)])
def test_axes_of_one_tick_and_of_magnitudes(axis: Axis) -> None:
    shares = [axis.share(tick) for tick in axis.ticks]
    assert shares == pytest.approx([0.5] if len(shares) == 1 else [0.0, 0.25, 1.0])
    assert axis.share(axis.ticks[-1] * 10) == shares[-1]
    line = Line("a", axis.ticks, [50.0] * len(axis.ticks), 0)
    drawing(line_chart("title", [line], axis, Axis("%", (0, 100))))


def test_a_histogram_counts_everything_once() -> None:
    groups = {"some": [0.05, 0.05, 0.95, 7.0], "none": []}
    figure = histogram("scores", groups, Axis("score", (0, 1)), bins=10, mark=(0.8, "limit"))
    chart = drawing(figure)
    assert "some (4)" in figure
    assert "none (0)" in figure
    [area] = [path.get("d") or "" for path in chart.iter("path") if path.get("class") == "area c0"]
    heights = [float(value) for value in re.findall(r"V([\d.]+)H", area)]
    floor = max(heights)
    assert len(heights) == 10
    assert heights[0] == heights[9] < floor
    assert set(heights[1:9]) == {floor}
    drawing(histogram("nothing", {"none": []}, Axis("score", (0, 1))))


def test_a_picture_is_a_png_with_low_frequencies_at_the_bottom() -> None:
    values_FT = np.linspace(0, 1, 64)[:, None] * np.ones((1, 96))
    with av.open(io.BytesIO(png(values_FT))) as container:
        [frame] = list(container.decode(video=0))
        image_HWC = frame.to_ndarray(format="rgb24").astype(int)
    assert image_HWC.shape == (64, 96, 3)
    assert image_HWC[-1, 0].tolist() == [68, 1, 84]
    assert image_HWC[0, 0].tolist() == [253, 231, 37]
    brightness = image_HWC.sum(axis=2)
    assert (np.diff(brightness[:, 5]) <= 0).all()
    shown = ElementTree.fromstring(picture(values_FT, NAME, 128).replace(">", "/>"))
    assert (shown.get("alt"), shown.get("width")) == (NAME, "192")


def test_pages_hide_nothing_and_load_nothing() -> None:
    whole = page(NAME, table(("", "b"), [(NAME, "1 < 2")], NAME))
    assert "<script" not in whole
    assert "1 &lt; 2" in whole
    assert '<th scope="row">&lt;script' in whole
    assert not re.search(r"(src|href)=|url\(|@import", whole)
    assert table(("a",), []) == "<p>None.</p>"
