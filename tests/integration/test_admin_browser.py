"""The admin pages in a real browser: what an operator does in a first hour."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from tests.support import browser
from tests.support.stack import KEYS, MANAGEMENT, Stack, eventually

SECONDS = 30.0
SIZES = ((360, 740), (1280, 900), (2560, 1400))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    browser.chromium()
    with Stack(tmp_path_factory.mktemp("browser"), further="cache: {enabled: true}\n") as stack:
        yield stack


@pytest.fixture
def chrome(stack: Stack) -> Iterator[Chrome]:
    """One that is signed in."""
    with browser.opened() as chrome:
        chrome.get(f"{stack.url}/admin/")
        chrome.find_element(By.NAME, "secret").send_keys(MANAGEMENT)
        press(chrome, "Sign in")
        assert chrome.find_element(By.TAG_NAME, "h1").text == "Overview"
        yield chrome
        wrong = [each for each in chrome.get_log("browser") if each["level"] in ("SEVERE", "WARNING")]
        # A response with an error status is one of the proxy's own; everything else, such as a style that the policy
        # forbids, is a fault of the page.
        assert not [each for each in wrong if "Failed to load resource" not in each["message"]], wrong


def patiently(act: Callable[[], object]) -> None:
    """Do it again where the page was just being replaced: then nothing was done to either."""
    for _ in range(20):
        try:
            act()
        except StaleElementReferenceException:
            time.sleep(0.1)
        else:
            return
    act()


def press(chrome: Chrome, text: str) -> None:
    patiently(lambda: chrome.find_element(By.XPATH, f"//button[normalize-space()='{text}']").click())


def write(chrome: Chrome, form: str, **values: str) -> None:
    """Write into the fields of the form that is sent to a path that ends so."""
    for name, value in values.items():
        patiently(lambda name=name, value=value: _write(chrome, f"form[action$='{form}'] [name='{name}']", value))


def _write(chrome: Chrome, selector: str, value: str) -> None:
    field = chrome.find_element(By.CSS_SELECTOR, selector)
    field.clear()
    field.send_keys(value)


def shows(chrome: Chrome, *texts: str) -> bool:
    try:
        page = chrome.find_element(By.TAG_NAME, "main").text
    except StaleElementReferenceException:  # it is just being replaced
        return False
    return all(text in page for text in texts)


def chat(chrome: Chrome, stack: Stack, token: str) -> str:
    """What the playground shows of a response."""
    chrome.get(f"{stack.url}/admin/playground")
    form = chrome.find_element(By.ID, "playground")
    Select(form.find_element(By.NAME, "chat")).select_by_value("/openai/v1/chat/completions")
    for name, value in (("model", "gpt-4o"), ("token", token)):
        field = form.find_element(By.NAME, name)
        field.clear()
        field.send_keys(value)
    press(chrome, "Send")
    answer = chrome.find_element(By.ID, "answer")
    stop = chrome.find_element(By.CSS_SELECTOR, "[data-stop]")
    eventually(lambda: answer.text and not stop.is_enabled(), SECONDS)
    return answer.text


def test_the_first_hour(stack: Stack, chrome: Chrome) -> None:
    """A project, its key, a token, a request and its cost, a budget, a refusal and its reason, revocation."""
    chrome.get(f"{stack.url}/admin/projects")
    write(chrome, "/admin/projects", name="Search team")
    press(chrome, "Create project")
    eventually(lambda: shows(chrome, "The project was created.", "None yet: without a provider's key"), SECONDS)
    project = re.search(r"/admin/projects/([\w-]+)", chrome.current_url)
    assert project
    home = f"{stack.url}/admin/projects/{project[1]}"

    Select(chrome.find_element(By.NAME, "api")).select_by_visible_text("openai")
    write(chrome, "/keys", key=KEYS["openai"])
    press(chrome, "Store key")
    eventually(lambda: shows(chrome, "The project was changed.", "s…i"), SECONDS)
    assert KEYS["openai"] not in chrome.page_source

    write(chrome, "/tokens", name="laptop of Ada", models="gpt-4o*")
    press(chrome, "Issue token")
    token = eventually(lambda: chrome.find_element(By.ID, "secret").text, SECONDS)
    assert token.startswith("sk-lp-") and json.dumps(f"{stack.url}/v1") in chrome.find_element(By.ID, "python").text
    chrome.find_element(By.LINK_TEXT, "To the token").click()
    page = chrome.current_url
    assert token not in chrome.page_source, "it is shown once"

    said = chat(chrome, stack, token)
    assert len(said) > 3 and not said.startswith("{")
    fields = chrome.find_element(By.ID, "fields").text
    assert "200" in fields and "x-cache-status" in fields and "Milliseconds to the provider's first byte." in fields

    chrome.get(page)
    eventually(lambda: chrome.refresh() or shows(chrome, "gpt-4o", "200", "$0.0"), SECONDS)
    chrome.find_element(By.CSS_SELECTOR, "table[data-live] tbody a").click()
    assert shows(chrome, "waiting for the provider's first byte", "POST /openai/v1/chat/completions", "Search team")

    chrome.get(home)
    write(chrome, project[1], budget_usd="0.000000001/month")
    press(chrome, "Save")
    eventually(lambda: shows(chrome, "The project was changed.", "Budget in dollars"), SECONDS)
    refused = chat(chrome, stack, token)
    assert "budget" in refused.lower(), refused
    assert "budget_exceeded" in chrome.find_element(By.ID, "fields").text
    chrome.get(f"{stack.url}/admin/requests?error=budget_exceeded")
    assert shows(chrome, "429", "Search team")
    chrome.get(f"{stack.url}/admin/usage?by_project=1&by_model=1")
    assert shows(chrome, "Search team", "gpt-4o")

    chrome.get(page)
    press(chrome, "Revoke token")
    chrome.switch_to.alert.accept()
    eventually(lambda: shows(chrome, "The token was revoked", "revoked"), SECONDS)
    assert "token" in chat(chrome, stack, token).lower() and "401" in chrome.find_element(By.ID, "fields").text

    press(chrome, "Sign out")
    eventually(lambda: shows(chrome, "Management token or key"), SECONDS)
    chrome.back()
    assert not shows(chrome, "Playground"), "nothing is shown from the browser's own memory"


def test_no_page_is_wider_than_the_window(stack: Stack, chrome: Chrome) -> None:
    """From a phone to 4K; tables that are wider scroll by themselves. Every page in both themes, without a fault."""
    stack.ask("POST", "/v1/chat/completions", json.dumps({"model": "gpt-4o", "messages": []}).encode(),
              {"Content-Type": "application/json"})  # fmt: skip
    token = stack.manage("GET", "/manage/tokens")["data"][0]["id"]
    latest = eventually(lambda: stack.manage("GET", "/manage/requests")["data"])[0]["request_id"]
    paths = ["", "projects", f"projects/{stack.project}", "tokens", f"tokens/{token}", "usage?by_project=1&by_token=1",
             "requests", f"requests/{latest}", "cache", "playground", "sessions"]  # fmt: skip
    for theme in ("light", "dark"):
        chrome.add_cookie({"name": "llmproxy_theme", "value": theme, "path": "/admin"})
        for path in paths:
            chrome.get(f"{stack.url}/admin/{path}")
            for size in SIZES:
                chrome.set_window_size(*size)
                wide, window = chrome.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
                assert wide <= window, (theme, path, size, wide)
            assert chrome.execute_script("return document.documentElement.dataset.theme") == theme


def test_texts_stand_out_from_their_background(stack: Stack, chrome: Chrome) -> None:
    """WCAG 2.2, 1.4.3 (AA): 4.5 to 1, for every text of every page in both themes."""
    for theme in ("light", "dark"):
        chrome.add_cookie({"name": "llmproxy_theme", "value": theme, "path": "/admin"})
        for path in ("", "projects", f"projects/{stack.project}", "tokens", "usage", "requests", "cache", "sessions"):
            chrome.get(f"{stack.url}/admin/{path}")
            assert chrome.execute_script(CONTRAST) == [], (theme, path)


def test_every_field_has_a_label(stack: Stack, chrome: Chrome) -> None:
    """And every button a name, every picture a title, every page one heading of the first order."""
    for path in ("", "projects", f"projects/{stack.project}", "usage", "requests", "cache", "playground", "sessions"):
        chrome.get(f"{stack.url}/admin/{path}")
        assert chrome.execute_script(NAMELESS) == [], path


def test_live(stack: Stack, chrome: Chrome) -> None:
    """A request appears by itself."""
    stack.ask("GET", "/v1/models")
    chrome.get(f"{stack.url}/admin/requests")
    chrome.find_element(By.CSS_SELECTOR, "[data-live-switch]").click()
    stack.ask("GET", "/v1/models/live-one", headers={"X-Request-ID": f"live-{time.time_ns()}"})
    eventually(lambda: "/admin/requests/live-" in chrome.page_source, SECONDS)


def test_without_a_script(stack: Stack) -> None:
    """All that changes something works without one."""
    with browser.opened() as chrome:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        chrome.get(f"{stack.url}/admin/projects")
        chrome.find_element(By.NAME, "secret").send_keys(MANAGEMENT)
        press(chrome, "Sign in")
        write(chrome, "/admin/projects", name="No scripts")
        press(chrome, "Create project")
        eventually(lambda: shows(chrome, "The project was created."), SECONDS)
        press(chrome, "Deactivate project")
        eventually(lambda: shows(chrome, "The project was deactivated"), SECONDS)
        patiently(lambda: Select(chrome.find_element(By.ID, "theme")).select_by_visible_text("dark"))
        press(chrome, "Set")
        eventually(lambda: '<html lang="en" data-theme="dark">' in chrome.page_source, SECONDS)


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = (text) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  return Array.from(canvas.getImageData(0, 0, 1, 1).data);
};
const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, at) => {
  const v = c[at] / 255;
  return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
}, 0);
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = rgba(getComputedStyle(each).backgroundColor);
    if (colour[3] > 200) return colour;
  }
  return [255, 255, 255, 255];
};
const weak = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, style = getComputedStyle(element);
  if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
  if (element.closest("svg, option, :disabled, .sr, .skip, noscript, template")) continue;
  const one = luminance(rgba(style.color)), two = luminance(behind(element));
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (ratio < 4.5) weak.push([walker.currentNode.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
}
return weak;
"""
NAMELESS = """
const wrong = [];
for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
  if (!field.labels.length && !field.ariaLabel) wrong.push(field.outerHTML);
for (const button of document.querySelectorAll("button, a"))
  if (!button.textContent.trim() && !button.ariaLabel) wrong.push(button.outerHTML);
for (const picture of document.querySelectorAll("svg"))
  if (!picture.getAttribute("aria-label") && picture.getAttribute("aria-hidden") !== "true") wrong.push("svg");
for (const id of document.querySelectorAll("[id]"))
  if (document.querySelectorAll("#" + CSS.escape(id.id)).length > 1) wrong.push("twice: " + id.id);
if (document.querySelectorAll("h1").length !== 1) wrong.push("h1");
if (!document.documentElement.lang || !document.title) wrong.push("lang or title");
return wrong;
"""
