"""The admin pages in a real browser: what an operator does in a first hour."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.support import browser
from tests.support.admin_visitor import Visitor
from tests.support.stack import KEYS, MANAGEMENT, Stack, eventually

SECONDS = 30.0
PARTS = 8
SIZES = ((360, 740), (1280, 900), (2560, 1400))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    browser.chromium()
    with Stack(tmp_path_factory.mktemp("browser"), further="cache: {enabled: true}\n") as stack:
        yield stack


@pytest.fixture(scope="module")
def window(stack: Stack) -> Iterator[Chrome]:
    """The one browser of this module: to start one takes as long as ten pages."""
    with browser.opened() as chrome:
        yield chrome


@pytest.fixture
def nobody(stack: Stack, window: Chrome) -> Iterator[Chrome]:
    """The browser of somebody who is not signed in."""
    window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    window.execute_cdp_cmd("Network.clearBrowserCookies", {})
    window.set_window_size(*SIZES[1])
    window.get_log("browser")
    yield window
    wrong = [each for each in window.get_log("browser") if each["level"] in ("SEVERE", "WARNING")]
    # A response with an error status is one of the proxy's own; everything else, such as a style that the policy
    # forbids, is a fault of the page.
    assert not [each for each in wrong if "Failed to load resource" not in each["message"]], wrong


@pytest.fixture
def chrome(stack: Stack, nobody: Chrome) -> Chrome:
    """One that is signed in."""
    visitor = Visitor(stack.daemon.port)
    visitor.sign_in()
    name, _, value = visitor.cookie.partition("=")
    nobody.execute_cdp_cmd(
        "Network.setCookie",
        {"name": name, "value": value, "url": stack.url, "path": "/admin", "httpOnly": True, "sameSite": "Strict"},
    )
    return nobody


def choose_theme(chrome: Chrome, stack: Stack, theme: str) -> None:
    chrome.execute_cdp_cmd(
        "Network.setCookie", {"name": "llmproxy_theme", "value": theme, "url": stack.url, "path": "/admin"}
    )


def patiently(act: Callable[[], object]) -> None:
    """Do it again where the page was just being replaced: then nothing was done to either."""
    for _ in range(50):
        try:
            act()
        except WebDriverException as e:
            if not is_replaced(e):
                raise
            time.sleep(0.1)
        else:
            return
    act()


def is_replaced(error: WebDriverException) -> bool:
    """Whether the element belonged to a page that is no more."""
    return isinstance(error, StaleElementReferenceException) or "does not belong to the document" in str(error)


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
    except WebDriverException as e:
        if not is_replaced(e):
            raise
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


def test_the_playground(stack: Stack, chrome: Chrome) -> None:
    """A request and its response, its fields, and where the time went; a token that is wrong."""
    said = chat(chrome, stack, stack.token)
    assert len(said) > 3 and not said.startswith("{")
    fields = chrome.find_element(By.ID, "fields").text
    assert "200" in fields and "x-cache-status" in fields and "Milliseconds to the provider's first byte." in fields
    assert "token" in chat(chrome, stack, "sk-lp-nobodys").lower()
    assert "401" in chrome.find_element(By.ID, "fields").text


@pytest.mark.long("8 s: a project from its first key to the end of its token, which other tests show page by page")
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
    chrome.find_element(By.CSS_SELECTOR, "a[href^='/admin/requests/']").click()
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


@pytest.fixture(scope="module")
def paths(stack: Stack) -> list[str]:
    """Of every page that can be asked for, with something on it: long names, and such as are written in other ways."""
    names = ("x" * 200, "A team with a name that says what it is for and for whom it is", "فريق البحث", "🦊 & <b>")
    groups = [
        stack.manage("POST", "/manage/groups", {"name": name, "budget_usd": "1000/month"})["id"] for name in names
    ]
    stack.manage("PATCH", f"/manage/groups/{groups[2]}", {"parent_id": groups[0]})
    projects = [
        stack.manage("POST", "/manage/projects", {"name": name, "group_id": group, "api_keys": dict(stack.keys),
                     "budget_usd": "999999.99/month", "soft_budget_tokens": "1/day", "labels": ["batch"]})["id"]
        for name, group in zip(names, groups, strict=True)
    ]  # fmt: skip
    stack.manage("POST", "/manage/keys", {"name": names[0][:120], "role": "viewer", "projects": projects})
    made = [
        stack.manage("POST", "/manage/tokens", {"project_id": project, "name": name, "requests_per_minute": 600})
        for project, name in zip(projects, names, strict=True)
    ]
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
    for token in made:
        stack.ask("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}, token=token["token"])
    stack.manage("POST", f"/manage/tokens/{made[0]['id']}/rotate", {"grace": "24h"})
    eventually(lambda: stack.manage("GET", f"/manage/alerts?project_id={projects[0]}")["data"], SECONDS)
    latest = stack.manage("GET", f"/manage/requests?project_id={projects[0]}")["data"][0]["request_id"]
    return ["", "projects", "projects?search=nothing-like-it", f"projects/{projects[0]}", "groups", "groups?search=x",
            f"groups/{groups[2]}", "tokens", f"tokens/{made[0]['id']}", "usage?by_project=1&by_token=1",
            "usage?by_day=1", "requests?status=2xx", f"requests/{latest}", "alerts", "alerts?owner=api", "upstreams",
            "cache", "playground", "audit?verify=1&action=key.create", "settings", "keys", "sessions",
            "nothing"]  # fmt: skip


# Each theme on a phone and on a desk; a part of the pages at a time, so that no test takes long. Where long tests are
# left out, each theme and each of these sizes is looked at with some of the pages.
SHORT_LOOKS = {("light", SIZES[0], 0), ("dark", SIZES[1], 1)}
IN_ALL = pytest.mark.long("5 s: every page in every theme and size")
LOOKS = [
    pytest.param(*look, marks=() if look in SHORT_LOOKS else IN_ALL)
    for look in itertools.product(("light", "dark"), SIZES[:2], range(PARTS))
]


@pytest.mark.parametrize(("theme", "size", "part"), LOOKS)
def test_how_every_page_looks(
    stack: Stack, chrome: Chrome, paths: list[str], theme: str, size: tuple[int, int], part: int
) -> None:
    """axe-core finds nothing; texts stand out from what is behind them by 4.5 to 1 (WCAG 2.2, 1.4.3); whatever can be
    written in or pressed has a name."""
    choose_theme(chrome, stack, theme)
    chrome.set_window_size(*size)
    for path in paths[part::PARTS]:
        chrome.get(f"{stack.url}/admin/{path}")
        assert chrome.execute_script("return document.documentElement.dataset.theme") == theme
        assert chrome.execute_script(CONTRAST) == [], (theme, path)
        assert chrome.execute_script(NAMELESS) == [], path
        assert [f"/admin/{path}: {each}" for each in browser.violations(chrome)] == []


@pytest.mark.long("6 s: every page in seven widths")
def test_no_page_is_wider_than_the_window(stack: Stack, chrome: Chrome, paths: list[str]) -> None:
    """From a phone to 4K; tables that are wider scroll by themselves."""
    try:
        for path in paths:
            chrome.get(f"{stack.url}/admin/{path}")
            for width, height in SIZES:
                screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
                wide, window = chrome.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
                assert (wide <= window, window) == (True, width), (path, width, wide)
    finally:
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.long("3 s: axe-core, on pages that others look at too")
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


@pytest.mark.long("1 s: the address and the words of a page whose stream ends")
def test_live_stays_so_and_says_what_is_wrong(stack: Stack, chrome: Chrome) -> None:
    """Its address keeps the filters and that it is live; where the session ends it says so, and stops."""
    stack.ask("GET", "/v1/models")
    chrome.get(f"{stack.url}/admin/requests?status=2xx")
    chrome.find_element(By.CSS_SELECTOR, "[data-live-switch]").click()
    eventually(lambda: "live=1" in chrome.current_url and "status=2xx" in chrome.current_url, SECONDS)
    chrome.refresh()
    assert chrome.find_element(By.CSS_SELECTOR, "[data-live-switch]").is_selected()
    chrome.execute_cdp_cmd("Network.clearBrowserCookies", {})
    eventually(lambda: shows(chrome, "Your session is over"), SECONDS)
    assert not chrome.find_element(By.CSS_SELECTOR, "[data-live-switch]").is_selected()


def test_plots_by_keyboard(stack: Stack, chrome: Chrome) -> None:
    """The arrow keys go from point to point, and say what is there."""
    chrome.get(f"{stack.url}/admin/")
    chrome.execute_script("document.querySelector('svg.plot').focus({focusVisible: true})")
    keys(chrome, Keys.END)
    said = [chrome.find_element(By.CSS_SELECTOR, "output.reading").text]
    assert re.match(r"\d\d:\d\d · answered: \S+ · refused: \S+ · failed: \S+$", said[0]), said
    for key in (Keys.ARROW_LEFT, Keys.HOME, Keys.ARROW_RIGHT):
        keys(chrome, key)
        said.append(chrome.find_element(By.CSS_SELECTOR, "output.reading").text)
    assert len({each[:5] for each in said}) == 4, "each of another time"


def test_a_double_click_sends_a_form_once(stack: Stack, chrome: Chrome) -> None:
    chrome.get(f"{stack.url}/admin/groups")
    write(chrome, "/admin/groups", name="Clicked twice")
    button = chrome.find_element(By.XPATH, "//button[normalize-space()='Create group']")
    ActionChains(chrome, duration=0).double_click(button).perform()
    eventually(lambda: shows(chrome, "The group was created."), SECONDS)
    assert stack.manage("GET", "/manage/groups?search=Clicked+twice")["total"] == 1


@pytest.mark.long("1 s: that what was typed is kept, which the probes show without a browser")
def test_a_session_that_ends_while_a_form_is_filled_in(stack: Stack, chrome: Chrome) -> None:
    """What was written is there again once one is signed in, and is sent."""
    chrome.get(f"{stack.url}/admin/groups")
    write(chrome, "/admin/groups", name="Kept over signing in", budget_usd="3/month")
    chrome.execute_cdp_cmd("Network.clearBrowserCookies", {})
    press(chrome, "Create group")
    eventually(lambda: shows(chrome, "What you wrote is kept"), SECONDS)
    assert browser.violations(chrome) == []
    chrome.find_element(By.NAME, "secret").send_keys(MANAGEMENT, Keys.ENTER)
    eventually(lambda: shows(chrome, "Send it now?", "Kept over signing in", "3/month"), SECONDS)
    assert browser.violations(chrome) == []
    press(chrome, "Send it")
    eventually(lambda: shows(chrome, "The group was created.", "Kept over signing in", "$3.00"), SECONDS)


def test_an_id_is_copied(stack: Stack, chrome: Chrome) -> None:
    """Where the browser gives no clipboard to the page too."""
    chrome.get(f"{stack.url}/admin/projects/{stack.project}")
    chrome.execute_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    chrome.find_element(By.CSS_SELECTOR, "[data-copy='project-id']").click()
    assert chrome.execute_script("return getSelection().toString()") == stack.project


@pytest.mark.long("7 s: a first hour without a pointer")
def test_keyboard_only(stack: Stack, nobody: Chrome) -> None:
    """Sign in, create a project and a token, rotate and revoke it; what has the focus is always seen."""
    chrome = nobody
    chrome.get(f"{stack.url}/admin/")
    keys(chrome, MANAGEMENT, Keys.ENTER)  # the field has the focus
    eventually(lambda: shows(chrome, "Overview"), SECONDS)
    tab_to(chrome, text="Projects", tag="a")
    keys(chrome, Keys.ENTER)
    eventually(lambda: shows(chrome, "New project"), SECONDS)
    skip_to_content(chrome)
    tab_to(chrome, name="name")
    keys(chrome, "Keys and no mouse", Keys.ENTER)
    eventually(lambda: shows(chrome, "The project was created."), SECONDS)
    skip_to_content(chrome)
    tab_to(chrome, name="name", action="/tokens")  # where there is no token yet the form is open already
    keys(chrome, "by keyboard", Keys.ENTER)
    first = eventually(lambda: chrome.find_element(By.ID, "secret").text, SECONDS)
    skip_to_content(chrome)
    tab_to(chrome, text="To the token", tag="a")
    keys(chrome, Keys.ENTER)
    eventually(lambda: shows(chrome, "Its last requests"), SECONDS)
    skip_to_content(chrome)
    tab_to(chrome, name="grace")
    ActionChains(chrome, duration=0).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    keys(chrome, "1h", Keys.ENTER)
    chrome.switch_to.alert.accept()  # which the browser's own keys do as well
    eventually(lambda: shows(chrome, "What ends when"), SECONDS)
    assert chrome.find_element(By.ID, "secret").text != first
    skip_to_content(chrome)
    tab_to(chrome, text="To the token", tag="a")
    keys(chrome, Keys.ENTER)
    eventually(lambda: shows(chrome, "It was rotated"), SECONDS)
    keys(chrome, Keys.SHIFT, Keys.TAB)  # from the end of the page
    tab_to(chrome, text="Revoke token", tag="button", backwards=True)
    keys(chrome, Keys.SPACE)
    chrome.switch_to.alert.accept()
    eventually(lambda: shows(chrome, "The token was revoked"), SECONDS)
    tab_to(chrome, text="Sign out", tag="button")
    keys(chrome, Keys.ENTER)
    eventually(lambda: shows(chrome, "Management token or key"), SECONDS)


def keys(chrome: Chrome, *pressed: str) -> None:
    """Whatever has the focus gets them."""
    ActionChains(chrome, duration=0).send_keys(*pressed).perform()


def focused(chrome: Chrome) -> dict[str, Any]:
    found: dict[str, Any] = chrome.execute_script(FOCUSED)
    return found


def skip_to_content(chrome: Chrome) -> None:
    """By the link that every page begins with, which is seen only then."""
    keys(chrome, Keys.TAB)
    now = focused(chrome)
    assert now["text"] == "To the content" and now["ring"], now
    keys(chrome, Keys.ENTER)


def tab_to(
    chrome: Chrome, *, text: str = "", tag: str = "", name: str = "", action: str = "", backwards: bool = False
) -> None:
    """Press the key until what is so called has the focus: in the order of the page, and never in the dark."""
    for _ in range(80):
        keys(chrome, *((Keys.SHIFT, Keys.TAB) if backwards else (Keys.TAB,)))
        now = focused(chrome)
        assert now["tag"] in ("body", "html") or now["ring"], f"it is not seen that this has the focus: {now}"
        if (
            (not text or now["text"] == text)
            and (not tag or now["tag"] == tag)
            and (not name or now["name"] == name)
            and now["action"].endswith(action)
        ):
            return
    raise AssertionError(f"nothing of that name can be reached: {text or name}")


@pytest.fixture
def scriptless(stack: Stack, chrome: Chrome) -> Chrome:
    """A browser that is signed in, and runs no script."""
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    return chrome


def done(chrome: Chrome, button: str, *texts: str) -> None:
    press(chrome, button)
    eventually(lambda: shows(chrome, *texts), SECONDS)


@pytest.mark.long("6 s: projects and tokens without a script")
def test_projects_and_tokens_without_a_script(stack: Stack, scriptless: Chrome) -> None:
    """All that changes something works without one."""
    chrome = scriptless
    chrome.get(f"{stack.url}/admin/projects")
    write(chrome, "/admin/projects", name="No scripts")
    done(chrome, "Create project", "The project was created.")
    project = chrome.current_url.partition("?")[0]
    write(chrome, "/keys", key="sk-of-a-provider-0123456789")
    done(chrome, "Store key", "The project was changed.", "sk")
    write(chrome, project.rpartition("/")[2], requests_per_minute="60")
    done(chrome, "Save", "The project was changed.", "0 of 60")
    write(chrome, "/tokens", name="for a script")
    done(chrome, "Issue token", "The token was issued.")
    chrome.find_element(By.LINK_TEXT, "To the token").click()
    write(chrome, chrome.current_url.rpartition("/")[2], max_requests="5")
    done(chrome, "Save", "The token was changed.", "0 of 5")
    done(chrome, "Rotate token", "The token has another secret.", "What ends when")
    chrome.find_element(By.LINK_TEXT, "To the token").click()
    done(chrome, "Revoke token", "The token was revoked")
    chrome.get(project)
    done(chrome, "Remove", "The project was changed.", "None yet: without a provider's key")
    done(chrome, "Revoke all tokens", "All tokens of the project were revoked.")
    done(chrome, "Deactivate project", "The project was deactivated")
    done(chrome, "Activate project", "The project is active again.")


@pytest.mark.long("7 s: all that changes things, without a script")
def test_all_else_without_a_script(stack: Stack, scriptless: Chrome) -> None:
    """Groups, upstreams, the cache, keys, settings, colours and sessions."""
    chrome = scriptless
    chrome.get(f"{stack.url}/admin/playground")
    assert shows(chrome, "The playground needs JavaScript"), "which is the only one"
    form = chrome.find_element(By.ID, "playground")
    assert not form.is_displayed() and form.get_attribute("method") == "post", "no token gets into an address"
    chrome.get(f"{stack.url}/admin/groups")
    write(chrome, "/admin/groups", name="Without scripts")
    done(chrome, "Create group", "The group was created.")
    write(chrome, chrome.current_url.partition("?")[0].rpartition("/")[2], budget_usd="5/month")
    done(chrome, "Save", "The group was changed.", "$5.00")
    done(chrome, "Remove group", "The group was removed.")
    chrome.get(f"{stack.url}/admin/upstreams")
    for name, state in (("Drain", "draining"), ("Enable", "enabled")):
        patiently(lambda name=name: chrome.find_element(By.CSS_SELECTOR, f"[aria-label='{name} mistral']").click())
        eventually(lambda state=state: shows(chrome, "The provider's state was changed.", state), SECONDS)
    chrome.get(f"{stack.url}/admin/cache")
    write(chrome, "/admin/cache", api="openai")
    done(chrome, "Remove these", "The stored responses were removed.")
    chrome.get(f"{stack.url}/admin/keys")
    write(chrome, "/admin/keys", name="no scripts")
    done(chrome, "Issue key", "The key was issued.")
    chrome.find_element(By.LINK_TEXT, "To the keys").click()
    patiently(lambda: chrome.find_element(By.XPATH, "//tr[td[normalize-space()='no scripts']]//button").click())
    eventually(lambda: shows(chrome, "The key was revoked"), SECONDS)
    chrome.get(f"{stack.url}/admin/settings")
    done(chrome, "Reload the settings", "Reloaded.")
    patiently(lambda: Select(chrome.find_element(By.ID, "theme")).select_by_visible_text("dark"))
    press(chrome, "Set")
    eventually(lambda: '<html lang="en" data-theme="dark">' in chrome.page_source, SECONDS)
    chrome.get(f"{stack.url}/admin/sessions")
    patiently(lambda: chrome.find_element(By.XPATH, "//tr[contains(., 'this one')]//button").click())
    eventually(lambda: shows(chrome, "Management token or key"), SECONDS)


FOCUSED = """
const now = document.activeElement, style = getComputedStyle(now);
return {
  tag: now.tagName.toLowerCase(), text: now.textContent.trim(), name: now.getAttribute("name") || "",
  action: (now.form && now.form.getAttribute("action")) || "",
  ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
};
"""
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
