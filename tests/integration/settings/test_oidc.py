"""What the settings of C{auth.oidc} change, through one daemon in front of several identity providers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.support.oidc_server import OidcServer
from tests.support.processes import run_command
from tests.support.responses import Response
from tests.support.settings_stack import Asked, SettingsStack
from tests.support.stack import eventually
from tests.unit.wire.authority import Authority

CHAT = "/v1/chat/completions"
QUESTION = b'{"model":"%b","max_tokens":5,"messages":[{"role":"user","content":"x"}]}'
PROFILES = {
    "usual": {"models": ["gpt-4o"]},
    "free": {},
    "apis": {"apis": ["other"]},
    "endpoints": {"endpoints": ["/v1/embeddings"]},
    "ips": {"ips": ["192.0.2.0/24"]},
    "requests": {"requests_per_minute": 1},
    "tokens": {"tokens_per_minute": 1},
    "concurrency": {"concurrency": 1},
    "usd": {"budget_usd": "0.000001/day"},
    "budget": {"budget_tokens": "1/day"},
    "methods": {"methods": ["GET"]},
    "short": {"max_output_tokens": 4},
    "params": {"param_whitelist": {"max_tokens": [1, 2]}},
    "named": {"required_params": ["user"]},
    "team": {"required_headers": ["X-Team"]},
    "beta": {"header_values": {"X-Team": ["core"]}},
    "warned": {"soft_budget_usd": "0.000001/day", "soft_budget_tokens": "1/day"},
}


class Issuers:
    """A daemon that trusts all of them: C{main} by C{auth.oidc}, the others by C{auth.validators}."""

    def __init__(self, home: Path, running: ExitStack) -> None:
        authority = Authority(home)
        authority.server("localhost")  # makes server.pem
        names = ("main", "stale", "hasty")
        self.main, self.stale, self.hasty = (running.enter_context(OidcServer(home / f"{name}.log")) for name in names)
        self.tls, self.strange = (
            running.enter_context(OidcServer(home / f"{name}.log", home / "server.pem")) for name in ("tls", "strange")
        )
        self.hasty.delay(1.5)
        with SettingsStack(home, {"other": {}}) as first:
            self.project = first.project
        common = {"type": "oidc", "audience": ["llmproxy"], "default_project": self.project}
        oidc = {
            "issuer": self.main.issuer,
            "audience": ["llmproxy"],
            "jwks_url": f"{self.main.issuer}/keys",
            "algorithms": ["RS256"],
            "clock_skew": "1m",
            "jwks_refresh": "300ms",
            "jwks_cooldown": "1h",
            "default_project": self.project,
            "claims": {"project": "team", "profile": "kind", "models": "may.use", "apis": "may.call"},
            "profiles": PROFILES,
            "default_profile": "usual",
        }
        quick = {"jwks_refresh": "200ms", "jwks_cooldown": "100ms"}
        validators = [
            {**common, **quick, "issuer": self.stale.issuer, "jwks_max_stale": "500ms"},
            {**common, **quick, "issuer": self.hasty.issuer, "timeout": "300ms"},
            {**common, "issuer": self.tls.issuer, "ca_file": authority.ca_file},
            {**common, "issuer": self.strange.issuer},
        ]
        self.stack = running.enter_context(
            SettingsStack(home, {"other": {}}, auth={"oidc": oidc, "validators": validators})
        )

    def ask(self, token: str, model: str = "gpt-4o", path: str = CHAT, **more: Any) -> Response:
        json = {"Content-Type": "application/json", **more}
        return self.stack.ask("POST", path, QUESTION % model.encode(), json, token=token)

    def code(self, token: str, **how: Any) -> tuple[int, str | None]:
        response = self.ask(token, **how)
        return response.status, response.header("x-llmproxy-error")


@pytest.fixture(scope="module")
def issuers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuers]:
    with ExitStack() as running:
        yield Issuers(tmp_path_factory.mktemp("oidc"), running)


def test_jwks_url(issuers: Issuers) -> None:
    """What is named is not looked for."""
    assert issuers.ask(issuers.main.token()).status == 200
    assert "/.well-known/openid-configuration" not in issuers.main.counts()
    eventually(lambda: "/.well-known/openid-configuration" in issuers.tls.counts())  # behind the others' start


def test_algorithms(issuers: Issuers) -> None:
    rsa, elliptic = issuers.main.private_keys()
    assert isinstance(rsa, RSAKey)
    assert issuers.code(issuers.main.token(key=elliptic)) == (401, "token_invalid")
    assert issuers.ask(issuers.tls.token(key=issuers.tls.private_keys()[1])).status == 200


def test_clock_skew(issuers: Issuers) -> None:
    now = int(time.time())
    assert issuers.ask(issuers.main.token(exp=now - 2, nbf=now)).status == 200
    assert issuers.code(issuers.main.token(exp=now - 61)) == (401, "token_expired")
    assert issuers.code(issuers.tls.token(exp=now - 31)) == (401, "token_expired")


def test_defaults(issuers: Issuers) -> None:
    """Of project and profile, where the JWT names none."""
    assert issuers.code(issuers.main.token(), model="o3") == (403, "model_not_allowed")
    assert issuers.ask(issuers.main.token(kind="free"), model="o3").status == 200
    assert issuers.code(issuers.main.token(team="gone")) == (403, "project_unknown")


def test_claims(issuers: Issuers) -> None:
    token = issuers.main.token(kind="free", may={"use": ["o3"], "call": ["other"]})
    assert issuers.code(token, model="o3") == (403, "api_not_allowed")
    assert issuers.ask(token, model="o3", path=f"/other{CHAT}").status == 200
    assert issuers.code(token, path=f"/other{CHAT}") == (403, "model_not_allowed")


def test_policies_of_profiles(issuers: Issuers) -> None:
    """They hold as those of issued tokens do."""
    for kind, code in (
        ("methods", (405, "method_not_allowed")),
        ("short", (400, "param_not_allowed")),
        ("params", (400, "param_not_allowed")),
        ("named", (400, "param_required")),
        ("team", (400, "header_required")),
    ):
        assert issuers.code(issuers.main.token(kind=kind)) == code, kind
    assert issuers.ask(issuers.main.token(kind="team"), **{"X-Team": "a"}).status == 200
    token = issuers.main.token(kind="beta")
    assert issuers.ask(token, **{"X-Team": "core"}).status == 200
    assert issuers.ask(token, **{"X-Team": "a"}).header("x-llmproxy-error") == "header_not_allowed"


def test_profiles(issuers: Issuers) -> None:
    """Each of their settings refuses what it should; requests in flight are held to concurrency too."""
    for kind, expected in (
        ("apis", (403, "api_not_allowed")),
        ("endpoints", (403, "endpoint_not_allowed")),
        ("ips", (403, "address_not_allowed")),
        ("usd", (429, "budget_exceeded")),
        ("budget", (429, "quota_exceeded")),
    ):
        assert issuers.code(issuers.main.token(sub=kind, kind=kind)) == expected, kind
    for kind in ("requests", "tokens"):
        token = issuers.main.token(sub=kind, kind=kind)
        assert issuers.ask(token).status == 200
        assert issuers.code(token) == (429, "rate_limit_exceeded")
    concurrent = issuers.main.token(sub="concurrency", kind="concurrency")
    body = (QUESTION % b"gpt-4o").replace(b'"max_tokens"', b'"stream":true,"max_tokens"')
    lines = {"X-Sim-Events": "2", "X-Sim-Fault": "stall; after=1", "Content-Type": "application/json"}
    with Asked(issuers.stack, "POST", CHAT, body, lines, token=concurrent) as held:
        eventually(lambda: held.status() == 200)
        assert issuers.code(concurrent) == (429, "rate_limit_exceeded")


def test_soft_budgets_of_a_profile(issuers: Issuers) -> None:
    """Refuse nothing, and alert."""
    token = issuers.main.token(sub="warned", kind="warned")
    assert [issuers.ask(token).status for _ in range(2)] == [200, 200]

    def budgets() -> set[str]:
        found = issuers.stack.manage("GET", "/manage/alerts?owner=token")["data"]
        return {each["budget"] for each in found if each["soft"] and each["threshold"] == 100}

    eventually(lambda: budgets() == {"soft_budget_usd", "soft_budget_tokens"}, 60.0)


def test_jwks_refresh(issuers: Issuers) -> None:
    """A key that was withdrawn counts no more, though no unknown key has come."""
    token = issuers.main.token()
    assert issuers.ask(token).status == 200
    issuers.main.rotate()
    eventually(lambda: issuers.code(token) == (401, "token_invalid"))
    eventually(lambda: issuers.ask(issuers.main.token()).status == 200)


def test_jwks_max_stale(issuers: Issuers) -> None:
    """Keys are not used for ever while the provider is away."""
    eventually(lambda: issuers.ask(issuers.stale.token()).status == 200)
    issuers.stale.available(False)
    late = (503, "identity_provider_unavailable")
    eventually(lambda: issuers.code(issuers.stale.token()) == late)
    issuers.stale.available(True)
    eventually(lambda: issuers.ask(issuers.stale.token()).status == 200)


def test_timeout(issuers: Issuers) -> None:
    """A provider that takes longer has not answered."""
    assert issuers.code(issuers.hasty.token()) == (503, "identity_provider_unavailable")
    issuers.hasty.delay(0)
    eventually(lambda: issuers.ask(issuers.hasty.token()).status == 200)


def test_ca_file(issuers: Issuers) -> None:
    """The authority that is named is trusted, and no other that nobody knows."""
    assert issuers.ask(issuers.tls.token()).status == 200
    assert issuers.code(issuers.strange.token()) == (503, "identity_provider_unavailable")
    assert "certificate" in issuers.stack.daemon.output()


def test_allow_http(tmp_path: Path) -> None:
    """Without TLS only on this machine, or where somebody says that it may be."""
    for more, status in (("", 78), (", allow_http: true", 0)):
        settings = tmp_path / "apis.yaml"
        settings.write_text(
            "apis: {a: {base_url: http://127.0.0.1:9, allowed_endpoints: [/x]}}\n"
            f"auth: {{oidc: {{issuer: 'http://id.example.com', audience: [x]{more}}}}}\n"
        )
        twistd = Path(sys.executable).with_name("twistd")
        command = [str(twistd), "-n", "llmproxy", "--config", str(settings), "--check"]
        done = run_command(command)
        assert done.returncode == status, done.stdout + done.stderr
