"""A real browser, for the pages that jobs write: Chromium, driven by Selenium."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
_DESKTOP, _PHONE = (1280, 900), (390, 844)  # CSS px


@pytest.fixture
def open_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Chrome]]:
    """`open_page(path, *, dark=False, phone=False)`: the browser, with that file in it.

    When the test ends, its console must have no error, and the page must have loaded nothing.
    """
    driver = _browser(tmp_path_factory.mktemp("browser"))

    def opened(path: Path, *, dark: bool = False, phone: bool = False) -> Chrome:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        width, height = _PHONE if phone else _DESKTOP
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(path.resolve().as_uri())
        return driver

    try:
        yield opened
        wrong = [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]
        assert wrong == []
        entries = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        assert [name for name in driver.execute_script(entries) if name[:5] != "data:"] == []
    finally:
        driver.quit()


def _browser(profile: Path) -> Chrome:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no browser: install chromium and chromium-driver (Debian's packages)")
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options, Service(driver))
