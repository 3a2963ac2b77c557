"""Policies of tokens and projects through the started daemon: what they refuse, how soon a change counts, and that the
short way holds them too."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.integration.test_cli_commands import llmproxy
from tests.support.client import Response
from tests.support.processes import HOST
from tests.support.proxy_case import FAST_PATH
from tests.support.stack import MANAGEMENT, Stack, eventually

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")
CHAT = "/v1/chat/completions"
SAID: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("policies"), env={FAST_PATH: "true"}) as running:
        yield running


class Client:
    """Somebody with a token of a project of its own, who sends the same head each time."""

    def __init__(self, stack: Stack, **token: Any) -> None:
        self.stack = stack
        self.project = stack.manage("POST", "/manage/projects", {"name": "P", "api_keys": dict(stack.keys)})["id"]
        self.token = stack.manage("POST", "/manage/tokens", {"project_id": self.project, "name": "t", **token})

    def ask(self, headers: dict[str, str] | None = None, **said: Any) -> Response:
        body = json.dumps({**SAID, **said}).encode()
        return self.stack.ask("POST", CHAT, body, {**JSON, **(headers or {})}, token=self.token["token"])

    def code(self, headers: dict[str, str] | None = None, **said: Any) -> str | None:
        answer = self.ask(headers, **said)
        code = answer.header("X-LLMProxy-Error")
        assert (answer.status == 200) == (code is None), answer.body
        return code

    def allow(self, kind: str, **policy: Any) -> dict[str, Any]:
        """Change the policy of the C{token} or the C{project}."""
        path = f"/manage/tokens/{self.token['id']}" if kind == "token" else f"/manage/projects/{self.project}"
        return self.stack.manage("PATCH", path, policy)


@pytest.mark.parametrize("kind", ["token", "project"])
def test_what_they_refuse(stack: Stack, kind: str) -> None:
    """The same of a token and of a project; the next request after a change goes by it; nothing refused is sent."""
    client = Client(stack)
    assert client.code(max_tokens=500) is None
    for policy, headers, said, code in (
        ({"max_output_tokens": 100}, {}, {"max_tokens": 500}, "param_not_allowed"),
        ({"max_output_tokens": 100}, {}, {"max_tokens": 50, "n": 2}, None),
        ({"max_output_tokens": None, "param_whitelist": {"temperature": ["0", "0.5"]}}, {}, {"temperature": 1},
         "param_not_allowed"),
        ({}, {}, {"temperature": 0.5, "max_tokens": 500}, None),
        ({"param_whitelist": {}, "required_params": ["user"]}, {}, {"temperature": 1}, "param_required"),
        ({}, {}, {"user": "ada"}, None),
        ({"required_params": [], "required_headers": ["X-Team"]}, {}, {}, "header_required"),
        ({"header_values": {"x-team": ["core", "data-*"]}}, {"X-Team": "other"}, {}, "header_not_allowed"),
        ({}, {"X-Team": "data-7"}, {}, None),
        ({"required_headers": [], "header_values": {}, "methods": ["GET"]}, {}, {}, "method_not_allowed"),
        ({"methods": ["POST"]}, {}, {}, None),
        ({"endpoints": ["GET /v1/models"]}, {}, {}, "endpoint_not_allowed"),
        ({"endpoints": [CHAT], "models": ["gpt-3*"]}, {}, {}, "model_not_allowed"),
        ({"models": ["gpt-4*"], "ips": ["192.0.2.0/24"]}, {}, {}, "address_not_allowed"),
        ({"ips": ["127.0.0.0/8"], "apis": ["openai"]}, {}, {}, None),
    ):  # fmt: skip
        if policy:
            shown = client.allow(kind, **policy)
            assert {name: shown[name] for name in policy if name not in ("ips",)} == {
                name: value for name, value in policy.items() if name not in ("ips",)
            }
        before = len(stack.recorded())
        assert client.code(headers, **said) == code, (policy, said)
        assert len(stack.recorded()) == before + (code is None)


def test_what_is_said(stack: Stack) -> None:
    """A refusal names the member and the maximum, and may not be retried; the body that is allowed passes as it is."""
    client = Client(stack, max_output_tokens=100, methods=["POST"])
    answer = client.ask(max_completion_tokens=101)
    assert answer.status == 400 and answer.header("X-Should-Retry") == "false"
    assert answer.json["error"]["message"] == (
        'The parameter "max_completion_tokens" asks for 101 output tokens. This token allows at most 100.'
    )
    body = json.dumps(SAID).encode()[:-1] + b',\n "max_tokens" : 100,"own":12345678901234567890}'
    assert stack.ask("POST", CHAT, body, JSON, token=client.token["token"]).status == 200
    assert b64decode(stack.last()["body"]) == body
    refused = stack.ask("GET", "/v1/models", token=client.token["token"])
    assert (refused.status, refused.header("Allow")) == (405, "POST")
    token_id = client.token["id"]
    eventually(
        lambda: ("param_not_allowed", 400) in [(each["error"], each["status"]) for each in events(stack, token_id)]
    )


def events(stack: Stack, token_id: str) -> list[dict[str, Any]]:
    """Those of this token's requests that were written so far."""
    return [each for each in stack.events() if each.get("token_id") == token_id and "error" in each]


def test_all_must_allow(stack: Stack) -> None:
    """API, project and token: the narrowest counts, whichever that is."""
    client = Client(stack, models=["gpt-4o", "gpt-4.1"], max_output_tokens=50)
    client.allow("project", models=["gpt-4o", "gpt-3.5*"], max_output_tokens=20)
    assert client.code(model="gpt-4o", max_tokens=20) is None
    assert client.code(model="gpt-4.1") == client.code(model="gpt-3.5-turbo") == "model_not_allowed"
    assert "This project" in client.ask(max_tokens=21).json["error"]["message"]
    client.allow("token", max_output_tokens=10)
    assert "This token" in client.ask(max_tokens=11).json["error"]["message"]


class Steady:
    """A client on one connection, whose head never changes but for a trace id."""

    def __init__(self, stack: Stack, token: str) -> None:
        self.connection = HTTPConnection(HOST, stack.daemon.port, timeout=30)
        self.token, self.count = token, 0

    def ask(self, headers: dict[str, str] | None = None, **said: Any) -> str:
        self.count += 1
        given = {
            "Authorization": f"Bearer {self.token}",
            **JSON,
            "traceparent": f"00-{self.count:032x}-{self.count:016x}-01",
            **(headers or {}),
        }
        self.connection.request("POST", CHAT, json.dumps({**SAID, **said}).encode(), given)
        answer = self.connection.getresponse()
        answer.read()
        return answer.headers.get("X-LLMProxy-Error") or str(answer.status)


def test_the_short_way(stack: Stack) -> None:
    """Checks bodies one by one, and forgets a head that is not allowed any more with the next request."""
    client = Client(
        stack, max_output_tokens=100, required_params=["user"], header_values={"X-Team": ["core"]}, methods=["POST"]
    )
    steady = Steady(stack, client.token["token"])
    try:
        before = stack.metric("fast_path_requests_total")
        for _ in range(100):
            assert steady.ask({"X-Team": "core"}, user="a", max_tokens=100) == "200"
            if stack.metric("fast_path_requests_total") >= before + 5:
                break
        assert stack.metric("fast_path_requests_total") >= before + 5
        assert steady.ask({"X-Team": "core"}, user="a", max_tokens=101) == "param_not_allowed"
        assert steady.ask({"X-Team": "core"}, max_tokens=100) == "param_required"
        assert steady.ask({"X-Team": "other"}, user="a") == "header_not_allowed"
        assert steady.ask({"X-Team": "core"}, user="a") == "200"
        client.allow("project", max_output_tokens=10)
        assert steady.ask({"X-Team": "core"}, user="a", max_tokens=100) == "param_not_allowed"
        client.allow("project", max_output_tokens=None, required_headers=["X-Other"])
        assert steady.ask({"X-Team": "core"}, user="a", max_tokens=100) == "header_required"
        client.allow("project", required_headers=[])
        assert steady.ask({"X-Team": "core"}, user="a", max_tokens=100) == "200"
    finally:
        steady.connection.close()


def test_fields_that_differ_each_time(stack: Stack) -> None:
    """What a policy says of a field that a known head has a hole for is checked for each request."""
    client = Client(stack, header_values={"X-Request-ID": ["team-*"]})
    steady = Steady(stack, client.token["token"])
    try:
        asked = [steady.ask({"X-Request-ID": f"team-{number}"}) for number in range(6)]
        assert asked == ["200"] * 6
        assert steady.ask({"X-Request-ID": "other"}) == "header_not_allowed"
    finally:
        steady.connection.close()


def test_another_daemon_hears_of_it(stack: Stack) -> None:
    """On the same store, within a second or so."""
    client = Client(stack)
    with stack.another("second") as other:

        def code() -> str | None:
            body = json.dumps({**SAID, "max_tokens": 500}).encode()
            answer = stack.ask("POST", CHAT, body, JSON, token=client.token["token"], port=other.port)
            return answer.header("X-LLMProxy-Error")

        assert code() is None
        client.allow("project", max_output_tokens=100)
        eventually(lambda: code() == "param_not_allowed")
        client.allow("project", max_output_tokens=None)
        eventually(lambda: code() is None)


def test_what_is_audited(stack: Stack) -> None:
    """What was before, and what is after."""
    client = Client(stack, max_output_tokens=100)
    client.allow("token", max_output_tokens=50, methods=["POST"])
    client.allow("project", param_whitelist={"model": ["gpt-*"]})
    of_token = stack.manage("GET", f"/manage/audit?action=token.update&token_id={client.token['id']}")["data"]
    of_project = stack.manage("GET", f"/manage/audit?action=project.update&project_id={client.project}")["data"]
    (details,) = [each["details"] for each in of_token if each["outcome"] == "success"]
    assert details["changes"] == {
        "max_output_tokens": {"before": 100, "after": 50},
        "methods": {"before": [], "after": ["POST"]},
    }
    (details,) = [each["details"] for each in of_project if each["outcome"] == "success"]
    assert details["changes"] == {"param_whitelist": {"before": {}, "after": {"model": ["gpt-*"]}}}


@pytest.mark.parametrize("kind", ["token", "project"])
def test_what_cannot_be_a_policy(stack: Stack, kind: str) -> None:
    """Each is refused, by the field's name, and nothing of it is stored."""
    client = Client(stack)
    for field, value in (
        ("max_output_tokens", 0),
        ("max_output_tokens", "100"),
        ("max_output_tokens", 1.5),
        ("methods", ["post"]),
        ("methods", ["TRACE"]),
        ("methods", "POST"),
        ("methods", None),
        ("param_whitelist", {"model": []}),
        ("param_whitelist", {"model": "gpt"}),
        ("param_whitelist", {"": ["a"]}),
        ("param_whitelist", {f"p{number}": ["a"] for number in range(65)}),
        ("required_params", ["a|"]),
        ("required_params", [""]),
        ("required_headers", ["a b"]),
        ("header_values", {"Authorization": ["x"]}),
        ("header_values", {"x-api-key": ["x"]}),
        ("header_values", {"X-A": ["1"], "x-a": ["2"]}),
        ("header_values", {"X-A": ["\u0000"]}),
        ("endpoints", ["/v1/**/x"]),
        ("apis", ["nobody"]),
        ("models", [""]),
        ("ips", ["10.0.0.1/8"]),
    ):
        with pytest.raises(HTTPError) as raised:
            client.allow(kind, **{field: value})
        with raised.value as answer:
            problem = json.loads(answer.read())
            assert (answer.code, problem["code"]) == (422, "invalid_request"), (field, value, problem)
            assert field in problem["detail"], problem
    assert client.code() is None


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(stack: Stack, *arguments: str, code: int = 0) -> str:
    done = llmproxy("--url", stack.url, *arguments, cwd=stack.home, env=stack.env)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def run_curl(stack: Stack, script: str) -> None:
    (stack.home / "management.header").write_text(f"Authorization: Bearer {MANAGEMENT}\n")
    script = script.replace("http://127.0.0.1:8080", stack.url).replace("curl -sS", "curl -sS -f")
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=stack.home, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page(stack: Stack) -> None:
    """Its commands, its call, its file and its response are what they say."""
    client = Client(stack)

    def named(text: str) -> str:
        return text.replace("PROJECT_ID", client.project).replace("TOKEN_ID", client.token["id"])

    (commands,) = blocks("console")
    for line in named(commands).splitlines():
        run(stack, *shlex.split(line.removeprefix("$ llmproxy ")))
    project = stack.manage("GET", f"/manage/projects/{client.project}")
    assert (project["models"], project["max_output_tokens"], project["required_params"]) == (
        ["gpt-4o*"],
        4096,
        ["user"],
    )
    token = stack.manage("GET", f"/manage/tokens/{client.token['id']}")
    assert (token["required_headers"], token["header_values"]) == ([], {})
    tokens = stack.manage("GET", f"/manage/tokens?project_id={client.project}&search=batch")["data"]
    assert [(each["methods"], each["max_output_tokens"], each["param_whitelist"]) for each in tokens] == [
        (["POST"], 500, {"temperature": ["0", "0.5"]})
    ]
    if shutil.which("curl") and shutil.which("bash"):
        (script,) = blocks("sh")
        run_curl(stack, named(script))
    else:
        client.allow("project", max_output_tokens=1000, required_params=["user"])
    (shown,) = blocks("json")
    answer = client.ask(user="ada", max_tokens=1001).json
    assert answer | {"request_id": "…"} == json.loads(shown)
    assert client.code(user="ada", max_tokens=1000) is None

    (declared,) = blocks("yaml")
    (stack.home / "policies.yaml").write_text(declared)
    plan = run(stack, "apply", "-f", "policies.yaml")
    assert "+ create project Search" in plan and "max_output_tokens: 4096" in plan
    assert run(stack, "apply", "-f", "policies.yaml") == ""
    (stack.home / "policies.yaml").write_text(declared.replace("[0, 0.5]", "[0, 1]").replace("4096", "null"))
    plan = run(stack, "apply", "-f", "policies.yaml")
    assert plan.splitlines() == [
        "~ update project Search  max_output_tokens: 4096 -> none",
        '~ update token batch  param_whitelist: {"temperature": ["0", "0.5"]} -> {"temperature": ["0", "1"]}',
    ]


def test_on_the_command_line(stack: Stack) -> None:
    """A project is made with a policy, shown, changed, and rid of it; what is no NAME=GLOB is told."""
    given = ["--api", "openai", "--method", "POST", "--endpoint", CHAT, "--model", "gpt-*", "--ip", "127.0.0.1"]
    given += ["--allow-header", "X-Team=core", "--allow-header", "X-Team=data", "--require-header", "X-Team"]
    made = json.loads(run(stack, "project", "create", "--name", "Ruled", *given, "--output", "json"))
    shown = json.loads(run(stack, "project", "show", made["id"], "--output", "json"))
    assert {name: shown[name] for name in ("apis", "methods", "endpoints", "models", "ips", "required_headers")} == {
        "apis": ["openai"],
        "methods": ["POST"],
        "endpoints": [CHAT],
        "models": ["gpt-*"],
        "ips": ["127.0.0.1/32"],
        "required_headers": ["X-Team"],
    }
    assert shown["header_values"] == {"X-Team": ["core", "data"]}
    assert "X-Team" in run(stack, "project", "show", made["id"])
    rules = ("apis", "methods", "endpoints", "models", "ips", "headers", "required-headers")
    lifted = [word for rule in rules for word in ("--remove-rule", rule)]
    bare = json.loads(run(stack, "project", "update", made["id"], *lifted, "--output", "json"))
    assert not any(bare[name] for name in ("apis", "methods", "endpoints", "models", "ips", "header_values"))
    for wrong in ("temperature", "=1", "temperature="):
        assert "NAME=GLOB" in run(stack, "project", "update", made["id"], "--allow-param", wrong, code=2)


def test_labels_filter_lists(stack: Stack) -> None:
    """Page by page, in the API and on the command line; what is no label is refused."""
    notes = {"labels": ["batch", "tier=1"], "metadata": {"team": "core"}}
    made = [
        stack.manage("POST", "/manage/projects", {"name": f"L{number}", **(notes if number % 2 else {"labels": ["x"]})})
        for number in range(7)
    ]
    wanted = [each["id"] for each in made[1::2]]
    for query in (
        "label=team=core",
        "label=team%3Dcore&label=batch",
        "label=tier=1&label=tier=1",
        "label=batch&label=",
    ):
        found = stack.manage("GET", f"/manage/projects?{query}")
        assert ([each["id"] for each in found["data"]], found["total"]) == (wanted, 3), query
    first = stack.manage("GET", "/manage/projects?label=batch&limit=2")
    rest = stack.manage("GET", f"/manage/projects?label=batch&limit=2&cursor={first['next_cursor']}")
    assert [each["id"] for page in (first, rest) for each in page["data"]] == wanted
    assert stack.manage("GET", "/manage/projects?label=team=Core")["data"] == []
    token = stack.manage("POST", "/manage/tokens", {"project_id": wanted[0], "metadata": {"team": "core"}})
    stack.manage("POST", "/manage/tokens", {"project_id": wanted[0]})
    found = stack.manage("GET", f"/manage/tokens?project_id={wanted[0]}&label=team=core")
    assert [each["id"] for each in found["data"]] == [token["id"]]
    for query in ("label=%00", "label=a b", "label=" + "x" * 400, "&".join(f"label=a{number}" for number in range(17))):
        with pytest.raises(HTTPError) as raised:
            stack.manage("GET", f"/manage/projects?{query.replace(' ', '%20')}")
        with raised.value as answer:
            assert answer.code == 422 and "label" in json.loads(answer.read())["detail"]
    listed = json.loads(run(stack, "project", "list", "--label", "batch", "--label", "team=core", "--output", "json"))
    assert [each["id"] for each in listed["data"]] == wanted
    listed = json.loads(run(stack, "token", "list", "--label", "team=core", "--output", "json"))
    assert token["id"] in [each["id"] for each in listed["data"]]
    assert all(each["metadata"].get("team") == "core" for each in listed["data"])


def test_hits_of_the_cache(tmp_path: Path) -> None:
    """What the cache has is for those who may ask for it, the short way too."""
    cached = {"more": "cache: {post: always, ttl: 1000s}", "further": "cache: {enabled: true}\n"}
    with Stack(tmp_path, env={FAST_PATH: "true"}, **cached) as stack:
        client = Client(stack, required_params=["max_tokens"])
        steady = Steady(stack, client.token["token"])
        free = Steady(stack, stack.new_token(project_id=client.project))
        try:
            assert free.ask() == "200"  # what it asks for is in the cache now
            for _ in range(100):
                assert steady.ask(max_tokens=50) == "200"
                if stack.metric("fast_path_requests_total") >= 5:
                    break
            assert stack.metric("fast_path_requests_total") >= 5
            assert free.ask() == "200" and len(stack.recorded()) == 2
            assert steady.ask() == "param_required"
            client.allow("token", max_output_tokens=49)
            assert steady.ask(max_tokens=50) == "param_not_allowed"
            client.allow("token", max_output_tokens=50)
            assert steady.ask(max_tokens=50) == "200"
            assert len(stack.recorded()) == 2
        finally:
            steady.connection.close()
            free.connection.close()
