"""The admin pages as an attacker and a script see them, through the started daemon."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.support.admin_visitor import Visitor
from tests.support.processes import HOST
from tests.support.stack import MANAGEMENT, Stack, eventually

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"
PAGES = (
    *("", "projects", "tokens", "usage", "requests", "upstreams", "cache", "audit", "settings", "playground"),
    *("keys", "sessions", "groups", "alerts"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("admin"), further="cache: {enabled: true}\n") as stack:
        yield stack


@pytest.fixture
def visitor(stack: Stack) -> Visitor:
    return Visitor(stack.daemon.port)


@pytest.fixture
def operator(visitor: Visitor) -> Visitor:
    visitor.sign_in()
    return visitor


def test_nothing_is_shown_to_strangers(stack: Stack, visitor: Visitor) -> None:
    """Not even whether a page exists."""
    for path in (*PAGES[1:], "nothing", f"projects/{stack.project}", "usage.csv"):
        reply = visitor.get(f"/admin/{path}")
        assert reply.status == 401 and b"Team" not in reply.body and b"Sign in" in reply.body
    assert visitor.get("/admin/").status == 200
    assert visitor.post(f"/admin/projects/{stack.project}/revoke", {"csrf": "x"}).status == 401
    visitor.cookie = "llmproxy_session=" + "A" * 43
    assert visitor.get("/admin/projects").status == 401


def test_what_other_applications_of_the_host_have_set(visitor: Visitor) -> None:
    """Their cookies come along, and are nothing to these pages."""
    visitor.sign_in()
    own = visitor.cookie
    for other in (
        'a={"b": 1, "c": "d"}',
        "a[0]=b",
        "=",
        "a",
        'a="',
        "llmproxy_session_2=x",
        "llmproxy_session=x",
        "a=b=c; ; d",
    ):
        visitor.cookie = f"{other}; {own};z=1"
        assert visitor.get("/admin/projects").status == 200, other


def test_signing_in_and_out(stack: Stack, visitor: Visitor) -> None:
    wrong = visitor.sign_in("not the token")
    assert wrong.status == 401 and b"not the management token" in wrong.body and not wrong.header("Set-Cookie")
    right = visitor.sign_in()
    assert (right.status, right.header("Location")) == (303, "/admin/")
    cookie = right.header("Set-Cookie") or ""
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/admin" in cookie
    assert MANAGEMENT not in cookie
    assert visitor.get("/admin/projects").status == 200
    assert visitor.post("/admin/sign-out", {"csrf": visitor.csrf()}).status == 303
    assert visitor.get("/admin/projects").status == 401
    audit = [json.loads(line) for line in (stack.home / "audit.jsonl").read_text().splitlines()]
    signed = [(e["action"], e["outcome"]) for e in audit if e["action"].startswith("admin.")]
    assert signed[-3:] == [("admin.sign_in", "failure"), ("admin.sign_in", "success"), ("admin.sign_out", "success")]


def test_after_signing_in_one_stays_here(visitor: Visitor) -> None:
    for following, where in (
        ("/admin/tokens", "/admin/tokens"),
        ("https://evil.example/", "/admin/"),
        ("//evil.example/admin/", "/admin/"),
        ("/admin/\r\nSet-Cookie: x=y", "/admin/"),
    ):
        reply = visitor.post("/admin/sign-in", {"secret": MANAGEMENT, "next": following})
        assert reply.header("Location") == where


def test_every_page_is_protected(operator: Visitor) -> None:
    for path in PAGES:
        reply = operator.get(f"/admin/{path}")
        assert reply.status == 200, path
        policy = reply.header("Content-Security-Policy") or ""
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert (reply.header("X-Content-Type-Options"), reply.header("Cache-Control")) == ("nosniff", "no-store")
        page = reply.body.decode()
        assert not re.search(r"<[^>]+\s(style|on\w+)=", page), path
        assert not re.search(r"(src|href)=\"?(https?:)?//", page), "nothing comes from elsewhere"


def test_static_files_may_be_kept_for_ever(operator: Visitor) -> None:
    names = re.findall(r'(/admin/static/[\w.]+)"', operator.get("/admin/").body.decode())
    assert len(names) == 3
    for name in names:
        reply = operator.get(name)
        assert reply.status == 200 and "immutable" in (reply.header("Cache-Control") or "")
    assert operator.get("/admin/static/../rendering.py").status == 404


def test_a_form_of_another_site_changes_nothing(stack: Stack, operator: Visitor) -> None:
    path, good = "/admin/projects", {"name": "forged", "csrf": operator.csrf()}
    for form, fields in (
        ({"name": "forged"}, {}),
        ({**good, "csrf": "0" * 64}, {}),
        (good, {"Origin": "https://evil.example"}),
        (good, {"Origin": "null"}),
        (good, {"Sec_Fetch_Site": "cross-site"}),
        (good, {"Sec_Fetch_Site": "same-site"}),
    ):
        reply = operator.post(path, form, **fields)
        assert (reply.status, b"was not sent by a page" in reply.body) == (403, True), (form, fields)
    another = Visitor(operator.port)
    another.sign_in()
    assert another.post(path, good).status == 403, "a form's token is of one session"
    assert "forged" not in json.dumps(stack.manage("GET", "/manage/projects"))
    assert operator.post(path, good, Origin=f"http://{HOST}:{operator.port}").status == 303


def test_what_people_write_is_only_text(stack: Stack, operator: Visitor) -> None:
    """In every field that is shown again, also where it is refused."""
    csrf = operator.csrf()
    made = operator.post("/admin/projects", {"name": EVIL[:200], "csrf": csrf})
    project = (made.header("Location") or "").partition("?")[0]
    issued = operator.post(f"{project}/tokens", {"name": EVIL, "csrf": csrf})
    assert issued.status == 201
    token = re.search(r'href="(/admin/tokens/\w+)"', issued.body.decode())
    assert token
    fields = dict.fromkeys(("name", "models", "apis", "budget_usd", "expires_in", "max_requests", "endpoints"), EVIL)
    fields |= dict.fromkeys(("max_output_tokens", "param_whitelist", "required_params", "header_values"), EVIL)
    pages = [
        issued,
        operator.get(project),
        operator.get("/admin/projects"),
        operator.get("/admin/tokens"),
        operator.get(token[1]),
        operator.post(token[1], {**fields, "csrf": csrf}),
        operator.post(f"{project}/tokens", {**fields, "csrf": csrf}),
        operator.post(project, {**fields, "csrf": csrf}),
        operator.post(f"{project}/keys", {"api": EVIL, "key": EVIL, "csrf": csrf}),
        operator.post("/admin/cache", {"api": EVIL, "path": EVIL, "csrf": csrf}),
        operator.get("/admin/projects?" + urlencode({"search": EVIL, "active": EVIL})),
        operator.get("/admin/projects?" + urlencode({"search": EVIL})),
        operator.get("/admin/tokens?" + urlencode({"search": EVIL, "project_id": EVIL})),
        operator.post("/admin/groups", {"name": "", "parent_id": EVIL, "budget_usd": EVIL, "csrf": csrf}),
        operator.get(operator.post("/admin/groups", {"name": EVIL, "csrf": csrf}).header("Location") or ""),
        operator.get("/admin/groups"),
        operator.get("/admin/groups?" + urlencode({"search": EVIL})),
        operator.get("/admin/groups?" + urlencode({"search": "script"})),
        operator.get("/admin/alerts?" + urlencode({"owner": EVIL, "owner_id": EVIL})),
        operator.post(f"{token[1]}/rotate", {"grace": EVIL, "csrf": csrf}),
        operator.post(f"{token[1]}/rotate", {"grace": "1h", "csrf": csrf}),
        operator.post("/admin/keys", {"name": EVIL, "role": EVIL, "projects": EVIL, "csrf": csrf}),
        operator.post("/admin/keys", {"name": EVIL, "role": "viewer", "csrf": csrf}),
        operator.get("/admin/keys"),
        operator.post("/admin/upstreams/openai/0", {"state": EVIL, "csrf": csrf}),
        operator.get("/admin/audit?" + urlencode({"search": EVIL, "action": EVIL})),
        operator.get("/admin/usage?" + urlencode({"from": EVIL, "project_id": EVIL, "by": EVIL})),
        operator.get("/admin/requests?" + urlencode({"status": EVIL, "model": EVIL, "error": EVIL})),
        operator.get("/admin/?" + urlencode({"period": EVIL, "done": EVIL})),
        operator.get("/admin/sign-in?" + urlencode({"next": EVIL})),
    ]
    stack.ask(
        "POST",
        "/v1/chat/completions",
        json.dumps({"model": EVIL, "messages": []}).encode(),
        {"Content-Type": "application/json", "User-Agent": EVIL},
    )
    shown = eventually(lambda: (r := operator.get("/admin/requests")).body.count(b"onerror") and r)
    pages += [
        shown,
        operator.get(f"/admin/requests/{stack.manage('GET', '/manage/requests')['data'][0]['request_id']}"),
    ]
    for page in pages:
        body = page.body.decode()
        assert "<script>alert" not in body and "<img src=x" not in body and "49" not in body.split("{{7*7}}")[0][-5:]
        assert page.status in (200, 201, 404, 422), (page.status, body[-400:])


def test_sessions_are_listed_and_can_be_ended(operator: Visitor) -> None:
    other = Visitor(operator.port)
    other.sign_in()
    assert other.get("/admin/tokens").status == 200
    page = operator.get("/admin/sessions").body.decode()
    mine = re.search(r"this one.*?/admin/sessions/(\w+)/end", page, re.DOTALL)
    assert mine
    for session in set(re.findall(r"/admin/sessions/(\w+)/end", page)) - {mine[1]}:
        assert operator.post(f"/admin/sessions/{session}/end", {"csrf": operator.csrf()}).status == 303
    assert other.get("/admin/tokens").status == 401
    assert operator.get("/admin/tokens").status == 200
    assert "session.end" in operator.get("/admin/audit?action=session.end").body.decode().partition("<tbody>")[2]


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        guesser = Visitor(stack.daemon.port)
        assert [guesser.sign_in(f"guess {number}").status for number in range(25)][-1] == 429
        assert guesser.sign_in().status == 303, "whoever knows it is let in all the same"


def test_what_is_too_large_or_unreadable(operator: Visitor) -> None:
    assert operator.post("/admin/projects", {"name": "x" * 300_000}).status == 413
    assert operator.get("/admin/projects?cursor=nonsense").status == 422
    assert operator.get("/admin/requests/unknown").status == 404
    assert operator.post("/admin/usage", {"csrf": operator.csrf()}).status == 405


def test_roles(stack: Stack) -> None:
    """A viewer changes nothing; whoever is bound to a project sees nothing of others; a revoked key is out."""
    other = stack.manage("POST", "/manage/projects", {"name": "Others' project"})["id"]
    group = stack.manage("POST", "/manage/groups", {"name": "Others' group"})["id"]
    viewer, lead = (
        stack.manage("POST", "/manage/keys", body)
        for body in (
            {"name": "Vera", "role": "viewer"},
            {"name": "Lena", "role": "operator", "projects": [stack.project]},
        )
    )
    vera, lena = Visitor(stack.daemon.port), Visitor(stack.daemon.port)
    assert (vera.sign_in(viewer["key"]).status, lena.sign_in(lead["key"]).status) == (303, 303)

    page = vera.get(f"/admin/projects/{stack.project}").body.decode()
    assert "Vera" in page and "/admin/keys" not in page and "/admin/sessions" not in page
    assert set(re.findall(r'method="post" action="([^"]+)"', page)) == {"/admin/theme", "/admin/sign-out"}
    for path in ("keys", "sessions"):
        assert vera.get(f"/admin/{path}").status == 403
    for path, form in (
        ("projects", {"name": "mine"}),
        (f"projects/{stack.project}", {"name": "mine"}),
        (f"projects/{stack.project}/revoke", {}),
        (f"projects/{stack.project}/tokens", {"name": "mine"}),
        (f"projects/{stack.project}/keys", {"api": "openai", "key": "sk-mine"}),
        (f"tokens/{stack.manage('GET', '/manage/tokens')['data'][0]['id']}/rotate", {"grace": "1h"}),
        ("keys", {"name": "mine", "role": "admin"}),
        ("groups", {"name": "mine"}),
        (f"groups/{group}", {"name": "mine"}),
        (f"groups/{group}/delete", {}),
        ("upstreams/openai/0", {"state": "disabled"}),
        ("cache", {"all": "1"}),
        ("sessions/" + "0" * 32 + "/end", {}),
    ):
        assert vera.post(f"/admin/{path}", {**form, "csrf": vera.csrf()}).status == 403, path

    for path in ("", "projects", "tokens", "usage", "requests"):
        shown = lena.get(f"/admin/{path}")
        assert shown.status == 200 and "Others" not in shown.body.decode() and other not in shown.body.decode(), path
    assert lena.get(f"/admin/projects/{other}").status == 404
    assert lena.post(f"/admin/projects/{other}/tokens", {"name": "x", "csrf": lena.csrf()}).status in (403, 404)
    issued = lena.post(f"/admin/projects/{stack.project}/tokens", {"name": "for the team", "csrf": lena.csrf()})
    assert issued.status == 201
    assert lena.post("/admin/keys", {"name": "x", "role": "admin", "csrf": lena.csrf()}).status == 403

    audit = [json.loads(line) for line in (stack.home / "audit.jsonl").read_text().splitlines()]
    created = [entry for entry in audit if entry["action"] == "token.create"][-1]
    assert created["actor"] == f"key:{lead['id']}"
    stack.manage("DELETE", f"/manage/keys/{lead['id']}")
    assert lena.get("/admin/projects").status == 401


def test_upstreams_are_drained_disabled_and_enabled(stack: Stack, operator: Visitor) -> None:
    """Each by itself; the others serve on. One that does not exist, or a state that does not, changes nothing."""
    csrf = operator.csrf()

    def states() -> dict[str, str]:
        return {each["api"]: each["state"] for each in stack.manage("GET", "/manage/upstreams")["data"]}

    for state, offered in (("draining", "Enable openai"), ("disabled", "Drain openai"), ("enabled", "Disable openai")):
        assert operator.post("/admin/upstreams/openai/0", {"state": state, "csrf": csrf}).status == 303
        page = operator.get("/admin/upstreams").body.decode()
        assert f'<span class="state {state}">' in page and f'aria-label="{offered}"' in page
        assert states() == {**states(), "openai": state, "anthropic": "enabled"}
        assert stack.ask("GET", "/v1/models").status == (200 if state == "enabled" else 503)
    for path, sent in (("openai/7", "disabled"), ("nobody/0", "disabled"), ("openai/0", "gone")):
        assert operator.post(f"/admin/upstreams/{path}", {"state": sent, "csrf": csrf}).status in (404, 422)
    for form in ({"state": "disabled"}, {"state": "disabled", "csrf": "0" * 64}):
        assert operator.post("/admin/upstreams/openai/0", form).status == 403
    assert set(states().values()) == {"enabled"}


def test_forms_of_the_newest_pages_are_those_of_ones_own_session(stack: Stack, operator: Visitor) -> None:
    """Groups, keys and signing out, sent by another site or with another session's secret."""
    other = Visitor(operator.port)
    other.sign_in()
    group = stack.manage("POST", "/manage/groups", {"name": "Kept"})["id"]
    forms = (
        ("groups", {"name": "forged"}),
        (f"groups/{group}", {"name": "forged"}),
        (f"groups/{group}/delete", {}),
        ("keys", {"name": "forged", "role": "admin"}),
        ("settings", {}),
        ("sign-out", {}),
    )
    for path, form in forms:
        for csrf, fields in (("", {}), (other.csrf(), {}), (operator.csrf(), {"Origin": "https://evil.example"})):
            assert operator.post(f"/admin/{path}", {**form, "csrf": csrf}, **fields).status == 403, (path, csrf, fields)
    assert stack.manage("GET", f"/manage/groups/{group}")["name"] == "Kept"
    assert "forged" not in json.dumps(stack.manage("GET", "/manage/keys"))
    assert operator.get("/admin/groups").status == 200, "it is signed in still"


def test_keys_are_issued_and_revoked(operator: Visitor) -> None:
    csrf = operator.csrf()
    issued = operator.post("/admin/keys", {"name": "Ada", "role": "viewer", "csrf": csrf})
    secret = re.search(r'<code id="secret">([^<]+)</code>', issued.body.decode())
    assert issued.status == 201 and secret
    ada = Visitor(operator.port)
    assert ada.sign_in(secret[1]).status == 303
    page = operator.get("/admin/keys").body.decode()
    assert "Ada" in page and secret[1] not in page
    key = re.search(r"Ada.*?/admin/keys/(\w+)/revoke", page, re.DOTALL)
    assert key and operator.post(f"/admin/keys/{key[1]}/revoke", {"csrf": csrf}).status == 303
    assert ada.get("/admin/projects").status == 401
    assert operator.post("/admin/keys", {"name": "x", "role": "owner", "csrf": csrf}).status == 422


def test_a_form_that_is_wrong_says_where_and_keeps_what_was_written(stack: Stack, operator: Visitor) -> None:
    project = f"/admin/projects/{stack.project}"
    for path in (project, f"{project}/tokens", "/admin/groups"):
        form = {"name": "Kept so", "budget_usd": "ten dollars", "csrf": operator.csrf()}
        reply = operator.post(path, form)
        wrong = "is not a budget (try 20/month or 0.50/day; periods are day, month and lifetime)"
        said = f"Nothing was saved. Budget in dollars: {wrong}."
        page = reply.body.decode()
        assert reply.status == 422 and said in page and "pattern" not in page, path
        assert 'value="Kept so"' in page and 'value="ten dollars"' in page, path


def test_usage_by_day_and_by_month_has_plots(stack: Stack, operator: Visitor) -> None:
    """Of all rows that the table below them has, with days and months as they are called under the others."""
    assert stack.ask("GET", "/v1/models").status == 200
    for by in ("day", "month"):

        def page(by: str = by) -> str:
            return operator.get(f"/admin/usage?by_{by}=1").body.decode()

        eventually(lambda page=page: "In all" in page(), 30.0)
        shown = page()
        assert [re.search(r'aria-label="(\w+)"', each)[1] for each in re.findall("<svg.*?>", shown)] == [
            "Spend",
            "Tokens",
        ]
        rows = len(re.findall("<tr>", shown[: shown.index("<tfoot>")])) - 1
        assert shown.count('<rect class="hover"') == 2 * rows > 0
        label = {"day": r"\d\d \w{3}", "month": r"\w{3}’\d\d"}[by]
        assert re.search(rf'<text class="tick" x="62" y="194">{label}</text>', shown)
    assert "<svg" not in operator.get("/admin/usage?by_day=1&by_model=1").body.decode()


def test_pages_without_requests_say_what_to_do(stack: Stack, operator: Visitor) -> None:
    """Where a filter leaves none out there may be some elsewhere; no plots of nothing."""
    unused = stack.manage("POST", "/manage/projects", {"name": "Never used"})["id"]
    overview = operator.get(f"/admin/?project_id={unused}&period=1h").body.decode()
    assert "No requests in this period" in overview and "period=365d&amp;project_id=" in overview
    assert "<svg" not in overview and "Models by spend" not in overview
    assert "longer one" not in operator.get(f"/admin/?project_id={unused}&period=365d").body.decode()
    assert "show all requests" in operator.get(f"/admin/requests?project_id={unused}").body.decode()


def test_the_audit_log_is_shown_and_verified(stack: Stack, operator: Visitor) -> None:
    operator.post("/admin/projects", {"name": "Audited", "csrf": operator.csrf()})
    page = operator.get("/admin/audit?action=project.create&outcome=success&verify=1").body.decode()
    assert "project.create" in page and "are as they were written" in page and "<code>token.create</code>" not in page


def test_the_audit_log_and_the_sessions_call_people_by_their_names(stack: Stack, operator: Visitor) -> None:
    """Also where they only signed in; their id is said when hovered, and leads to all that they did."""
    key = stack.manage("POST", "/manage/keys", {"name": "Grace Hopper", "role": "operator"})
    grace, actor = Visitor(stack.daemon.port), f"key:{key['id']}"
    assert grace.sign_in(key["key"]).status == 303
    grace.post("/admin/projects", {"name": "By Grace", "csrf": grace.csrf()})
    link = f'<a href="/admin/audit?actor={quote(actor, safe="")}" title="{actor}"><bdi>Grace Hopper</bdi></a>'
    for action, entries in (("admin.sign_in", 1), ("project.create", 2)):
        for visitor in (operator, grace):
            page = visitor.get(f"/admin/audit?action={action}&actor={actor}").body.decode()
            assert page.count(link) == entries and "actor_name" not in page
    assert link in operator.get("/admin/sessions").body.decode()
    audited = stack.manage("GET", f"/manage/audit?action=admin.sign_in&actor={actor}")["data"]
    assert audited[0]["details"]["actor_name"] == "Grace Hopper" and audited[0]["outcome"] == "success"
    assert grace.post("/admin/sign-out", {"csrf": grace.csrf()}).status == 303
    audited = stack.manage("GET", f"/manage/audit?action=admin.sign_out&actor={actor}")["data"]
    assert audited[0]["details"]["actor_name"] == "Grace Hopper"


def test_a_token_gets_another_secret(stack: Stack, operator: Visitor) -> None:
    """It is shown once, with what ends when; both open until then, the one before the last opens nothing more."""
    csrf = operator.csrf()
    made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project, "name": "rotated"})
    page = f"/admin/tokens/{made['id']}"
    secrets = [made["token"]]

    def opens(secret: str) -> int:
        return stack.ask("GET", "/v1/models", token=secret).status

    for grace, told in (("24h", "valid until"), ("7d", "valid until"), ("0s", "refused from now on")):
        reply = operator.post(f"{page}/rotate", {"grace": grace, "csrf": csrf})
        body = reply.body.decode()
        secret = re.search(r'<code id="secret">(sk-lp-[^<]+)</code>', body)
        assert reply.status == 201 and secret and secret[1] not in secrets
        before = re.search(r"<dt>The secret before</dt><dd>([^<]*)", body)
        assert before and told in before[1], body
        secrets.append(secret[1])
        shown = operator.get(page).body.decode()
        assert secret[1] not in shown and secret[1][:10] in shown
        assert ("It was rotated: the secret before is valid too" in shown) is (grace != "0s")
        expected = [401] * (len(secrets) - 2) + [401 if grace == "0s" else 200, 200]
        eventually(lambda expected=expected: [opens(each) for each in secrets] == expected, 30.0)
    for wrong in ("soon", "-1h", "91d"):
        refused = operator.post(f"{page}/rotate", {"grace": wrong, "csrf": csrf})
        assert refused.status == 422 and b'role="alert"' in refused.body and wrong.encode() in refused.body
    assert operator.post(f"{page}/rotate", {"grace": "24h"}).status == 403
    assert opens(secrets[-1]) == 200, "what was refused changed nothing"
    assert operator.post(f"{page}/revoke", {"csrf": csrf}).status == 303
    assert operator.post(f"{page}/rotate", {"grace": "24h", "csrf": csrf}).status == 409
    assert "Rotate token" not in operator.get(page).body.decode()


def test_policies_are_set_and_shown(stack: Stack, operator: Visitor) -> None:
    """Of a project and of a token; what is refused stays in the form; a new token takes the most output."""
    csrf = operator.csrf()
    project = stack.manage("POST", "/manage/projects", {"name": "Ruled"})["id"]
    rules = {
        "models": "gpt-4o*",
        "endpoints": "GET /v1/models, /v1/chat/completions",
        "max_output_tokens": "4096",
        "param_whitelist": "temperature=0\ntemperature=0.5",
        "required_params": "user",
        "required_headers": "X-Team",
        "header_values": "X-Team=core-*",
        "methods": "POST, GET",
    }
    stored = {
        "models": ["gpt-4o*"],
        "endpoints": ["GET /v1/models", "/v1/chat/completions"],
        "max_output_tokens": 4096,
        "param_whitelist": {"temperature": ["0", "0.5"]},
        "required_params": ["user"],
        "required_headers": ["X-Team"],
        "header_values": {"X-Team": ["core-*"]},
        "methods": ["POST", "GET"],
    }
    token = stack.manage("POST", "/manage/tokens", {"project_id": project, "name": "ruled"})["id"]
    for page, path in (
        (f"/admin/projects/{project}", f"projects/{project}"),
        (f"/admin/tokens/{token}", f"tokens/{token}"),
    ):
        assert operator.post(page, {"name": "Ruled", **rules, "csrf": csrf}).status == 303
        found = stack.manage("GET", f"/manage/{path}")
        assert {name: found[name] for name in stored} == stored
        shown = operator.get(page).body.decode()
        assert "X-Team=core-*" in shown and 'value="GET /v1/models, /v1/chat/completions"' in shown
        refused = operator.post(page, {"name": "Ruled", "max_output_tokens": "many", "csrf": csrf})
        assert refused.status == 422 and 'value="many"' in refused.body.decode()
        assert operator.post(page, {"name": "Ruled", **dict.fromkeys(rules, ""), "csrf": csrf}).status == 303
        assert not any(stack.manage("GET", f"/manage/{path}")[name] for name in stored)
    issued = operator.post(f"/admin/projects/{project}/tokens", {"name": "n", "max_output_tokens": "7", "csrf": csrf})
    assert issued.status == 201
    tokens = stack.manage("GET", f"/manage/tokens?project_id={project}")["data"]
    assert [each["max_output_tokens"] for each in tokens] == [None, 7]


def test_alerts_are_shown_where_they_belong(stack: Stack, operator: Visitor) -> None:
    """On their own page, on the overview, and on that of the project, the token and the group; not those of others."""
    group = stack.manage("POST", "/manage/groups", {"name": "Spending group", "soft_budget_tokens": "1/day"})["id"]
    project = stack.manage(
        "POST", "/manage/projects", {"name": "Spending", "api_keys": dict(stack.keys), "group_id": group}
    )["id"]
    made = stack.manage(
        "POST", "/manage/tokens", {"project_id": project, "name": "spender", "soft_budget_tokens": "1/month"}
    )
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
    fields = {"Content-Type": "application/json"}
    assert stack.ask("POST", "/v1/chat/completions", body, fields, token=made["token"]).status == 200
    stack.manage("PATCH", f"/manage/projects/{project}", {"budget_usd": "0.000000001/day"})
    eventually(lambda: stack.ask("POST", "/v1/chat/completions", body, fields, token=made["token"]).status == 429, 30.0)

    def page(path: str) -> str:
        return operator.get(f"/admin/{path}").body.decode()

    def shows(path: str, *texts: str) -> bool:
        found = page(path)
        return "Budget alerts" in found and all(text in found for text in texts)

    eventually(lambda: shows(f"tokens/{made['id']}", "100 % reached", "soft", "Spending", "request refused"), 30.0)
    eventually(lambda: shows(f"projects/{project}", "request refused", "spender"), 30.0)
    eventually(lambda: shows(f"groups/{group}", "100 % reached"), 30.0)
    eventually(lambda: shows("", "request refused"), 30.0)
    assert "request refused" in page("projects?search=Spending")
    listed = page(f"alerts?owner_id={made['id']}")
    assert listed.count("% reached</span>") == 3 and "spender" in listed and "Spending group" not in listed
    stack.manage("PATCH", f"/manage/projects/{project}", {"budget_usd": "5/day"})
    assert "request refused" not in page(f"projects/{project}"), "it is another budget now"
    key = stack.manage("POST", "/manage/keys", {"name": "x", "role": "viewer", "projects": [stack.project]})["key"]
    other = Visitor(operator.port)
    other.sign_in(key)
    assert "Spending" not in other.get("/admin/").body.decode() + other.get("/admin/alerts").body.decode()


def test_alerts_before_there_are_any(stack: Stack, visitor: Visitor) -> None:
    """The page says how to have one."""
    quiet = stack.manage("POST", "/manage/projects", {"name": "Quiet"})["id"]
    key = stack.manage("POST", "/manage/keys", {"name": "x", "role": "viewer", "projects": [quiet]})["key"]
    visitor.sign_in(key)
    page = visitor.get("/admin/alerts").body.decode()
    assert "No alerts yet" in page and "alerts.thresholds" in page and "Warn at dollars" in page
    assert "Budget alerts" not in visitor.get("/admin/").body.decode()


def test_groups_are_searched(stack: Stack, operator: Visitor) -> None:
    """By part of the name, with where in the tree each is; a page that is not the last leads to the next."""
    top = stack.manage("POST", "/manage/groups", {"name": "Quarry"})["id"]
    below = stack.manage("POST", "/manage/groups", {"name": "Marble of the quarry", "parent_id": top})["id"]
    stack.manage("POST", "/manage/groups", {"name": "Elsewhere"})
    found = operator.get("/admin/groups?search=MARBLE").body.decode()
    assert f"/admin/groups/{below}" in found and f'href="/admin/groups/{top}"><bdi>Quarry' in found
    assert "1 found" in found and "<bdi>Elsewhere" not in found
    assert "No such groups" in operator.get("/admin/groups?search=nothing-like-it").body.decode()
    for number in range(51):
        stack.manage("POST", "/manage/groups", {"name": f"Pebble {number}"})
    first = operator.get("/admin/groups?search=pebble").body.decode()
    following = re.search(r'href="(/admin/groups\?cursor=[^"]+)">Next page', first)
    assert "51 found" in first and following
    assert "Pebble 50" in operator.get(following[1].replace("&amp;", "&")).body.decode()


def test_settings_are_shown_with_their_source_and_reloaded(stack: Stack, operator: Visitor) -> None:
    page = operator.get("/admin/settings?all=1").body.decode()
    assert "apis.openai.base_url" in page and "llmproxy.yaml:" in page and "default" in page
    done = operator.post("/admin/settings", {"csrf": operator.csrf()})
    assert (done.status, b"Reloaded." in done.body) == (200, True)
    config = stack.home / "llmproxy.yaml"
    before = config.read_text()
    config.write_text(before.replace("store: {", "stored: {"))
    try:
        wrong = operator.post("/admin/settings", {"csrf": operator.csrf()})
        assert (wrong.status, b"Nothing was changed" in wrong.body) == (422, True)
    finally:
        config.write_text(before)
    assert operator.post("/admin/settings", {"csrf": operator.csrf()}).status == 200
