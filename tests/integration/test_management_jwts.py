"""Managing by the JWT of an identity provider, and revoking those of a subject, through a daemon with two workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.support.oidc_server import OidcServer, forged
from tests.support.processes import HOST, run_command
from tests.support.responses import Response
from tests.support.stack import MANAGEMENT, eventually
from tests.support.workers import WorkerStack

QUESTION = b'{"model":"gpt-4o","max_tokens":5,"messages":[{"role":"user","content":"x"}]}'
SETTINGS = """
auth: {{oidc: {{issuer: "{issuer}", audience: [llmproxy], claims: {{project: team}}}}}}
management:
  oidc:
    issuer: {issuer}
    audience: [llmproxy-management]
    claims: {{name: nickname, role: realm.roles, projects: teams}}
    roles: {{admin: [llm-admin], operator: [llm-operator], viewer: [llm-viewer]}}
"""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcServer]:
    with OidcServer(tmp_path_factory.mktemp("oidc") / "oidc.log") as provider:
        yield provider


@pytest.fixture(scope="module")
def stack(provider: OidcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerStack]:
    further = SETTINGS.format(issuer=provider.issuer)
    with WorkerStack(tmp_path_factory.mktemp("jwts"), 2, further) as stack:
        yield stack


def person(provider: OidcServer, sub: str, *roles: str, **more: Any) -> str:
    return provider.token(**{"sub": sub, "aud": "llmproxy-management", "realm": {"roles": list(roles)}, **more})


def call(stack: WorkerStack, token: str, method: str, path: str, body: object = None) -> Response:
    """On a connection of its own, which any of the workers may take."""
    connection = HTTPConnection(HOST, stack.daemon.port, timeout=30)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        return Response.whole(answer.status, answer.reason, answer.getheaders(), answer.read())
    finally:
        connection.close()


def code(response: Response) -> tuple[int, str]:
    return response.status, str(response.header("x-llmproxy-error"))


def entries(stack: WorkerStack, action: str, actor: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (stack.home / "audit.jsonl").read_text().splitlines()]
    return [line for line in lines if line["action"] == action and line["actor"].endswith(actor)]


@pytest.mark.long("3 s: each role of a JWT, as of a management key")
def test_roles_and_projects(stack: WorkerStack, provider: OidcServer) -> None:
    """As of people who sign in to the pages; the audit log has the subject."""
    admin = person(provider, "admin-1", "llm-viewer", "llm-admin", nickname="Admin of all")
    other = json.loads(call(stack, admin, "POST", "/manage/projects", {"name": "Other"}).body)["id"]
    [*_, intent, created] = entries(stack, "project.create", ":admin-1")
    assert (created["outcome"], created["project_id"]) == ("success", other)
    assert (intent["outcome"], intent["details"]["name"]) == ("intent", "Other")
    assert {each["details"]["actor_name"] for each in (intent, created)} == {"Admin of all"}
    lead = person(provider, "lead-1", "llm-operator", teams=[stack.project])
    listed = json.loads(call(stack, lead, "GET", "/manage/projects").body)["data"]
    assert [each["id"] for each in listed] == [stack.project]
    assert call(stack, lead, "POST", "/manage/tokens", {"project_id": stack.project}).status == 201
    assert call(stack, lead, "POST", "/manage/tokens", {"project_id": other}).status == 404
    refused = call(stack, lead, "GET", "/manage/keys")
    assert code(refused) == (403, "role_not_allowed")
    assert refused.header("www-authenticate") == 'Bearer realm="llmproxy", error="insufficient_scope"'
    assert call(stack, person(provider, "viewer-1", "llm-viewer", teams=[]), "GET", "/manage/projects").status == 200
    assert call(stack, person(provider, "scraper", "llm-admin"), "GET", "/metrics").status == 200
    nobody = call(stack, person(provider, "nobody-1", "staff"), "GET", "/manage/projects")
    assert code(nobody) == (403, "claims_not_allowed")
    assert nobody.header("www-authenticate") == 'Bearer realm="llmproxy", error="insufficient_scope"'
    [denied] = entries(stack, "management.denied", ":nobody-1")
    assert denied["details"]["error"] == "claims_not_allowed"
    for file in ("llmproxy.log", "audit.jsonl"):
        assert admin.split(".")[2] not in (stack.home / file).read_text()


def wrong_tokens(provider: OidcServer) -> dict[str, str]:
    """By what is wrong with each."""
    good: dict[str, Any] = {"sub": "eve", "aud": "llmproxy-management", "realm": {"roles": ["llm-admin"]}}
    key = provider.private_keys()[0]
    return {
        "for clients": provider.token(**{**good, "aud": "llmproxy"}),
        "no audience": provider.token(**{**good, "aud": None}),
        "another key": provider.token(key=RSAKey.generate_key(2048, {"kid": key.kid}), **good),
        "alg none": forged("none", key, provider.claims(**good)),
        "its public key as a secret": forged("HS256", key, provider.claims(**good)),
        "not yet": provider.token(**{**good, "nbf": 4_000_000_000}),
        "over": provider.token(**{**good, "exp": 1_700_000_000}),
        "no subject": provider.token(**{**good, "sub": None}),
    }


def test_what_is_refused(stack: WorkerStack, provider: OidcServer) -> None:
    """Whoever sends it learns that it is no good, and whether time is to blame; the audit log says what it was."""
    expected = {"not yet": "token_not_yet_valid", "over": "token_expired"}
    said = set()
    for name, token in wrong_tokens(provider).items():
        refused = call(stack, token, "GET", "/manage/projects")
        assert code(refused) == (401, expected.get(name, "token_invalid")), name
        assert refused.header("www-authenticate") == 'Bearer realm="llmproxy", error="invalid_token"'
        said.add(json.loads(refused.body)["detail"])
    assert len(said) == 3 and not [text for text in said if "audience" in text or "signature" in text]
    elsewhere = provider.token(iss="https://id.example.com", aud="llmproxy-management", realm={"roles": ["llm-admin"]})
    assert code(call(stack, elsewhere, "GET", "/manage/projects")) == (401, "unauthorized")
    reasons = [entry["details"].get("reason") for entry in entries(stack, "management.denied", "unknown")]
    assert "This JWT is meant for another audience." in reasons
    good = person(provider, "patient", "llm-admin")
    assert code(call(stack, good, "GET", "/v1/models")) == (401, "token_invalid")  # what manages is no client's


def refused_everywhere(stack: WorkerStack, token: str, path: str, times: int = 10) -> bool:
    """So many connections, which both workers take some of."""
    return {code(call(stack, token, "GET", path)) for _ in range(times)} == {(401, "token_inactive")}


def subject(*command: str, stack: WorkerStack) -> Any:
    """What C{llmproxy subject …} says."""
    env = {"LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT}
    done = run_command(["llmproxy", "--url", stack.url, "--output", "json", "subject", *command], timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_subject_that_is_revoked(stack: WorkerStack, provider: OidcServer) -> None:
    """Its JWTs open nothing in any worker, as a client or to manage, also after a restart, until it is restored."""
    client = provider.token(sub="mallory", team=stack.project)
    another = provider.token(sub="trent", team=stack.project)
    manager = person(provider, "mallory", "llm-admin")
    for _ in range(12):  # cached in both, and remembered by the fast path
        assert call(stack, client, "GET", "/v1/models").status == 200
    assert call(stack, manager, "GET", "/manage/version").status == 200
    stack.manage("POST", "/manage/subjects/revoke", {"issuer": provider.issuer, "sub": "mallory", "reason": "left"})
    begun = time.monotonic()
    eventually(lambda: refused_everywhere(stack, client, "/v1/models"))
    took = time.monotonic() - begun
    assert refused_everywhere(stack, manager, "/manage/version", 4)
    assert call(stack, another, "GET", "/v1/models").status == 200
    [revoked] = [each for each in stack.manage("GET", "/manage/subjects")["data"] if each["id"].endswith(":mallory")]
    assert (revoked["issued_before"], revoked["reason"]) == (None, "left")
    intent, entry = [e for e in entries(stack, "subject.revoke", "management") if e["token_id"] == revoked["id"]]
    assert (intent["outcome"], entry["outcome"]) == ("intent", "success")
    assert intent["details"]["subject"] == revoked["id"] and entry["details"]["reason"] == "left"
    stack.daemon.__exit__(None, None, None)
    stack.daemon.__enter__()
    eventually(lambda: refused_everywhere(stack, client, "/v1/models"))
    assert [each for each in subject("list", stack=stack)["data"] if each["id"] == revoked["id"]]
    assert subject("restore", revoked["id"], stack=stack)["id"] == revoked["id"]
    eventually(lambda: {call(stack, client, "GET", "/v1/models").status for _ in range(6)} == {200})
    print(f"refused by both workers after {took:.3f} s")


def test_only_those_that_were_issued_before(stack: WorkerStack, provider: OidcServer) -> None:
    """Whose laptop was stolen signs in anew, and goes on with the new JWT."""
    now = int(time.time())
    old = provider.token(sub="walter", team=stack.project, iat=now - 60)
    undated = provider.token(sub="walter", team=stack.project, iat=None)
    new = provider.token(sub="walter", team=stack.project, iat=now)
    assert {call(stack, token, "GET", "/v1/models").status for token in (old, new, undated)} == {200}
    before = (datetime.fromtimestamp(now, UTC) - timedelta(seconds=30)).isoformat()
    shown = subject("revoke", "walter", "--issuer", provider.issuer, "--issued-before", before, stack=stack)
    assert shown["id"].endswith(":walter") and shown["issued_before"]
    eventually(lambda: refused_everywhere(stack, old, "/v1/models"))
    eventually(lambda: refused_everywhere(stack, undated, "/v1/models"))
    assert {call(stack, new, "GET", "/v1/models").status for _ in range(6)} == {200}


def test_names_that_would_revoke_nothing(stack: WorkerStack, provider: OidcServer) -> None:
    """A mistyped issuer, a mistyped id, and half a name are refused instead of stored."""
    for body in (
        {"issuer": provider.issuer + "/", "sub": "ada"},
        {"id": "oidc:00000000:ada"},
        {"sub": "ada"},
        {"issuer": provider.issuer},
        {"id": "oidc:00000000:ada", "issuer": provider.issuer, "sub": "ada"},
        {},
    ):
        assert call(stack, MANAGEMENT, "POST", "/manage/subjects/revoke", body).status == 422, body
    assert code(call(stack, MANAGEMENT, "POST", "/manage/subjects/restore", {"id": "unheard-of"})) == (404, "not_found")
    lead = person(provider, "lead-2", "llm-operator", teams=[stack.project])
    body = {"issuer": provider.issuer, "sub": "ada"}
    assert call(stack, lead, "POST", "/manage/subjects/revoke", body).status == 403  # it concerns all projects
