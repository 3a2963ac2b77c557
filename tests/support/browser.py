"""A headless Chromium, Debian's own: installed here where it is missing and may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.support.apt import program

PACKAGES = ("chromium", "chromium-driver")
WAIT_SECONDS = 20.0


def chromium() -> tuple[str, str]:
    """The browser and its driver; skips, and says why, where there are none, but fails where C{CI} is set."""
    try:
        return program("chromium", *PACKAGES), program("chromedriver", *PACKAGES)
    except pytest.skip.Exception as e:
        if os.environ.get("CI"):
            pytest.fail(f"The pages are looked at in a browser wherever CI is set. {e}")
        raise


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


def violations(chrome: Chrome) -> list[str]:
    """What axe-core finds wrong with the page that is shown: rule, its help, and where; its good practices too."""
    chrome.execute_script(_axe())
    found = chrome.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document, {resultTypes: ['violations']}).then((r) => done(r), (e) => done({error: String(e)}));"
    )
    assert "error" not in found, found
    assert len(found["passes"]) > 5, "it has looked at the page"
    return [
        f"{each['id']}: {each['help']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for each in found["violations"]
        for node in each["nodes"][:5]
    ]


@cache
def _axe() -> str:
    """The script, from the package that brings it: a machine without npm, or without a network, has it too."""
    return (files("selenium_axe_python") / "axe-core" / "axe.min.js").read_text()
