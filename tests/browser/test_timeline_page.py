"""The report of a timeline job in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from timelines import DURATIONS_S, day

from grafp.reports.timeline import timeline_report

pytestmark = pytest.mark.slow
WIDTH = "return [document.documentElement.scrollWidth, innerWidth]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timeline") / "report.html"
    path.write_text(timeline_report(day(), DURATIONS_S))
    return path


def test_a_bar_and_its_row_point_to_each_other(
    page: Path, open_page: Callable[..., Chrome]
) -> None:
    driver = open_page(page)
    bars, rows = (driver.find_elements(By.CSS_SELECTOR, one) for one in ("[id^=b]", "tr[id^=d]"))
    assert len(bars) == len(rows) > 200
    driver.execute_script("arguments[0].click()", bars[20])
    row = driver.find_element(By.ID, "d21")
    assert "marked" in row.get_attribute("class")
    assert row.location_once_scrolled_into_view
    driver.execute_script("arguments[0].click()", rows[3].find_element(By.TAG_NAME, "a"))
    marked = driver.find_elements(By.CSS_SELECTOR, ".marked")
    assert {one.get_attribute("data-n") for one in marked} == {"4"}


def test_a_click_on_a_title_sorts(page: Path, open_page: Callable[..., Chrome]) -> None:
    driver = open_page(page)

    def column(number: int) -> list[str]:
        rows = "[...document.querySelectorAll('tbody tr[id]')]"
        script = f"return {rows}.map(row => row.cells[arguments[0]].dataset.value)"
        return driver.execute_script(script, number)

    score = driver.find_elements(By.CSS_SELECTOR, ".sortable th button")[6]
    for reverse in (False, True):
        driver.execute_script("arguments[0].click()", score)
        shown = [float(value) for value in column(6)]
        assert shown == sorted(shown, reverse=reverse)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_light_and_dark(
    page: Path, open_page: Callable[..., Chrome], dark: bool
) -> None:
    driver = open_page(page, dark=dark, phone=True)
    whole, shown = driver.execute_script(WIDTH)
    assert whole <= shown
    ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark
