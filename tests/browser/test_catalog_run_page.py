"""The report of an index run in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from catalog_runs import name_of, report_after
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

pytestmark = pytest.mark.slow
WIDTH = "return [document.documentElement.scrollWidth, innerWidth]"
COLORS = """
const line = document.querySelector('figure path[style*="stroke: var(--c0)"]');
return [getComputedStyle(line).stroke, getComputedStyle(document.body).backgroundColor];
"""
POINTS = """
return [...document.querySelectorAll("figure svg")].map(svg =>
  [...svg.querySelectorAll("use")].filter(use => use.querySelector("title"))
    .map(use => [use.querySelector("title").textContent, use.getBoundingClientRect().y]));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    path = folder / "report.html"
    path.write_text(report_after(35, str(folder)))
    return path


def test_the_last_30_runs_are_points_of_eight_charts(
    page: Path, open_page: Callable[..., Chrome]
) -> None:
    charts = open_page(page).execute_script(POINTS)
    assert [len(points) for points in charts] == [30, 30, 30, 60, 30, 30, 30, 30]
    tips, heights = zip(*charts[0], strict=True)
    assert tips[0] == f"{name_of(6)}: 240"
    assert tips[-1] == f"{name_of(35)}: 1,400"
    assert list(heights) == sorted(heights, reverse=True)  # the catalog grows


def test_a_click_unfolds_the_numbers(page: Path, open_page: Callable[..., Chrome]) -> None:
    driver = open_page(page)
    folded = driver.find_element(By.CSS_SELECTOR, "details")
    rows = folded.find_elements(By.CSS_SELECTOR, "tbody tr")
    assert len(rows) == 30
    assert not rows[0].is_displayed()
    folded.find_element(By.TAG_NAME, "summary").click()
    assert rows[0].is_displayed()
    assert rows[0].text.startswith(f"0 {name_of(35)} 1,400")
    inside = "const at = arguments[0]; return at.scrollWidth <= at.clientWidth"
    assert driver.execute_script(inside, folded.find_element(By.CLASS_NAME, "wide"))


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_light_and_dark(
    page: Path, open_page: Callable[..., Chrome], dark: bool
) -> None:
    driver = open_page(page, dark=dark, phone=True)
    driver.find_element(By.TAG_NAME, "summary").click()
    whole, shown = driver.execute_script(WIDTH)
    assert whole <= shown
    line, ground = driver.execute_script(COLORS)
    assert (ground == "rgb(255, 255, 255)") != dark
    assert line == ("rgb(111, 179, 245)" if dark else "rgb(11, 99, 181)")  # --c0 of the scheme
