"""Charts are well-formed SVG with everything inside; pictures are WebP that a decoder reads."""

import base64
import io
import re
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from grafp.reports.charts import Axis, Chart, Line, histogram, line_chart, picture

NAME = '<script>alert("x")</script> & $co$'
SVG = "{http://www.w3.org/2000/svg}"
COLORS = {f"var(--c{n})" for n in range(5)} | {"var(--soft)", "var(--line)", "none"}


def drawing(chart: Chart) -> ElementTree.Element:
    """The chart, parsed: an error here is one in a browser."""
    assert "<script" not in chart.svg
    assert "nan" not in chart.svg
    references = re.findall(r'href="([^"]*)"|url\(([^)]*)\)', chart.svg)
    assert all(target.startswith("#") for pair in references for target in pair if target)
    root = ElementTree.fromstring(chart.svg)
    assert root.get("aria-label") == chart.title
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", chart.svg)) <= COLORS
    return root


def points(root: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """The points of all lines, by their tooltips."""
    return {
        told: (float(use.get("x", "")), float(use.get("y", "")))
        for use in root.iter(f"{SVG}use")
        if (told := use.findtext(f"{SVG}title"))
    }


def texts(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def test_lines_are_where_their_numbers_are() -> None:
    line = Line(NAME, (0, 10, 20), (0, 50, 200), 1, [(0, 10), (40, 60), (90, 100)])
    dashed = Line("", (0, 20), (100, 100), 1, dashed=True, points=False)
    chart = line_chart(NAME, [line, dashed], Axis("dB", (0, 10, 20)), Axis("%", (0, 50, 100)))
    root = drawing(chart)
    shown = points(root)
    assert list(shown) == [f"{NAME} at 0: 0.0", f"{NAME} at 10: 50.0", f"{NAME} at 20: 200.0"]
    (x0, y0), (x1, y1), (x2, y2) = shown.values()
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)  # 200 is drawn at the edge
    assert x0 < x2
    assert y0 > y2
    assert set(texts(root)) >= {"0", "10", "20", "50", "100", "dB", "%", NAME}
    dashes = [path.get("d", "") for path in root.iter(f"{SVG}path") if "dash" in str(path.attrib)]
    assert dashes[0].split()[1:3] == [str(x0), str(y2)]
    bars = [path for path in root.iter(f"{SVG}path") if "stroke-width: 1.2" in str(path.attrib)]
    assert len(bars) == 3


def test_unknown_values_are_left_out() -> None:
    line = Line("a", (0, 10, 20), (0, float("nan"), 100), 0)
    root = drawing(line_chart("t", [line], Axis("dB", (0, 10, 20)), Axis("%", (0, 100))))
    assert list(points(root)) == ["a at 0: 0.0", "a at 20: 100.0"]


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis("one", (3.0,)), ["3"]),
        (Axis("sizes", (100, 1000, 15_000, 1.2e6), log=True), ["100", "1000", "15k", "1.2M"]),
    ],
)
def test_axes_of_one_tick_and_of_magnitudes(axis: Axis, labels: list[str]) -> None:
    line = Line("a", axis.ticks, [50.0] * len(axis.ticks), 0)
    root = drawing(line_chart("title", [line], axis, Axis("%", (0, 100))))
    assert texts(root)[: len(labels)] == labels
    across = np.array([x for x, _ in points(root).values()])
    exact = np.log10(axis.ticks)
    if len(exact) > 1:
        shares = (across - across[0]) / (across[-1] - across[0])
        assert shares == pytest.approx((exact - exact[0]) / (exact[-1] - exact[0]), abs=1e-3)


def test_a_histogram_counts_everything_once() -> None:
    groups = {"some": [0.05, 0.05, 0.95, 7.0], "none": []}
    chart = histogram("scores", groups, Axis("score", (0, 1)), bins=10, mark=(0.8, "limit"))
    root = drawing(chart)
    assert {"some (4)", "none (0)", "limit"} <= set(texts(root))
    [steps] = [
        path.get("d", "")
        for path in root.iter(f"{SVG}path")
        if path.get("d", "").count("L") > 15 and "fill: none" in path.get("style", "")
    ]
    corners = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", steps), float)
    heights = corners[1:-1:2, 1]  # of the ten bins: both ends of each step are at one height
    floor = heights.max()
    assert len(heights) == 10
    assert heights[0] == heights[9] < floor
    assert set(heights[1:9]) == {floor}
    drawing(histogram("nothing", {"none": []}, Axis("score", (0, 1))))


def test_a_drawing_is_reproducible_and_shares_no_ids() -> None:
    line = Line("a", (0, 1), (0, 1), 0)
    one, again, other = (
        line_chart(title, [line], Axis("x", (0, 1)), Axis("y", (0, 1))).svg for title in "aab"
    )
    assert one == again
    ids = [set(re.findall(r'id="([^"]*)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_picture_is_a_webp_with_low_frequencies_at_the_bottom() -> None:
    values_FT = np.linspace(0, 1, 64)[:, None] * np.ones((1, 96))
    shown = picture(NAME, values_FT, 128)
    assert (shown.name, shown.width, shown.height) == (NAME, 192, 128)
    start, data = shown.uri.split(",")
    assert start == "data:image/webp;base64"
    with av.open(io.BytesIO(base64.b64decode(data))) as container:
        [frame] = list(container.decode(video=0))
        image_HWC = frame.to_ndarray(format="rgb24").astype(int)
    assert image_HWC.shape == (64, 96, 3)
    assert image_HWC[-1, 0].tolist() == pytest.approx([68, 1, 84], abs=8)  # viridis
    assert image_HWC[0, 0].tolist() == pytest.approx([253, 231, 37], abs=8)
    brightness_H = image_HWC.sum(axis=2)[:, 5]
    assert (np.diff(brightness_H) <= 12).all()  # it is compressed
    assert picture(NAME, values_FT) == picture(NAME, values_FT)
