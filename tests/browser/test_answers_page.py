"""The report of a query batch in a browser: its sounds play, its table sorts and filters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from grafp.audio import synthesis
from grafp.evaluation.metrics import Answer
from grafp.matches import MATCH_SCHEMA, unmatched
from grafp.reports.answers import write_report
from grafp.reports.excerpts import Excerpt, Likeness, Shown

pytestmark = pytest.mark.slow

NASTY = "</script><img src=x onerror=alert(1)>\" & ' é" + "x" * 60 + ".wav"
# query, track, speed, score, matched, false-positive rate, true track
ROWS: list[tuple] = [
    ("clip 10.wav", "b", 1.0, 0.9, True, 1e-7, "b"),
    ("clip 9.wav", "a", 1.04, 0.7, True, 1e-5, "a"),
    (NASTY, "c", 0.97, 0.8, True, 1e-6, None),
    ("clip 2.wav", "d", 1.0, 0.3, False, 0.2, None),
    ("clip 3.wav", None, None, None, False, None, "a"),
    ("bad.wav", None, None, None, False, None, None),
]


def row(query: str, track: Any, speed: Any, score: Any, matched: bool, rate: Any) -> dict[str, Any]:
    error = "lasts 0.30 s; at least 1 s are needed" if query == "bad.wav" else None
    start_s = None if track is None else 20.0
    answer = {"track": track, "track_start_s": start_s, "speed": speed, "score": score}
    answer |= {"matched": matched, "false_positive_rate": rate}
    return {**unmatched(f"/queries/{query}", 2.5, 0.4, error), **answer}


def look(row: dict[str, Any], answer: Answer | None) -> Shown:
    """Two seconds of music, and a diagonal; of one query the track cannot be read."""
    music_S = synthesis.piece(len(row["query"]), 2.5)
    query = Excerpt(0.0, music_S + 0.05 * synthesis.noise(1, 2.5))
    if row["track"] is None:
        assert answer
        return Shown(query, truth=Excerpt(4.0, music_S) if answer.true_track else None)
    if row["track"] == "d":
        return Shown(query, why="The file of the track cannot be read here: d: no such file")
    products_MN = np.eye(16, 56, 20, dtype=np.float32)
    return Shown(query, Excerpt(20.0, music_S), None, Likeness(products_MN, 0.0, 0.1, 18.0, 0.1))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    rows = [row(*values[:-1]) for values in ROWS]
    truth = {f"/queries/{values[0]}": (values[-1], None) for values in ROWS}
    write_report(str(folder), pa.Table.from_pylist(rows, MATCH_SCHEMA), truth, look)
    return folder / "report.html"


def shown(driver: Chrome, column: str = "query") -> list[str]:
    """Of the rows that can be seen, in their order."""
    rows = driver.find_elements(By.CSS_SELECTOR, ".queries > details")
    return [one.get_attribute(f"data-{column}") or "" for one in rows if one.is_displayed()]


def press(driver: Chrome, button: str) -> None:
    driver.find_element(By.CSS_SELECTOR, f"button[{button}]").click()


def test_every_sound_plays(open_page: Callable[..., Chrome], page: Path) -> None:
    driver = open_page(page)
    driver.set_script_timeout(60)
    played = driver.execute_async_script(
        """
        const done = arguments[0], played = [];
        (async () => {
          for (const player of document.querySelectorAll("audio")) {
            player.closest("details").open = true;
            await player.play();
            await new Promise(next => {
              const wait = () => player.currentTime > 0.1 ? next() : setTimeout(wait, 20);
              wait();
            });
            const others = [...document.querySelectorAll("audio")].filter(one => !one.paused);
            played.push([player.duration, others.length, player.error]);
          }
          done(played);
        })().catch(error => done(String(error)));
        """
    )
    assert len(played) == 5 + 3 + 1, played
    for duration, playing, error in played:
        assert duration == pytest.approx(2.5, abs=0.1)
        assert (playing, error) == (1, None)  # one at a time


def test_every_picture_is_drawn(open_page: Callable[..., Chrome], page: Path) -> None:
    driver = open_page(page)
    sizes = driver.execute_async_script(
        """
        document.querySelectorAll("details").forEach(one => one.open = true);
        const images = [...document.images];
        images.forEach(image => image.loading = "eager");
        Promise.all(images.map(image => image.decode())).then(
          () => arguments[0](images.map(image => [image.naturalWidth, image.naturalHeight])),
          error => arguments[0](String(error)));
        """
    )
    seconds = round(32 * 2.5)
    assert sorted(map(tuple, sizes)) == sorted([(seconds, 64)] * 9 + [(56, 16)] * 3)


def test_columns_sort_the_queries(open_page: Callable[..., Chrome], page: Path) -> None:
    driver = open_page(page)
    assert shown(driver) == [values[0] for values in ROWS]
    press(driver, "data-sort=query")
    assert shown(driver)[1:] == ["bad.wav", "clip 2.wav", "clip 3.wav", "clip 9.wav",
                                 "clip 10.wav"]  # fmt: skip
    press(driver, "data-sort=score")  # the highest first
    assert [score[:3] for score in shown(driver, "score")] == ["0.8", "0.8", "0.6", "0.3", "", ""]
    press(driver, "data-sort=score")
    assert shown(driver)[:2] == ["clip 2.wav", "clip 9.wav"]
    press(driver, "data-sort=rate")
    assert shown(driver, "rate") == ["1e-07", "1e-06", "1e-05", "0.2", "", ""]
    press(driver, "data-sort=speed")
    assert shown(driver, "speed") == ["0.97", "1.0", "1.0", "1.04", "", ""]
    press(driver, "data-sort=track")
    assert shown(driver, "track") == ["a", "b", "c", "d", "", ""]


def test_buttons_filter_the_queries(open_page: Callable[..., Chrome], page: Path) -> None:
    driver = open_page(page)
    expected = {
        "matched": ["clip 10.wav", "clip 9.wav"], "wrong": [NASTY], "refused": ["clip 2.wav"],
        "missed": ["clip 3.wav"], "failed": ["bad.wav"], "''": [values[0] for values in ROWS],
    }  # fmt: skip
    for verdict, queries in expected.items():
        press(driver, f"data-show={verdict}")
        assert shown(driver) == queries
        pressed = driver.find_elements(By.CSS_SELECTOR, "[data-show][aria-pressed=true]")
        assert [one.get_attribute("data-show") for one in pressed] == [verdict.strip("'")]


def test_a_query_opens_by_keyboard(open_page: Callable[..., Chrome], page: Path) -> None:
    driver = open_page(page)
    first, second = driver.find_elements(By.CSS_SELECTOR, ".queries > details")[:2]
    assert (first.get_property("open"), second.get_property("open")) == (True, False)
    second.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert second.get_property("open")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("phone", [False, True])
def test_it_fits_every_screen(
    open_page: Callable[..., Chrome], page: Path, dark: bool, phone: bool
) -> None:
    driver = open_page(page, dark=dark, phone=phone)
    driver.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide, seen = driver.execute_script("return [document.body.scrollWidth, innerWidth]")
    assert seen == (390 if phone else 1280)
    assert wide <= seen
    ground, ink = driver.execute_script(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    )
    assert (brightness(ground) < brightness(ink)) == dark


def brightness(color: str) -> float:
    return sum(float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3])


def test_it_can_be_read_without_scripts(open_page: Callable[..., Chrome], page: Path) -> None:
    driver = open_page(page)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(page.as_uri())
    assert shown(driver) == [values[0] for values in ROWS]
    assert "scores this high" in driver.find_element(By.TAG_NAME, "main").text
