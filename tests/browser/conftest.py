"""One headless Chromium for all tests of pages: Debian's, with Debian's driver; nothing is downloaded."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("OVSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
SIZE = (1280, 900)


def lack() -> str | None:
    """Why pages cannot be opened here, in a sentence; None where they can."""
    if not CHROMIUM or not DRIVER:
        absent = " and ".join(name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if not path)
        return f"{absent} not found on PATH: apt-get install chromium chromium-driver, or set OVSEG_CHROMIUM"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return 'selenium is absent: pip install "ovseg-cli[test]"'
    return None


class Browser:
    """A browser that remembers what it asked for and what it complained of."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        wanted = ["--headless=new", "--disable-dev-shm-usage", "--disable-gpu", f"--window-size={SIZE[0]},{SIZE[1]}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            wanted.append("--no-sandbox")
        for argument in wanted:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.add_experimental_option("perfLoggingPrefs", {"enableNetwork": True, "enablePage": False})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.theme("light")

    def open(self, path: Path) -> None:
        """Open a page from disk; what was remembered of others is forgotten."""
        self.complaints()
        self.requests()
        self.driver.get(path.as_uri())

    def run(self, script: str, *arguments: object) -> object:
        """Run JavaScript in the page, as its own scripts may not: the driver stands outside its policy."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """Messages of the console since this was asked last."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since this was asked last."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def theme(self, name: str) -> None:
        """What the system prefers; motion never, so that nothing has to be waited for."""
        wanted = {"prefers-color-scheme": name, "prefers-reduced-motion": "reduce"}
        features = [{"name": key, "value": value} for key, value in wanted.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if reason := lack():
        pytest.skip(reason)
    started = Browser()
    yield started
    started.driver.quit()


@pytest.fixture(scope="session")
def opened(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Browser]:
    """Open a page given as text."""
    folder = tmp_path_factory.mktemp("pages")

    def open_page(html: str) -> Browser:
        path = folder / "report.html"
        path.write_text(html, encoding="utf-8")
        browser.open(path)
        return browser

    return open_page
