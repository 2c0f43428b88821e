"""The report of a timeline job in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from timelines import DURATIONS_S, day

from grafp.reports.timeline import timeline_report

pytestmark = pytest.mark.slow
WIDTH = "return [document.documentElement.scrollWidth, innerWidth]"
SEEN = """
const at = arguments[0].getBoundingClientRect();
return at.top >= 0 && at.bottom <= innerHeight;
"""
DRAWN = """
const seconds = {};
document.querySelectorAll(".line").forEach((line, hour) => {
  const track = line.querySelector(".track").getBoundingClientRect();
  line.querySelectorAll("a").forEach(bar => {
    const at = bar.getBoundingClientRect();
    const [from, to] = [at.left, at.right].map(x => 3600 * (hour + (x - track.left) / track.width));
    const before = seconds[bar.dataset.n] ?? [from, to];
    seconds[bar.dataset.n] = [Math.min(before[0], from), Math.max(before[1], to)];
  });
});
return seconds;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timeline") / "report.html"
    path.write_text(timeline_report(day(), DURATIONS_S))
    return path


def test_bars_are_drawn_where_the_detections_are(
    page: Path, open_page: Callable[..., Chrome]
) -> None:
    drawn = open_page(page).execute_script(DRAWN)
    found = [row for row in day() if row["matched"]]
    assert len(drawn) == len(found) > 200
    for number, row in enumerate(found, 1):
        begin_s, end_s = drawn[str(number)]
        # A pixel is 3 to 4 seconds, and a bar is at least 3 pixels wide.
        assert begin_s == pytest.approx(row["query_start_s"], abs=4)
        assert end_s == pytest.approx(row["query_end_s"], abs=12)


def test_a_bar_and_its_row_point_to_each_other(
    page: Path, open_page: Callable[..., Chrome]
) -> None:
    driver = open_page(page)
    bars, rows = (driver.find_elements(By.CSS_SELECTOR, one) for one in ("[id^=b]", "tr[id^=d]"))
    assert len(bars) == len(rows) > 200

    def marked() -> list[str]:
        shown = driver.find_elements(By.CSS_SELECTOR, ".marked")
        return sorted({f"{one.tag_name} {one.get_attribute('data-n')}" for one in shown})

    def is_seen(element: WebElement) -> bool:
        return bool(driver.execute_script(SEEN, element))

    assert marked() == []
    assert not is_seen(rows[20])
    bars[20].click()
    assert marked() == ["a 21", "tr 21"]
    assert is_seen(rows[20])
    rows[3].find_element(By.TAG_NAME, "a").click()
    assert marked() == ["a 4", "tr 4"]
    assert is_seen(bars[3])


def test_a_click_on_a_title_sorts(page: Path, open_page: Callable[..., Chrome]) -> None:
    driver = open_page(page)

    def column(number: int) -> list[str]:
        rows = "[...document.querySelectorAll('tbody tr[id]')]"
        script = f"return {rows}.map(row => row.cells[arguments[0]].dataset.value)"
        return driver.execute_script(script, number)

    score = driver.find_elements(By.CSS_SELECTOR, ".sortable th button")[6]
    for reverse in (False, True):
        score.click()
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
