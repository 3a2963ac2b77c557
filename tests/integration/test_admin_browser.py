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
from selenium.webdriver.common.keys import Keys
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
    assert shows(
        chrome,
        "upstream 0, key 0",
        "first byte",
        "credential and policies",
        "POST /openai/v1/chat/completions",
        "Search team",
    )

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


@pytest.fixture(scope="module")
def paths(stack: Stack) -> list[str]:
    """Of every page that can be asked for, with something on it."""
    group = stack.manage("POST", "/manage/groups", {"name": "Research", "budget_usd": "100/month"})["id"]
    stack.manage("PATCH", f"/manage/projects/{stack.project}", {"group_id": group, "requests_per_minute": 600})
    stack.manage("POST", "/manage/keys", {"name": "Vera", "role": "viewer", "projects": [stack.project]})
    stack.ask("POST", "/v1/chat/completions", json.dumps({"model": "gpt-4o", "messages": []}).encode(),
              {"Content-Type": "application/json"})  # fmt: skip
    token = stack.manage("GET", f"/manage/tokens?project_id={stack.project}")["data"][0]["id"]
    latest = eventually(lambda: stack.manage("GET", "/manage/requests")["data"], SECONDS)[0]["request_id"]
    return ["", "projects", "projects?search=nothing-like-it", f"projects/{stack.project}", "groups",
            f"groups/{group}", "tokens", f"tokens/{token}", "usage?by_project=1&by_token=1", "usage?by_day=1",
            "requests", f"requests/{latest}", "upstreams", "cache", "playground", "audit?verify=1", "settings",
            "keys", "sessions", "nothing"]  # fmt: skip


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_axe_core_finds(stack: Stack, chrome: Chrome, paths: list[str], theme: str, size: tuple[int, int]) -> None:
    """Nothing, on every page, in both themes, on a phone and on a desk."""
    chrome.add_cookie({"name": "llmproxy_theme", "value": theme, "path": "/admin"})
    chrome.set_window_size(*size)
    found = []
    for path in paths:
        chrome.get(f"{stack.url}/admin/{path}")
        found += [f"/admin/{path}: {each}" for each in browser.violations(chrome)]
    assert found == []


def test_what_axe_core_finds_where_secrets_are_shown(stack: Stack, chrome: Chrome) -> None:
    """Nothing either; nor where one signs in. It does find what is wrong."""
    issue_and_sign_out(stack, chrome)
    assert browser.violations(chrome) == [], "the page to sign in"
    chrome.execute_script("document.querySelector('main').append(document.createElement('img'))")
    assert "image-alt" in str(browser.violations(chrome))


def issue_and_sign_out(stack: Stack, chrome: Chrome) -> None:
    """Past the pages that are shown once, with a token and with a key."""
    chrome.get(f"{stack.url}/admin/projects/{stack.project}")
    chrome.find_element(By.XPATH, "//summary[normalize-space()='Issue a token']").click()
    write(chrome, "/tokens", name="for axe")
    press(chrome, "Issue token")
    eventually(lambda: chrome.find_elements(By.ID, "python"), SECONDS)
    assert browser.violations(chrome) == [], "a token's secret"
    chrome.get(f"{stack.url}/admin/keys")
    write(chrome, "/keys", name="for axe")
    press(chrome, "Issue key")
    eventually(lambda: chrome.find_elements(By.ID, "secret"), SECONDS)
    assert browser.violations(chrome) == [], "a key's secret"
    press(chrome, "Sign out")
    eventually(lambda: shows(chrome, "Management token or key"), SECONDS)


def test_a_search(stack: Stack, chrome: Chrome) -> None:
    """A slash goes to the field; what is found, and what to do where nothing is."""
    for name in ("Red one", "Blue one"):
        stack.manage("POST", "/manage/projects", {"name": name})
    chrome.get(f"{stack.url}/admin/projects")
    chrome.find_element(By.TAG_NAME, "body").send_keys("/")
    field = chrome.switch_to.active_element
    assert field.get_attribute("name") == "search"
    field.send_keys("BLUE", Keys.ENTER)
    eventually(lambda: shows(chrome, "1 found", "Blue one") and not shows(chrome, "Red one"), SECONDS)
    write(chrome, "/admin/projects", search="nothing like it")
    press(chrome, "Search")
    eventually(lambda: shows(chrome, "No such projects"), SECONDS)
    chrome.find_element(By.LINK_TEXT, "show all projects").click()
    eventually(lambda: shows(chrome, "Red one", "Blue one"), SECONDS)
    chrome.get(f"{stack.url}/admin/tokens?search=test&active=true&project_id={stack.project}")
    assert shows(chrome, "found", "test", "Team")


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
