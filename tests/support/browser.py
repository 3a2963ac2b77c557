"""A headless Chromium, Debian's own: installed here where it is missing and may be."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PACKAGES = ("chromium", "chromium-driver")
WAIT_SECONDS = 20.0


def chromium() -> tuple[str, str]:
    """The browser and its driver; installed by apt where they are missing. Skips where that is not allowed."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        if os.geteuid() or not shutil.which("apt-get"):
            pytest.skip("There is no Chromium here, and only root can install Debian's.")
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            subprocess.run(
                ["apt-get", "-q", *arguments],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=200,
                check=arguments[0] == "install",
            )
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser and driver
    return browser, driver


@contextmanager
def opened() -> Iterator[Chrome]:
    """A browser of its own, with nothing in it."""
    browser, driver = chromium()
    options = ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        chrome.set_window_size(1280, 900)
        chrome.set_page_load_timeout(60)
        chrome.implicitly_wait(WAIT_SECONDS)
        yield chrome
    finally:
        chrome.quit()
