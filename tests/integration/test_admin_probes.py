"""The admin pages under attack and under clumsy hands: every address, for everybody who may not use it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from llmproxy.web.admin.pages import ROUTES
from tests.support.admin_visitor import Visitor
from tests.support.responses import Response
from tests.support.stack import MANAGEMENT, Stack, eventually

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
ID = "([A-Za-z0-9._:%-]{1,200})"  # in the routes
OK, FORBIDDEN, NOT_FOUND = 200, 403, 404


class Expected(NamedTuple):
    """What an address responds with to who may not do everything.

    @ivar viewer: To a viewer of all projects.
    @ivar own: To an operator of one project, where the address is of that, or of none.
    @ivar others: To the same, where it is of another project; C{None} for an address that is of none.
    """

    viewer: int
    own: int | None
    others: int | None = None


# Every address of the pages. One that is not here fails the test: whoever adds a page says here who may see it.
EXPECTED: dict[str, dict[str, Expected]] = {
    "/admin/": {"GET": Expected(OK, OK)},
    "/admin/projects": {"GET": Expected(OK, OK), "POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/projects.csv": {"GET": Expected(OK, OK)},
    "/admin/projects/{id}": {"GET": Expected(OK, OK, NOT_FOUND), "POST": Expected(FORBIDDEN, FORBIDDEN, NOT_FOUND)},
    "/admin/projects/{id}/keys": {"POST": Expected(FORBIDDEN, FORBIDDEN, NOT_FOUND)},
    "/admin/projects/{id}/active": {"POST": Expected(FORBIDDEN, FORBIDDEN, NOT_FOUND)},
    "/admin/projects/{id}/revoke": {"POST": Expected(FORBIDDEN, None, NOT_FOUND)},
    "/admin/projects/{id}/tokens": {"POST": Expected(FORBIDDEN, 201, NOT_FOUND)},
    "/admin/groups": {"GET": Expected(OK, FORBIDDEN), "POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/groups/{id}": {"GET": Expected(OK, FORBIDDEN), "POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/groups/{id}/delete": {"POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/tokens": {"GET": Expected(OK, OK)},
    "/admin/tokens.csv": {"GET": Expected(OK, OK)},
    "/admin/tokens/{id}": {"GET": Expected(OK, OK, NOT_FOUND), "POST": Expected(FORBIDDEN, 303, NOT_FOUND)},
    "/admin/tokens/{id}/revoke": {"POST": Expected(FORBIDDEN, None, NOT_FOUND)},
    "/admin/tokens/{id}/rotate": {"POST": Expected(FORBIDDEN, 201, NOT_FOUND)},
    "/admin/alerts": {"GET": Expected(OK, OK)},
    "/admin/alerts.csv": {"GET": Expected(OK, OK)},
    "/admin/usage": {"GET": Expected(OK, OK)},
    "/admin/usage.csv": {"GET": Expected(OK, OK)},
    "/admin/requests": {"GET": Expected(OK, OK)},
    "/admin/requests.csv": {"GET": Expected(OK, OK)},
    "/admin/requests/{id}": {"GET": Expected(OK, OK, NOT_FOUND)},
    "/admin/upstreams": {"GET": Expected(OK, FORBIDDEN)},
    "/admin/upstreams/{id}/{id}": {"POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/cache": {"GET": Expected(OK, FORBIDDEN), "POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/playground": {"GET": Expected(OK, OK)},
    "/admin/keys": {"GET": Expected(FORBIDDEN, FORBIDDEN), "POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/keys/{id}/revoke": {"POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/audit": {"GET": Expected(FORBIDDEN, OK)},
    "/admin/settings": {"GET": Expected(FORBIDDEN, FORBIDDEN), "POST": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/sessions": {"GET": Expected(FORBIDDEN, FORBIDDEN)},
    "/admin/sessions/{id}/end": {"POST": Expected(FORBIDDEN, FORBIDDEN)},
}
# What a form must have to be one that would do something.
FORMS = {
    "/admin/projects": {"name": "forged"},
    "/admin/projects/{id}": {"name": "forged"},
    "/admin/projects/{id}/keys": {"api": "openai", "key": "sk-forged-0123456789"},
    "/admin/projects/{id}/active": {"active": "false"},
    "/admin/projects/{id}/tokens": {"name": "forged"},
    "/admin/groups": {"name": "forged"},
    "/admin/groups/{id}": {"name": "forged"},
    "/admin/tokens/{id}": {"name": "forged"},
    "/admin/tokens/{id}/rotate": {"grace": "1h"},
    "/admin/upstreams/{id}/{id}": {"state": "disabled"},
    "/admin/cache": {"all": "1"},
    "/admin/keys": {"name": "forged", "role": "admin"},
}
ADDRESSES = sorted((address, method) for address, methods in EXPECTED.items() for method in methods)


class Place(NamedTuple):
    """A project with something of each kind in it."""

    project: str
    token: str
    request: str


class House(NamedTuple):
    """The started daemon with two projects, and who may what in it."""

    stack: Stack
    own: Place
    others: Place
    group: str
    key: str
    session: str
    admin: Visitor
    viewer: Visitor
    bound: Visitor


def furnished(stack: Stack, name: str) -> Place:
    project = stack.manage("POST", "/manage/projects", {"name": name, "api_keys": dict(stack.keys)})["id"]
    token = stack.manage("POST", "/manage/tokens", {"project_id": project, "name": f"{name}: token"})
    asked(stack, token["token"])
    found = eventually(lambda: stack.manage("GET", f"/manage/requests?project_id={project}")["data"])
    return Place(project, token["id"], found[0]["request_id"])


def asked(stack: Stack, token: str, model: str = "gpt-4o", **fields: str) -> Response:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode()
    return stack.ask("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **fields}, token=token)


def signed_in(stack: Stack, secret: str = MANAGEMENT) -> Visitor:
    visitor = Visitor(stack.daemon.port)
    assert visitor.sign_in(secret).status == 303
    return visitor


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    further = "cache: {enabled: true}\nattribution: {user: X-User}\n"
    with Stack(tmp_path_factory.mktemp("probes"), further=further) as stack:
        own, others = furnished(stack, "Our own"), furnished(stack, "Secret of others")
        group = stack.manage("POST", "/manage/groups", {"name": "Secret of others"})["id"]
        viewer = stack.manage("POST", "/manage/keys", {"name": "Vera", "role": "viewer"})
        bound = stack.manage("POST", "/manage/keys", {"name": "Lena", "role": "operator", "projects": [own.project]})
        admin = signed_in(stack)
        session = re.findall(r"/admin/sessions/(\w+)/end", admin.get("/admin/sessions").body.decode())[0]
        people = (signed_in(stack, each["key"]) for each in (viewer, bound))
        yield House(stack, own, others, group, viewer["id"], session, admin, *people)


def path_of(house: House, address: str, place: Place) -> str:
    """The address with ids of this place, or of what is in no place."""
    ids = {
        "projects": place.project,
        "tokens": place.token,
        "requests": place.request,
        "groups": house.group,
        "keys": house.key,
        "sessions": house.session,
    }
    if address == "/admin/upstreams/{id}/{id}":
        return "/admin/upstreams/openai/0"
    return address.replace("{id}", ids.get(address.split("/")[2], ""))


def visit(visitor: Visitor, method: str, path: str, form: dict[str, str], **fields: str) -> Response:
    return visitor.get(path, **fields) if method == "GET" else visitor.post(path, form, **fields)


def is_protected(reply: Response) -> bool:
    """Nobody may frame it, nothing inline runs in it, no browser or proxy keeps it."""
    policy = reply.header("Content-Security-Policy") or ""
    if (reply.header("Content-Type") or "").startswith("text/html"):
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'"), policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
        assert reply.header("X-Frame-Options") == "DENY"
        assert inline_parts(reply.body.decode()) == []
    return reply.header("Cache-Control") == "no-store"


class Inline(HTMLParser):
    """Finds what a page would run, or be styled by, that is no file of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [f"{tag} {name}" for name in values if name == "style" or name.startswith("on")]
        links = [value or "" for name, value in attrs if name in ("href", "src", "action", "formaction")]
        self.found += [each for each in links if not re.match(r"/admin/|[?#]", each)]
        if tag in ("script", "style", "iframe", "object", "base") and not (tag == "script" and values.get("src")):
            self.found.append(tag)


def inline_parts(page: str) -> list[str]:
    parser = Inline()
    parser.feed(page)
    return parser.found


def test_every_address_is_in_the_table() -> None:
    found = {pattern.pattern.replace(ID, "{id}"): set(methods) for pattern, methods in ROUTES}
    assert found == {address: set(methods) for address, methods in EXPECTED.items()}


@pytest.mark.parametrize(("address", "method"), ADDRESSES)
def test_who_may(house: House, address: str, method: str) -> None:
    """A stranger, another site, a viewer, an operator of one project: what each gets, and that nothing was done."""
    expected, form = EXPECTED[address][method], FORMS.get(address, {})
    own, others = path_of(house, address, house.own), path_of(house, address, house.others)
    stranger = visit(Visitor(house.admin.port), method, others, form)
    assert stranger.status == (OK if address == "/admin/" else 401) and b"Sign in" in stranger.body
    replies = [stranger, visit(house.admin, "PUT" if method == "GET" else "POST", others, form)]
    if method == "POST":
        forged = [
            visit(house.admin, "POST", others, {**form, "csrf": house.viewer.csrf()}),
            visit(house.admin, "POST", others, {**form, "csrf": house.admin.csrf()}, Origin="https://evil.example"),
            visit(house.admin, "POST", others, {**form, "csrf": house.admin.csrf()}, Sec_Fetch_Site="same-site"),
        ]
        assert {each.status for each in forged} == {FORBIDDEN}
        replies += forged
    viewed = visit(house.viewer, method, own, {**form, "csrf": house.viewer.csrf()})
    assert viewed.status == expected.viewer
    replies.append(viewed)
    if expected.own is not None:
        bound = visit(house.bound, method, own, {**form, "csrf": house.bound.csrf()})
        assert bound.status == expected.own, bound.body[:2000]
        replies.append(bound)
        assert b"Secret of others" not in bound.body and house.others.project.encode() not in bound.body
    if expected.others is not None:
        bound = visit(house.bound, method, others, {**form, "csrf": house.bound.csrf()})
        assert bound.status == expected.others, bound.body[:2000]
        replies.append(bound)
        assert b"Secret of others" not in bound.body
    assert all(is_protected(each) for each in replies), [(each.status, each.lines) for each in replies]


def test_nothing_was_forged(house: House) -> None:
    """After all of the above; also if it is run alone."""
    stack, csrf = house.stack, house.viewer.csrf()
    for address, method in ADDRESSES:
        if method == "POST":
            path = path_of(house, address, house.others)
            house.viewer.post(path, {**FORMS.get(address, {}), "csrf": csrf})
            house.bound.post(path, {**FORMS.get(address, {}), "csrf": house.bound.csrf()})
    project = stack.manage("GET", f"/manage/projects/{house.others.project}")
    assert (project["name"], project["active"]) == ("Secret of others", True)
    assert project["api_keys"].keys() == stack.keys.keys()
    token = stack.manage("GET", f"/manage/tokens/{house.others.token}")
    assert (token["name"], token["state"]) == ("Secret of others: token", "active")
    assert stack.manage("GET", f"/manage/tokens?project_id={house.others.project}")["total"] == 1
    assert stack.manage("GET", f"/manage/groups/{house.group}")["name"] == "Secret of others"
    assert stack.manage("GET", f"/manage/keys/{house.key}")["active"]
    assert {each["state"] for each in stack.manage("GET", "/manage/upstreams")["data"]} == {"enabled"}
    assert "forged" not in json.dumps([stack.manage("GET", f"/manage/{each}") for each in ("groups", "keys")])
    assert house.admin.get("/admin/").status == OK, "its session is not over"


def test_every_error_is_protected_too(house: House) -> None:
    admin = house.admin
    replies = [
        admin.get("/admin/nothing"),
        admin.get("/admin/projects/nothing"),
        admin.get("/admin/projects?cursor=nothing"),
        admin.get("/admin/static/nothing.js"),
        admin.post("/admin/projects", {"name": "x" * 300_000}),
        admin.post("/admin/usage", {"csrf": admin.csrf()}),
        Visitor(admin.port).sign_in("wrong"),
        admin.sign_in(),
        admin.get("/admin/%ff%00?%zz"),
    ]
    assert [each.status for each in replies] == [404, 404, 422, 404, 413, 405, 401, 303, 400]
    assert all(is_protected(each) for each in replies)


def test_a_session_cannot_be_brought_along(house: House) -> None:
    """Whatever cookie somebody came with: signing in makes another one, and the one before opens nothing."""
    fixed = "llmproxy_session=" + "A" * 43
    victim, attacker = Visitor(house.admin.port), Visitor(house.admin.port)
    victim.cookie = attacker.cookie = fixed
    assert victim.sign_in().status == 303
    assert victim.cookie != fixed and attacker.get("/admin/projects").status == 401
    again = Visitor(house.admin.port)
    again.cookie = before = victim.cookie
    assert again.sign_in().status == 303 and again.cookie != before
    csrf = again.csrf()
    assert again.post("/admin/sign-out", {"csrf": csrf}).status == 303
    assert again.get("/admin/projects").status == 401, "what was signed out opens nothing, with the same cookie"


def test_what_a_cookie_says(house: House) -> None:
    reply = Visitor(house.admin.port).post("/admin/sign-in", {"secret": MANAGEMENT, "next": "/admin/"})
    value, *attributes = [each.strip() for each in (reply.header("Set-Cookie") or "").split(";")]
    assert re.fullmatch(r"llmproxy_session=[\w-]{43}", value)
    assert {each.partition("=")[0] for each in attributes} == {"Path", "Max-Age", "HttpOnly", "SameSite"}
    assert "SameSite=Strict" in attributes and "Path=/admin" in attributes


def test_what_clients_and_providers_say_is_only_text(house: House) -> None:
    """Models, paths, attributions, user agents, and the names of keys that sign in: wherever they are shown."""
    stack = house.stack
    project = stack.manage("POST", "/manage/projects", {
        "name": EVIL, "api_keys": dict(stack.keys), "metadata": {"m": EVIL},
        "soft_budget_tokens": "1/day",
    })["id"]  # fmt: skip
    token = stack.manage("POST", "/manage/tokens", {"project_id": project, "name": EVIL, "metadata": {"m": EVIL}})
    key = stack.manage("POST", "/manage/keys", {"name": EVIL, "role": "admin"})
    asked(stack, token["token"], EVIL, **{"User-Agent": EVIL, "X-User": EVIL, "X-Request-ID": "evil-1"})
    stack.ask("GET", "/v1/models/" + quote(EVIL, safe="'()"), token=token["token"], headers={"User-Agent": EVIL})

    def evil_ones() -> list[str]:
        found = stack.manage("GET", "/manage/requests?limit=50")["data"]
        return [each["request_id"] for each in found if each["user_agent"] == EVIL]

    eventually(lambda: len(evil_ones()) == 2, 30.0)
    eventually(lambda: stack.manage("GET", f"/manage/alerts?project_id={project}")["data"], 30.0)
    evil = Visitor(stack.daemon.port)
    sign_in = evil.post("/admin/sign-in", {"secret": key["key"], "next": "/admin/"}, User_Agent=EVIL)
    evil.cookie = (sign_in.header("Set-Cookie") or "").partition(";")[0]
    requests = evil_ones()
    paths = (
        *("", "projects", "tokens", "groups", "requests", "alerts", "keys", "sessions", "audit?search=alert"),
        *(f"projects/{project}", f"tokens/{token['id']}", f"?project_id={project}", "usage?by=project,model,user"),
        *(f"requests/{each}" for each in requests),
        *(f"{each}?{urlencode({'project': EVIL})}" for each in ("tokens", "requests", "usage", "alerts", "audit", "")),
        *(f"{each}?{urlencode({'project': 'no ' + EVIL, 'label': EVIL})}" for each in ("tokens", "projects", "cache")),
    )
    for path in paths:
        reply = evil.get(f"/admin/{path}")
        assert reply.status in (200, 422) and is_protected(reply), (path, reply.status)
        assert b"<script>alert" not in reply.body and b"<img src=x" not in reply.body, path
    shown = evil.get(f"/admin/requests/{requests[-1]}").body.decode()
    assert shown.count("&lt;script&gt;alert") >= 3, "it is shown, as text"


def test_a_form_outlives_its_session(house: House) -> None:
    """What was written is in the page to sign in, and is sent after it by whoever looks at it again."""
    stack = house.stack
    visitor = signed_in(stack)
    csrf = visitor.csrf()
    visitor.post("/admin/sign-out", {"csrf": csrf})
    form = {"name": "Written for long & with <care>", "budget_usd": "7/month", "csrf": csrf}
    lost = visitor.post("/admin/groups", form)
    assert lost.status == 401 and b"What you wrote is kept" in lost.body and csrf.encode() not in lost.body
    fields = hidden(lost)
    assert fields["kept_path"] == "/admin/groups"
    wrong = visitor.post("/admin/sign-in", {**fields, "secret": "wrong"})
    assert wrong.status == 401 and hidden(wrong) == fields
    right = visitor.post("/admin/sign-in", {**fields, "secret": MANAGEMENT})
    visitor.cookie = (right.header("Set-Cookie") or "").partition(";")[0]
    assert right.status == 200 and b"Written for long &amp; with &lt;care&gt;" in right.body and is_protected(right)
    assert "Written for long" not in json.dumps(stack.manage("GET", "/manage/groups")), "nothing is sent by itself"
    sent = visitor.post("/admin/groups", hidden(right))
    assert sent.status == 303
    made = stack.manage("GET", f"/manage/groups/{(sent.header('Location') or '').split('/')[3].split('?')[0]}")
    assert (made["name"], made["budget_usd"]) == ("Written for long & with <care>", ["7/month"])
    resumed = visitor.post("/admin/resume", fields)
    assert resumed.status == 200 and hidden(resumed)["csrf"] == visitor.csrf()


def test_what_is_kept_is_a_form_of_these_pages(house: House) -> None:
    """Nobody makes the proxy send a form elsewhere, or through a page of another site."""
    visitor = signed_in(house.stack)
    for path in (
        "https://evil.example/",
        "//evil.example",
        "/v1/chat/completions",
        "/admin/usage",
        "/admin/sign-out",
        "",
    ):
        reply = visitor.post("/admin/sign-in", {"secret": MANAGEMENT, "kept_path": path, "kept": "a=b"})
        assert (reply.status, reply.header("Location")) == (303, "/admin/"), path
        assert visitor.post("/admin/resume", {"kept_path": path, "kept": "a=b"}).status in (403, 404), path
    good = {"secret": MANAGEMENT, "kept_path": "/admin/projects", "kept": "name=forged"}
    assert visitor.post("/admin/sign-in", good, Origin="https://evil.example").status == 403
    secret = visitor.post(
        "/admin/resume", {"kept_path": f"/admin/projects/{house.own.project}/keys", "kept": "key=sk-1"}
    )
    assert secret.status == 200 and b"(not shown)" in secret.body and b"<dd>sk-1" not in secret.body


def hidden(reply: Response) -> dict[str, str]:
    """The hidden fields of the last form of a page."""
    form = reply.body.decode().rpartition("<form")[2]
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    return {name: unescape(value) for name, value in found}


def test_a_form_that_is_sent_twice_creates_once(house: House) -> None:
    """Project, group, token and key: the second time responds with the same; a fresh page makes another."""
    stack, admin = house.stack, signed_in(house.stack)
    tokens = f"/admin/projects/{house.own.project}/tokens"
    for page, path, form in (
        ("/admin/projects", "/admin/projects", {"name": "Twice"}),
        ("/admin/groups", "/admin/groups", {"name": "Twice"}),
        ("/admin/keys", "/admin/keys", {"name": "Twice", "role": "viewer"}),
        (f"/admin/projects/{house.own.project}", tokens, {"name": "Twice"}),
    ):
        once = re.findall(r'name="once" value="(\w+)"', admin.get(page).body.decode())
        assert len(once) == 1, page
        replies = [admin.post(path, {**form, "csrf": admin.csrf(), "once": once[0]}) for _ in range(2)]
        assert {each.status for each in replies} <= {201, 303} and issued(replies[0]) == issued(replies[1]), path
        other = admin.post(path, {**form, "name": "Other", "csrf": admin.csrf(), "once": once[0]})
        assert other.status == 422, "the same form with something else in it"
    for kind in ("projects?search=Twice", "tokens?search=Twice", "groups?search=Twice"):
        assert stack.manage("GET", f"/manage/{kind}")["total"] == 1, kind


def issued(reply: Response) -> str:
    """What it leads to: the page of what was made, or the secret that is shown once."""
    secret = re.search(r'<code id="secret">([^<]+)', reply.body.decode())
    return secret[1] if secret else reply.header("Location") or ""


def test_nobody_overwrites_what_somebody_else_has_just_changed(house: House) -> None:
    """The form keeps what was written, the page shows what is stored; saved again it is as in the form."""
    stack, admin = house.stack, signed_in(house.stack)
    project = stack.manage("POST", "/manage/projects", {"name": "Shared"})["id"]
    group = stack.manage("POST", "/manage/groups", {"name": "Shared"})["id"]
    token = stack.manage("POST", "/manage/tokens", {"project_id": project, "name": "Shared"})["id"]
    for kind, each in (("projects", project), ("groups", group), ("tokens", token)):
        page = f"/admin/{kind}/{each}"
        seen = re.findall(r'name="seen" value="([^"]+)"', admin.get(page).body.decode())
        assert len(seen) == 1
        stack.manage("PATCH", f"/manage/{kind}/{each}", {"budget_usd": "1/month"})
        form = {"name": "Mine", "budget_usd": "2/month", "csrf": admin.csrf()}
        late = admin.post(page, {**form, "seen": unescape(seen[0])})
        assert late.status == 412 and b"Somebody else has changed it" in late.body and b'value="Mine"' in late.body
        assert stack.manage("GET", f"/manage/{kind}/{each}")["budget_usd"] == ["1/month"]
        now = re.findall(r'name="seen" value="([^"]+)"', late.body.decode())[0]
        assert admin.post(page, {**form, "seen": unescape(now)}).status == 303
        changed = stack.manage("GET", f"/manage/{kind}/{each}")
        assert (changed["name"], changed["budget_usd"]) == ("Mine", ["2/month"])


def test_lists_are_narrowed_to_a_project_by_its_name(house: House) -> None:
    """Or a part of it; where several are called so one is chosen; where none is, the page says so."""
    stack, admin = house.stack, house.admin
    for name in ("Mountain rail", "Mountain road", "Mountain"):
        project = stack.manage("POST", "/manage/projects", {"name": name})["id"]
        stack.manage("POST", "/manage/tokens", {"project_id": project, "name": f"of {name}"})

    def page(path: str) -> tuple[int, str]:
        reply = admin.get(f"/admin/{path}")
        return reply.status, reply.body.decode()

    for text, status, listed in (
        ("Mountain rail", 200, ["of Mountain rail"]),
        ("mountain ROAD", 200, ["of Mountain road"]),
        ("rail", 200, ["of Mountain rail"]),
        ("mountain", 200, ["of Mountain"]),
        (project, 200, ["of Mountain"]),
        ("Mount", 422, []),
        ("Molehill", 422, []),
    ):
        found = page(f"tokens?{urlencode({'project': text})}")
        assert (found[0], re.findall(r"<bdi>(of [^<]+)", found[1])) == (status, listed), text
    assert 'value="Mountain"' in page(f"tokens?project_id={project}")[1], "a link with an id shows the name"
    several = page("requests?project=Mount&status=4xx")[1]
    links = re.findall(r'href="(/admin/requests\?project_id=[^"]+status=4xx)"', several)
    assert len(links) == 3 and "Several projects are called so" in several
    assert admin.get(links[0].replace("&amp;", "&")).status == 200
    for path in ("", "usage", "alerts", "audit", "requests"):
        assert page(f"{path}?project=Molehill")[1].count("There is no project called") == 1, path
        assert f'value="{"Our own"}"' in page(f"{path}?project=our+own")[1], path
    assert '<option value="Mountain rail">' in page("usage")[1], "names are offered while one types"
    csv = admin.get("/admin/usage.csv?project=Molehill")
    assert csv.status == 422 and is_protected(csv)
    issued_to = admin.post(
        "/admin/keys", {"name": "x", "role": "viewer", "projects": "Mountain rail\r\nour own", "csrf": admin.csrf()}
    )
    assert issued_to.status == 201 and b"for 2 of the projects" in issued_to.body
    refused = admin.post("/admin/keys", {"name": "x", "role": "viewer", "projects": "Molehill", "csrf": admin.csrf()})
    assert refused.status == 422 and b"There is no project called" in refused.body


def test_lists_are_narrowed_by_label(house: House) -> None:
    """Several between commas: all of them; text of metadata too. A label in a list leads to what else has it."""
    stack, admin = house.stack, house.admin
    made: dict[str, Any] = {}
    for name, labels, metadata in (("red", ["warm", "x:1"], {"owner": "ada"}), ("blue", ["cold", "x:1"], {})):
        body = {"name": f"paint {name}", "labels": labels, "metadata": metadata}
        made[name] = stack.manage("POST", "/manage/projects", body)["id"]
        stack.manage("POST", "/manage/tokens", {**body, "project_id": made[name]})
    for kind in ("projects", "tokens"):
        for label, listed in (("x:1", ["red", "blue"]), ("x:1, warm", ["red"]), ("owner=ada", ["red"]), ("none", [])):
            page = admin.get(f"/admin/{kind}?{urlencode({'label': label})}").body.decode()
            names = re.findall(rf'href="/admin/{kind}/[^"]+"><bdi>paint (\w+)', page)
            assert names == listed, (kind, label)
        assert f'href="/admin/{kind}?label=x%3A1"' in admin.get(f"/admin/{kind}?label=warm").body.decode()
        wrong = admin.get(f"/admin/{kind}?label=%22%3E")
        assert wrong.status == 422 and b"must be a label" in wrong.body


def test_lists_as_csv(house: House) -> None:
    """All of what a list is narrowed to, further than a page goes; no cell is a formula."""
    stack, admin = house.stack, house.admin
    project = stack.manage("POST", "/manage/projects", {"name": "=1+1", "labels": ["exported"]})["id"]
    for number in range(52):
        stack.manage("POST", "/manage/tokens", {"project_id": project, "name": f"exported {number}"})
    page = admin.get("/admin/tokens?project=%3D1%2B1").body.decode()
    link = re.search(r'href="(/admin/tokens\.csv\?[^"]+)"', page)
    assert link and page.count("<bdi>exported") == 50
    reply = admin.get(unescape(link[1]))
    assert reply.status == 200 and (reply.header("Content-Type") or "").startswith("text/csv") and is_protected(reply)
    assert reply.header("Content-Disposition") == 'attachment; filename="tokens.csv"'
    rows = list(csv.DictReader(reply.body.decode().splitlines()))
    assert [each["name"] for each in rows] == [f"exported {number}" for number in range(52)]
    named = list(csv.DictReader(admin.get("/admin/projects.csv?label=exported").body.decode().splitlines()))
    assert [(each["name"], each["labels"]) for each in named] == [("'=1+1", "exported")]
    asked = list(csv.DictReader(admin.get("/admin/requests.csv?project=our+own&status=2xx").body.decode().splitlines()))
    assert {each["project_id"] for each in asked} == {house.own.project} and asked[-1]["model"] == "gpt-4o"
    assert admin.get("/admin/alerts.csv?owner=nobody").status == 422


def test_upstreams_with_their_last_hour(house: House) -> None:
    """Requests, errors and times to the first byte of each API."""

    def row() -> list[str]:
        page = house.admin.get("/admin/upstreams").body.decode()
        found = re.search(r"<tr><td>openai.*?</tr>", page, re.DOTALL)
        assert found
        return [re.sub(r"<[^>]+>", "", each).strip() for each in re.findall(r'<td class="n">(.*?)</td>', found[0])]

    cells = eventually(lambda: (shown := row())[1] not in ("", "0") and shown[3].endswith("s") and shown, 30.0)
    assert int(cells[1]) >= 2 and cells[2].endswith("%") and cells[4].endswith("s"), cells


def test_every_page_has_a_title_of_its_own(house: House) -> None:
    names = ("", "projects", "groups", "tokens", "usage", "requests", "alerts", "upstreams", "cache", "playground",
             "audit", "settings", "keys", "sessions", f"projects/{house.own.project}", f"tokens/{house.own.token}",
             f"groups/{house.group}", f"requests/{house.own.request}", "nothing")  # fmt: skip
    pages = [house.admin.get(f"/admin/{each}").body.decode() for each in names]
    titles = [re.findall(r"<title>(.+) \u00b7 llmproxy</title>", page) for page in pages]
    assert all(len(each) == 1 for each in titles) and len({each[0] for each in titles}) == len(names), titles
    assert all(page.count('rel="icon"') == 1 for page in pages)


def test_tokens_are_called_by_their_names(house: House) -> None:
    """In usage, in the audit log and on the page of a request; the API lists those of some ids."""
    stack = house.stack
    place = furnished(stack, "Namesake")
    listed = stack.manage("GET", f"/manage/tokens?id={house.others.token},{place.token},nobody")
    assert {each["id"] for each in listed["data"]} == {place.token, house.others.token} and listed["total"] == 2
    link = f'href="/admin/tokens/{place.token}"><bdi>Namesake: token'
    for path in ("usage?by=token&project=namesake", "audit?action=token.create&project=namesake",
                 f"requests/{place.request}"):  # fmt: skip
        eventually(lambda path=path: link in house.admin.get(f"/admin/{path}").body.decode(), 30.0)
    key = stack.manage("POST", "/manage/keys", {"name": "x", "role": "viewer", "projects": [place.project]})["key"]
    seen = stack.ask("GET", f"/manage/tokens?id={house.others.token},{place.token}", token=key).json["data"]
    assert [each["id"] for each in seen] == [place.token], "whoever is bound to a project sees those of no other"
