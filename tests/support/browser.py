"""A real Chromium for the tests of the page, driven by Selenium; both come from the system and from pip."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = shutil.which("chromedriver") or ""
NEEDS_CHROMIUM = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="there is no Chromium (on Debian: apt install chromium chromium-driver)"
)
SECONDS = 60
"""How long a test waits for something to appear."""


class Browser:
    """A window of the browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Load a page; the key behind `#` alone would load nothing anew."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return its result."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the text that is shown of an element; empty where there is no such element, or none to be seen."""
        script = "const n = document.querySelector(arguments[0]); return n && n.checkVisibility() ? n.innerText : ''"
        found = self.run(script, selector)
        return str(found)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is true of the page, and return it."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, SECONDS, 0.1).until(lambda driver: condition())

    def until_text(self, selector: str, part: str) -> None:
        """Wait until an element shows this text."""
        self.until(lambda: part in self.text(selector))

    def emulate(self, **features: str) -> None:
        """Prefer a color scheme, or less motion, as the system's settings would say."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})

    def screenshot(self, path: str, height: int | None = None) -> None:
        """Write what is seen as a PNG, of the whole page or so high."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        width = self.run("return innerWidth")
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height or size["height"], "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.save_screenshot(path)
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def complaints(self) -> list[str]:
        """Return what the browser's console has said since it was looked at last.

        What it cut itself is left out: it does so when an interface of the machine comes or goes, as in tests beside.
        """
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if "ERR_NETWORK_CHANGED" not in message]


@contextlib.contextmanager
def browsing(width: int = 1180, height: int = 900, language: str = "en-GB") -> Iterator[Browser]:
    """Run a browser without a screen, in a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    options.add_argument(f"--lang={language}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
