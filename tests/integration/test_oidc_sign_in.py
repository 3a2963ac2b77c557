"""People sign in to the admin pages by an OpenID Connect provider, through the started daemon."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from selenium.webdriver.common.by import By

from tests.support import browser
from tests.support.oidc_server import CLIENT_ID, CLIENT_SECRET, OidcServer
from tests.support.processes import HOST, free_port, run_command
from tests.support.responses import Response
from tests.support.stack import Stack, eventually
from tests.unit.wire.authority import Authority

SETTINGS = """
management:
  oidc:
    issuer: {issuer}
    client_id: {client}
    redirect_uri: http://127.0.0.1:{port}/admin/oidc/callback
    scopes: [openid, email, groups]
    claims: {{name: nickname, role: realm.roles, projects: team}}
    roles: {{admin: [llm-admin], operator: [llm-operator], viewer: [llm-viewer, everybody]}}
    ca_file: "{ca_file}"
"""


class SignInStack(Stack):
    """One whose port is known before its settings are written."""

    def another(self, name: str = "llmproxy") -> Any:
        daemon = super().another(name)
        settings = self.home / f"{name}.yaml"
        settings.write_text(settings.read_text().replace("{port}", str(daemon.port)))
        return daemon


def started(provider: OidcServer, home: Path, ca_file: str = "") -> SignInStack:
    further = SETTINGS.format(issuer=provider.issuer, client=CLIENT_ID, port="{port}", ca_file=ca_file)
    return SignInStack(home, further=further, env={"LLMPROXY_OIDC_CLIENT_SECRET": CLIENT_SECRET})


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcServer]:
    with OidcServer(tmp_path_factory.mktemp("oidc") / "oidc.log") as provider:
        yield provider


@pytest.fixture(scope="module")
def stack(provider: OidcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignInStack]:
    with started(provider, tmp_path_factory.mktemp("sign-in")) as stack:
        yield stack


class Visitor:
    """A browser as far as cookies go; it follows nothing by itself."""

    def __init__(self, stack: Stack) -> None:
        self.cookies: dict[str, str] = {}
        self.set: list[str] = []
        self._port = stack.daemon.port

    def get(self, path: str) -> Response:
        connection = HTTPConnection(HOST, self._port, timeout=30)
        try:
            cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
            answer = connection.getresponse()
            fields = answer.getheaders()
            self.set = [value for name, value in fields if name.lower() == "set-cookie"]
            for each in self.set:
                name, _, value = each.partition(";")[0].partition("=")
                self.cookies[name] = value
            return Response.whole(answer.status, answer.reason, fields, answer.read())
        finally:
            connection.close()

    def at_provider(self, following: str = "/admin/") -> str:
        """The path that the provider sends it back to."""
        sent = self.get("/admin/oidc/sign-in?" + urlencode({"next": following}))
        assert sent.status == 303, sent.body
        url = urlsplit(str(sent.header("location")))
        connection = HTTPConnection(HOST, url.port or 0, timeout=30)
        try:
            connection.request("GET", f"{url.path}?{url.query}")
            page = connection.getresponse().read().decode()
        finally:
            connection.close()
        [link] = re.findall(r"href='([^']*)'", page)
        back = urlsplit(link.replace("&amp;", "&"))
        return f"{back.path}?{back.query}"


def audited(stack: Stack) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (stack.home / "audit.jsonl").read_text().splitlines()]
    return [line for line in lines if line["action"] == "admin.sign_in"]


def test_where_a_browser_is_sent(stack: SignInStack, provider: OidcServer) -> None:
    """With everything that keeps others from finishing what it began, and a cookie that only comes back there."""
    visitor = Visitor(stack)
    assert b"/admin/oidc/sign-in" in visitor.get("/admin/").body
    sent = visitor.get("/admin/oidc/sign-in")
    query = {name: values[0] for name, values in parse_qs(urlsplit(str(sent.header("location"))).query).items()}
    assert str(sent.header("location")).startswith(f"{provider.issuer}/authorize?")
    assert query["redirect_uri"] == f"http://127.0.0.1:{stack.daemon.port}/admin/oidc/callback"
    assert (query["scope"], query["code_challenge_method"]) == ("openid email groups", "S256")
    assert min(len(query[name]) for name in ("state", "nonce", "code_challenge")) == 43
    [cookie] = visitor.set
    assert "Path=/admin/oidc;" in cookie and "HttpOnly" in cookie and "SameSite=Lax" in cookie
    for told in ("state", "nonce", "code_challenge"):
        assert query[told] not in cookie


def test_a_person_signs_in(stack: SignInStack, provider: OidcServer) -> None:
    """The page that was asked for follows; the session is as strict as any other, and ends by signing out."""
    provider.person(sub="ada", nickname="Ada <b>L.</b>", realm={"roles": ["llm-viewer", "llm-admin"]})
    visitor = Visitor(stack)
    arrived = visitor.get(visitor.at_provider("/admin/keys"))
    assert arrived.status == 200 and b'content="0; url=/admin/keys"' in arrived.body
    assert "script-src 'self'" in str(arrived.header("content-security-policy"))
    session, gone = visitor.set
    assert "SameSite=Strict" in session and "HttpOnly" in session and "Path=/admin;" in session
    assert gone.startswith("llmproxy_sign_in=;") and "Max-Age=0" in gone
    page = visitor.get("/admin/keys")
    assert page.status == 200 and b"Ada &lt;b&gt;L.&lt;/b&gt;" in page.body
    entry = audited(stack)[-1]
    assert re.fullmatch(r"oidc:[0-9a-f]{8}:ada", entry["actor"]) and entry["outcome"] == "success"


def test_roles(stack: SignInStack, provider: OidcServer) -> None:
    """The highest that a claim gives, with the projects that another one names; without any, nobody is signed in."""
    provider.person(sub="bob", realm={"roles": "llm-operator everybody"}, team=[stack.project])
    operator = Visitor(stack)
    assert operator.get(operator.at_provider()).status == 200
    assert operator.get(f"/admin/projects/{stack.project}").status == 200
    assert operator.get("/admin/keys").status == 403
    provider.person(sub="carl", realm={"roles": ["everybody"]})
    viewer = Visitor(stack)
    assert viewer.get(viewer.at_provider()).status == 200
    assert viewer.get(f"/admin/projects/{stack.project}").status == 404  # the claim names no project
    for claims in ({"realm": {"roles": ["others"]}}, {}, {"realm": {"roles": 5}}):
        provider.person(sub="dan", **claims)
        nobody = Visitor(stack)
        assert nobody.get(nobody.at_provider()).status == 401
        assert "llmproxy_session" not in nobody.cookies
        assert nobody.get("/admin/keys").status == 401


def test_what_is_refused(stack: SignInStack, provider: OidcServer) -> None:
    """Another browser's answer, one that was changed or comes twice, and ID tokens that are not for here and now."""
    good: dict[str, Any] = {"sub": "eve", "realm": {"roles": ["llm-admin"]}}
    provider.person(**good)

    def outcome(change: Any = lambda path: path, **claims: Any) -> int:
        provider.person(**good, **claims)
        visitor = Visitor(stack)
        status = visitor.get(change(visitor.at_provider())).status
        assert ("llmproxy_session" in visitor.cookies) is (status == 200)
        return status

    assert outcome() == 200
    other = Visitor(stack).at_provider()
    assert outcome(lambda path: other) == 401
    assert Visitor(stack).get(other).status == 401
    assert outcome(lambda path: re.sub(r"code=\w+", "code=guess", path)) == 401
    assert outcome(lambda path: re.sub(r"state=[^&]+", "state=x", path)) == 401
    assert outcome(lambda path: re.sub(r"iss=[^&]+", "iss=https://evil.example", path)) == 401
    assert outcome(lambda path: re.sub(r"code=\w+", "error=access_denied", path)) == 401
    for claims in (
        {"nonce": "another"},
        {"aud": "llmproxy"},
        {"aud": [CLIENT_ID, "x"]},
        {"azp": "x"},
        {"exp": 1_700_000_000},
        {"iss": "http://localhost:1"},
        {"sub": ""},
    ):
        provider.person(**{**good, **claims})
        visitor = Visitor(stack)
        assert visitor.get(visitor.at_provider()).status == 401, claims
    visitor = Visitor(stack)
    provider.person(**good)
    back = visitor.at_provider()
    kept = dict(visitor.cookies)
    assert visitor.get(back).status == 200
    visitor.cookies = dict(kept)
    assert visitor.get(back).status == 401
    failed = [entry for entry in audited(stack) if entry["outcome"] == "failure"]
    assert failed and len(failed) <= 5  # of a kind, once in a minute
    assert failed[0]["details"]["by"] == "oidc"
    log = stack.daemon.output()
    assert CLIENT_SECRET not in log and kept["llmproxy_sign_in"] not in log


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_id_tokens_that_anybody_can_make(stack: SignInStack, provider: OidcServer, algorithm: str) -> None:
    """Without a signature, or with the provider's public key as a shared secret: nobody is signed in."""
    provider.person(sub="eve", realm={"roles": ["llm-admin"]})
    provider.forge(algorithm)
    try:
        visitor = Visitor(stack)
        assert visitor.get(visitor.at_provider()).status == 401
        assert "llmproxy_session" not in visitor.cookies
    finally:
        provider.forge("")
    assert visitor.get(visitor.at_provider()).status == 200


def test_a_session_that_somebody_else_has_chosen(stack: SignInStack, provider: OidcServer) -> None:
    """Session fixation: whatever cookie a browser comes with, a sign-in gives it a fresh one, and one that is made up
    opens nothing; an answer that somebody else began with their own cookie signs nobody in."""
    provider.person(sub="ada", realm={"roles": ["llm-admin"]})
    attacker = Visitor(stack)
    assert attacker.get(attacker.at_provider()).status == 200
    planted = attacker.cookies["llmproxy_session"]
    assert attacker.get("/admin/sessions").status == 200
    victim = Visitor(stack)
    victim.cookies["llmproxy_session"] = planted
    assert victim.get(victim.at_provider()).status == 200
    assert victim.cookies["llmproxy_session"] != planted
    chosen = Visitor(stack)
    chosen.cookies["llmproxy_session"] = "A" * 43
    assert chosen.get(chosen.at_provider()).status == 200
    assert chosen.cookies["llmproxy_session"] != "A" * 43
    stranger = Visitor(stack)
    stranger.cookies["llmproxy_session"] = "A" * 43
    assert stranger.get("/admin/keys").status == 401
    answer = Visitor(stack).at_provider()  # of a flow that the attacker began: login CSRF
    assert Visitor(stack).get(answer).status == 401


def test_a_code_that_comes_twice(stack: SignInStack, provider: OidcServer) -> None:
    """Neither again in the same browser, nor in another one with its own flow under way."""
    provider.person(sub="ada", realm={"roles": ["llm-admin"]})
    visitor = Visitor(stack)
    back = visitor.at_provider()
    assert visitor.get(back).status == 200
    other = Visitor(stack)
    own = other.at_provider()
    code = re.findall(r"code=\w+", back)[0]
    assert other.get(re.sub(r"code=\w+", code, own)).status == 401
    assert "llmproxy_session" not in other.cookies


def test_a_subject_that_is_revoked(stack: SignInStack, provider: OidcServer) -> None:
    """Its sessions end, in whatever browser, and it cannot begin another."""
    provider.person(sub="mallory", realm={"roles": ["llm-admin"]})
    visitor = Visitor(stack)
    assert visitor.get(visitor.at_provider()).status == 200
    assert visitor.get("/admin/keys").status == 200
    stack.manage("POST", "/manage/subjects/revoke", {"issuer": provider.issuer, "sub": "mallory"})
    assert visitor.get("/admin/keys").status == 401
    again = Visitor(stack)
    refused = again.get(again.at_provider())
    assert refused.status == 401 and b"revoked" in refused.body
    assert "llmproxy_session" not in again.cookies


def test_next_is_a_page_of_ours(stack: SignInStack, provider: OidcServer) -> None:
    provider.person(sub="ada", realm={"roles": ["llm-admin"]})
    for following in ("https://evil.example/", "//evil.example", "/admin/\\evil", "javascript:alert(1)"):
        visitor = Visitor(stack)
        page = visitor.get(visitor.at_provider(following)).body.decode()
        assert "evil" not in page.replace("/admin/\\evil", "") and "alert" not in page


def test_the_provider_is_away(stack: SignInStack, provider: OidcServer) -> None:
    provider.person(sub="ada", realm={"roles": ["llm-admin"]})
    visitor = Visitor(stack)
    back = visitor.at_provider()
    provider.available(False)
    try:
        assert visitor.get(back).status == 503
    finally:
        provider.available(True)


def test_by_tls(tmp_path: Path) -> None:
    """The authority of ca_file is trusted."""
    authority = Authority(tmp_path)
    authority.server("localhost")
    with (
        OidcServer(tmp_path / "oidc.log", tmp_path / "server.pem") as provider,
        started(provider, tmp_path, authority.ca_file) as stack,
    ):
        sent = eventually(lambda: Visitor(stack).get("/admin/oidc/sign-in"))
        assert sent.status == 303 and str(sent.header("location")).startswith(provider.issuer)


def test_settings_that_are_refused(tmp_path: Path) -> None:
    twistd = Path(sys.executable).with_name("twistd")
    good = {
        "issuer": "https://id.example.com",
        "client_id": "x",
        "redirect_uri": "https://llm.example.com/admin/oidc/callback",
        "roles": {"admin": ["a"]},
    }
    for wrong, said in (
        ({"redirect_uri": "https://llm.example.com/"}, "redirect_uri must end with /admin/oidc/callback"),
        ({"redirect_uri": ""}, "redirect_uri is missing"),
        ({"client_id": ""}, "client_id is missing"),
        ({"roles": {}}, "roles is empty"),
        ({"scopes": ["email"]}, "scopes must have openid"),
        ({"issuer": "http://id.example.com"}, "https://"),
        ({"issuer": "http://id.example.com", "allow_http": True}, ""),
        ({}, ""),
    ):
        settings = tmp_path / "apis.yaml"
        document = {
            "apis": {"a": {"base_url": f"http://127.0.0.1:{free_port()}", "allowed_endpoints": ["/x"]}},
            "management": {"oidc": {**good, **wrong}},
        }
        settings.write_text(json.dumps(document))
        command = [str(twistd), "-n", "llmproxy", "--config", str(settings), "--check"]
        done = run_command(command)
        assert (done.returncode == 0) is (not said) and said in done.stdout + done.stderr, (wrong, done)


@pytest.mark.long("3 s: the same in Chromium")
def test_in_a_browser(stack: SignInStack, provider: OidcServer) -> None:
    """The provider is another site: its answer begins a strict session all the same, and nothing breaks the policy."""
    provider.person(sub="ada", nickname="Ada", realm={"roles": ["llm-admin"]})
    with browser.opened() as chrome:
        chrome.get(f"{stack.url}/admin/keys")
        chrome.find_element(By.LINK_TEXT, "Sign in with your account").click()
        chrome.find_element(By.LINK_TEXT, "Continue").click()
        eventually(lambda: chrome.current_url.endswith("/admin/keys"))
        assert "Ada" in chrome.find_element(By.TAG_NAME, "body").text
        chrome.get(f"{stack.url}/admin/")
        assert chrome.find_element(By.TAG_NAME, "h1").text == "Overview"
        chrome.find_element(By.XPATH, "//button[normalize-space()='Sign out']").click()
        eventually(lambda: chrome.find_elements(By.LINK_TEXT, "Sign in with your account"))
        wrong = [each for each in chrome.get_log("browser") if each["level"] in ("SEVERE", "WARNING")]
        assert not [each for each in wrong if "Failed to load resource" not in each["message"]], wrong
