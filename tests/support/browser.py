"""A headless Chromium, Debian's own: installed here where it is missing and may be."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PACKAGES = ("chromium", "chromium-driver")
WAIT_SECONDS = 20.0
INSTALL_SECONDS = 200.0  # within the time after which a test that hangs is ended


def chromium() -> tuple[str, str]:
    """The browser and its driver; installed by apt where they are missing. Skips, and says why, where that fails."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        if os.geteuid() or not shutil.which("apt-get"):
            pytest.skip("There is no Chromium here, and only root can install Debian's.")
        end = time.monotonic() + INSTALL_SECONDS
        _apt("update", end=end)
        installed = _apt("install", "-y", "--no-install-recommends", *PACKAGES, end=end)
        if installed:
            pytest.skip(f"There is no Chromium here, and apt does not install it: {installed}")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser and driver
    return browser, driver


def _apt(*arguments: str, end: float) -> str:
    """What went wrong; C{""} where nothing did."""
    try:
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=max(1.0, end - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not within {INSTALL_SECONDS:g} s"
    return (done.stderr.strip() or f"status {done.returncode}")[-500:] if done.returncode else ""


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
