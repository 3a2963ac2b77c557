"""JWTs of an OpenID Connect provider in place of issued tokens, through the started daemon."""

from __future__ import annotations

import hmac
import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.support.oidc_server import OidcServer
from tests.support.responses import Response
from tests.support.stack import MANAGEMENT, Stack, eventually

QUESTION = b'{"model":"gpt-4o","max_tokens":5,"messages":[{"role":"user","content":"x"}]}'
CHAT = "/v1/chat/completions"
SETTINGS = """
auth:
  oidc:
    issuer: {issuer}
    audience: [llmproxy]
    apis: [openai, anything]
    clock_skew: 0
    jwks_cooldown: 300ms
    jwks_refresh: 1h
    claims: {{project: team, models: allowed.models}}
    projects: {{gone: no-such-project, mine: "{project}"}}
    require: {{groups: [llm-users]}}
    profiles:
      small: {{requests_per_minute: 2, models: ["gpt-4o*"]}}
"""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcServer]:
    with OidcServer(tmp_path_factory.mktemp("oidc") / "oidc.log") as provider:
        yield provider


@pytest.fixture(scope="module")
def stack(provider: OidcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("oidc")
    with Stack(home) as first:
        project = first.project
    with Stack(home, further=SETTINGS.format(issuer=provider.issuer, project=project)) as stack:
        stack.project = project
        yield stack


def claims(**more: Any) -> dict[str, Any]:
    return {"team": "mine", "groups": ["llm-users", "others"], **more}


def ask(stack: Stack, token: str, body: bytes = QUESTION, path: str = CHAT) -> Response:
    return stack.ask("POST", path, body, {"Content-Type": "application/json"}, token=token)


def code(response: Response) -> tuple[int, str]:
    return response.status, str(response.header("x-llmproxy-error"))


def test_a_jwt_in_place_of_a_token(stack: Stack, provider: OidcServer) -> None:
    """It is served, with the provider's key and without the JWT, and is in the ledger under the subject's name."""
    fetched = provider.counts().get("/keys", 0)
    for key in provider.private_keys():
        token = provider.token(key=key, **claims(sub="grace"))
        for _ in range(4):
            assert ask(stack, token).status == 200
    sent = json.dumps(stack.last())
    assert token not in sent and "Bearer sk-sim-openai" in sent
    name = re.compile(r"oidc:[0-9a-f]{8}:grace")
    rows = eventually(lambda: stack.manage("GET", "/manage/usage?group_by=token")["data"])
    used = eventually(
        lambda: [
            row
            for row in stack.manage("GET", "/manage/usage?group_by=token")["data"]
            if name.fullmatch(row["token_id"]) and row["requests"] >= 8
        ]
    )
    assert used[0]["input_tokens"] > 0, rows
    assert provider.counts()["/keys"] <= fetched + 1  # never for a request
    for file in ("llmproxy.log", "events.jsonl", "audit.jsonl"):
        eventually((stack.home / file).exists)
        assert token.split(".")[2] not in (stack.home / file).read_text()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"aud": "another"}, "token_invalid"),
        ({"aud": ["another", "llmproxy/"]}, "token_invalid"),
        ({"aud": None}, "token_invalid"),
        ({"iss": "http://localhost:1"}, "token_not_found"),
        ({"exp": 1_700_000_000}, "token_expired"),
        ({"exp": None}, "token_invalid"),
        ({"exp": 10**40}, "token_invalid"),
        ({"exp": "soon"}, "token_invalid"),
        ({"exp": True}, "token_invalid"),
        ({"nbf": 4_000_000_000}, "token_not_yet_valid"),
        ({"iat": 4_000_000_000}, "token_not_yet_valid"),
        ({"sub": None}, "token_invalid"),
        ({"sub": 5}, "token_invalid"),
        ({"padding": "x" * 20_000}, "missing_token"),  # longer than any credential
    ],
)
def test_claims_that_are_refused(stack: Stack, provider: OidcServer, wrong: dict[str, Any], expected: str) -> None:
    assert code(ask(stack, provider.token(**claims(**wrong)))) == (401, expected)


def test_signatures_that_are_refused(stack: Stack, provider: OidcServer) -> None:
    """Whatever has fooled somebody elsewhere: another key, none, the public key as a secret, a key in the token."""
    rsa, elliptic = provider.private_keys()
    good = provider.token(**claims())
    head, payload, signature = good.split(".")
    own = RSAKey.generate_key(2048, {"kid": rsa.kid or ""})
    hashed = f"{encoded({'alg': 'HS256', 'kid': rsa.kid})}.{payload}"  # which joserfc itself refuses to make
    mac = hmac.digest(rsa.as_pem(private=False), hashed.encode(), "sha256")
    anything = RSAKey.import_key({name: v for name, v in rsa.as_dict(private=True).items() if name != "alg"})
    own_public, rest = own.as_dict(private=False), f".{payload}.{signature}"
    bad = {
        "another key of that id": provider.token(key=own, **claims()),
        "no signature": f"{head}.{payload}.",
        "cut": f"{head}.{payload}.{signature[:-8]}",
        "of other claims": f"{head}.{provider.token(**claims(sub='eve')).split('.')[1]}.{signature}",
        "the id of another key": provider.token(header={"kid": elliptic.kid}, **claims()),
        "the public key as a secret": f"{hashed}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}",
        "none": encoded({"alg": "none"}) + f".{payload}.",
        "None": encoded({"alg": "None", "kid": rsa.kid}) + rest,
        "no algorithm": encoded({"kid": rsa.kid}) + rest,
        "a list": encoded({"alg": ["RS256"]}) + rest,
        "its own key": provider.token(header={"jwk": own_public, "kid": "mine", "alg": "RS256"}, key=own, **claims()),
        "a key elsewhere": provider.token(header={"jku": f"{provider.issuer}/evil", "kid": "x"}, key=own, **claims()),
        "a key for another algorithm": provider.token(header={"alg": "RS512"}, key=anything, **claims()),
        "a critical field": encoded({"alg": "RS256", "kid": rsa.kid, "crit": ["x"], "x": 1}) + rest,
        "another type": provider.token(header={"typ": "logout+jwt"}, **claims()),
        "a deep header": encoded("[" * 2000) + rest,
        "deep claims": f"{head}." + encoded('{"a":' * 2000) + f".{signature}",
    }
    before = len(stack.recorded())
    answers = {name: code(ask(stack, token)) for name, token in bad.items()}
    assert {name: status for name, (status, _) in answers.items()} == dict.fromkeys(bad, 401), answers
    assert {each for _, each in answers.values()} <= {"token_invalid", "token_not_found"}, answers
    assert "/evil" not in provider.counts()
    assert len(stack.recorded()) == before
    assert ask(stack, good).status == 200


def encoded(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"groups": ["others"]}, "claims_not_allowed"),
        ({"groups": None}, "claims_not_allowed"),
        ({"groups": 5}, "claims_not_allowed"),
        ({"team": None}, "claims_not_allowed"),
        ({"team": "unheard-of"}, "claims_not_allowed"),
        ({"team": "gone"}, "project_unknown"),
        ({"llmproxy_profile": "unheard-of"}, "claims_not_allowed"),
        ({"llmproxy_apis": ["mistral"]}, "api_not_allowed"),
        ({"allowed": {"models": []}}, "model_not_allowed"),
        ({"allowed": {"models": ["gpt-4.1"]}}, "model_not_allowed"),
        ({"llmproxy_profile": "small", "allowed": {"models": ["o3", "*"]}}, "model_not_allowed"),
    ],
)
def test_claims_that_allow_nothing(stack: Stack, provider: OidcServer, more: dict[str, Any], expected: str) -> None:
    assert code(ask(stack, provider.token(**claims(sub="bob", **more)))) == (403, expected)


def test_what_claims_allow(stack: Stack, provider: OidcServer) -> None:
    assert ask(stack, provider.token(**claims(groups="a llm-users"))).status == 200  # as scope is written
    assert ask(stack, provider.token(**claims(padding="x" * 8000))).status == 200  # some have hundreds of groups
    assert ask(stack, provider.token(**claims(allowed={"models": "gpt-4o o3"}))).status == 200
    assert code(ask(stack, provider.token(**claims()), path="/mistral/v1/chat/completions")) == (403, "api_not_allowed")
    token = provider.token(**claims(sub="limited", llmproxy_profile="small"))
    assert [ask(stack, token).status for _ in range(2)] == [200, 200]
    another = provider.token(**claims(sub="limited", llmproxy_profile="small", jti="another"))
    assert code(ask(stack, another)) == (429, "rate_limit_exceeded")  # the limit is the subject's
    assert ask(stack, provider.token(**claims(sub="other", llmproxy_profile="small"))).status == 200


def test_it_ends_when_the_jwt_does(stack: Stack, provider: OidcServer) -> None:
    """Also where the next request with that head would take the fast path."""
    expires = int(time.time()) + 3
    token = provider.token(**claims(sub="brief", exp=expires))
    served = [ask(stack, token) for _ in range(4)]
    assert time.time() >= expires or {response.status for response in served} == {200}
    assert eventually(lambda: ask(stack, token).status != 200)
    assert time.time() >= expires
    assert code(ask(stack, token)) == (401, "token_expired")


def test_a_project_that_is_deactivated(stack: Stack, provider: OidcServer) -> None:
    token = provider.token(**claims(sub="carol"))
    for _ in range(3):
        assert ask(stack, token).status == 200
    stack.manage("PATCH", f"/manage/projects/{stack.project}", {"active": False})
    try:
        assert code(ask(stack, token)) == (403, "project_inactive")
    finally:
        stack.manage("PATCH", f"/manage/projects/{stack.project}", {"active": True})
    assert ask(stack, token).status == 200


def test_keys_that_are_rotated(stack: Stack, provider: OidcServer) -> None:
    """A JWT signed with a new key is served as soon as it comes; one of a key that was withdrawn is refused then."""
    old = provider.token(**claims(sub="dave"))
    for _ in range(3):
        assert ask(stack, old).status == 200
    provider.rotate()
    new = provider.token(**claims(sub="dave"))
    eventually(lambda: ask(stack, new).status == 200)
    assert code(ask(stack, old)) == (401, "token_invalid")
    fetched = provider.counts()["/keys"]
    forged = [provider.token(header={"kid": f"forged-{n}"}, **claims()) for n in range(40)]
    begun = time.monotonic()
    assert {code(ask(stack, token)) for token in forged} == {(401, "token_invalid")}
    assert provider.counts()["/keys"] - fetched <= (time.monotonic() - begun) / 0.3 + 2


def test_a_provider_that_is_away(stack: Stack, provider: OidcServer) -> None:
    """Keys that are known are used on, and readiness says what is wrong."""
    provider.available(False)
    try:
        assert ask(stack, provider.token(**claims(sub="erin"))).status == 200
        unknown = provider.token(header={"kid": "unknown"}, **claims())

        def noticed() -> bool:
            """Not at the first one that comes within the cooldown of a fetch before."""
            assert code(ask(stack, unknown)) == (401, "token_invalid")
            return "503" in json.dumps(stack.manage("GET", "/ready"))

        eventually(noticed)
    finally:
        provider.available(True)
    metrics = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    assert f'llmproxy_oidc_keys{{issuer="{provider.issuer}"}} 2.0' in metrics
    assert re.search(r"llmproxy_oidc_key_fetch_failures_total\{.*\} [1-9]", metrics)
    assert re.search(r"llmproxy_oidc_tokens_accepted_total\{.*\} [1-9]", metrics)


def test_a_provider_that_was_never_there(tmp_path: Path) -> None:
    """The daemon starts; tokens of its own are served, JWTs are told to try again."""
    with OidcServer(tmp_path / "oidc.log") as provider:
        provider.available(False)
        further = f"auth: {{oidc: {{issuer: '{provider.issuer}', audience: [llmproxy], jwks_cooldown: 200ms}}}}\n"
        with Stack(tmp_path, further=further) as stack:
            assert ask(stack, stack.token).status == 200
            token = provider.token(llmproxy_project=stack.project)
            assert code(ask(stack, token)) == (503, "identity_provider_unavailable")
            provider.available(True)
            eventually(lambda: ask(stack, token).status == 200)
