"""What the settings of an API change: one daemon, an API for each, and beside them one that has none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.settings_stack import PLAIN, Asked, Response, SettingsStack
from tests.support.stack import eventually
from tests.support.tls import TLSInFront
from tests.unit.wire.authority import Authority

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a b c"}]}
LIMIT = {"default_output_tokens": 10}
APIS: dict[str, dict[str, Any]] = {
    "prefixed": {"base_url": "PROVIDER/openai"},
    "nowhere": {"base_url": "http://127.0.0.1:1"},
    "claude": {"provider": "anthropic"},
    "narrow": {"allowed_endpoints": ["/v1/models"]},
    "reading": {"allowed_methods": ["GET"]},
    "odd-key": {"auth": "X-Our-Key"},
    "query-key": {"query_key": True},
    "cookies": {"forward_cookies": True},
    "parameters": {"param_whitelist": {"model": ["gpt-4*"]}},
    "pages": {"allowed_origins": ["https://app.example.com"]},
    "headers": {"required_headers": ["x-team"]},
    "betas": {"header_values": {"X-Beta": ["tools-*"]}},
    "named": {"required_params": ["user|metadata"]},
    "short": {"max_output_tokens": 100},
    "rate": {"limits": {"requests_per_minute": 1}},
    "tokens": {"limits": {"tokens_per_minute": 60, **LIMIT}},
    "together": {"limits": {"concurrency": 1}},
    "dollars": {"limits": {"budget_usd": "0.000001/day", **LIMIT}},
    "token-budget": {"limits": {"budget_tokens": "20/day", **LIMIT}},
    "assumed": {"limits": {"budget_tokens": "3000/day", "default_output_tokens": 100}},
    "unmeasured": {"metering": {"enabled": False}},
    "injecting": {"metering": {"include_usage": "inject"}},
    "plain-errors": {"error_format": "plain"},
    "addresses": {"forward_client_ip": True},
    "cached": {"cache": {"post": "always", "ttl": "1000s"}},
    "secure": {"base_url": "https://SPARE", "ca_file": "CA"},
    "stranger": {"base_url": "https://SPARE"},
    "breaking": {"base_url": "http://127.0.0.1:1", "circuit_breaker": {"failures": 2, "cooldown": "200s"}},
    "twice": {"retries": {"attempts": 2}},
    "probing": {"base_url": "http://127.0.0.1:1", "circuit_breaker": {"failures": 1, "cooldown": "0.1s"}},
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SettingsStack]:
    home = tmp_path_factory.mktemp("apis")
    authority = Authority(home)
    authority.server("127.0.0.1")
    apis = {**APIS, "secure": {**APIS["secure"], "ca_file": authority.ca_file}}
    with SettingsStack(home, apis, home / "server.pem", default_api="prefixed") as running:
        yield running


def models(stack: SettingsStack, api: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return stack.ask("GET", f"/{api}/v1/models", headers=named)


def chat(stack: SettingsStack, api: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    return stack.ask(
        "POST",
        f"/{api}/v1/chat/completions",
        json.dumps({**CHAT, **more}).encode(),
        {"Content-Type": "application/json", **(headers or {})},
    )


def outcome(response: Response) -> tuple[int, str | None]:
    return response.status, response.header("X-LLMProxy-Error")


def received(stack: SettingsStack) -> dict[str, str]:
    """The head that the provider saw last."""
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in stack.last()["headers"])}


def test_default_api_and_base_url(stack: SettingsStack) -> None:
    """What names no API is for the default one, whose provider is asked below the path of its address."""
    assert stack.ask("GET", "/v1/models").status == 200
    assert stack.last()["target"] == "/openai/v1/models"
    assert outcome(models(stack, "nowhere")) == (502, "upstream_unreachable")


def test_provider_and_auth(stack: SettingsStack) -> None:
    """The key goes where this provider wants it, or where it is said to go."""
    for api, field in (("claude", "x-api-key"), ("odd-key", "x-our-key"), (PLAIN, "authorization")):
        models(stack, api)
        shown = {"x-api-key", "x-our-key", "authorization"} & received(stack).keys()
        assert shown == {field}, api


def test_allowed_endpoints(stack: SettingsStack) -> None:
    assert models(stack, "narrow").status == 200
    assert outcome(chat(stack, "narrow")) == (403, "endpoint_not_allowed")


def test_allowed_methods(stack: SettingsStack) -> None:
    assert [outcome(chat(stack, api)) for api in ("reading", PLAIN)] == [(405, "method_not_allowed"), (200, None)]


def test_query_key(stack: SettingsStack) -> None:
    asked = [
        stack.ask("GET", f"/{api}/v1/models?key={stack.token}", headers={"Authorization": ""}).status
        for api in ("query-key", PLAIN)
    ]
    assert asked == [200, 401]


def test_forward_cookies(stack: SettingsStack) -> None:
    assert models(stack, "cookies", Cookie="a=b").status == 200
    assert received(stack)["cookie"] == "a=b"
    assert models(stack, PLAIN, Cookie="a=b").status == 200
    assert "cookie" not in received(stack)


def test_forward_client_ip(stack: SettingsStack) -> None:
    assert models(stack, "addresses").status == 200
    assert received(stack)["x-forwarded-for"] == "127.0.0.1"
    assert models(stack, PLAIN).status == 200
    assert "x-forwarded-for" not in received(stack)


def test_param_whitelist(stack: SettingsStack) -> None:
    asked = [
        outcome(chat(stack, api, model=model))
        for api, model in (("parameters", "gpt-4.1"), ("parameters", "gpt-3.5-turbo"), (PLAIN, "gpt-3.5-turbo"))
    ]
    assert asked == [(200, None), (400, "param_not_allowed"), (200, None)]


def test_allowed_origins(stack: SettingsStack) -> None:
    strange = "https://elsewhere.example.com"
    asked = [
        outcome(models(stack, api, Origin=origin))
        for api, origin in (("pages", "https://app.example.com"), ("pages", strange), (PLAIN, strange))
    ]
    assert asked == [(200, None), (403, "origin_not_allowed"), (200, None)]


def test_required_headers(stack: SettingsStack) -> None:
    asked = [models(stack, "headers").status, models(stack, "headers", X_Team="a").status, models(stack, PLAIN).status]
    assert asked == [400, 200, 200]


def test_header_values(stack: SettingsStack) -> None:
    asked = [
        outcome(models(stack, api, **headers))
        for api, headers in (
            ("betas", {}),
            ("betas", {"X_Beta": "tools-1, tools-2"}),
            ("betas", {"X_Beta": "tools-1, other"}),
            (PLAIN, {"X_Beta": "other"}),
        )
    ]
    assert asked == [(200, None), (200, None), (400, "header_not_allowed"), (200, None)]


def test_required_params(stack: SettingsStack) -> None:
    asked = [
        outcome(chat(stack, api, **more))
        for api, more in (("named", {}), ("named", {"user": "a"}), ("named", {"metadata": {}}), (PLAIN, {}))
    ]
    assert asked == [(400, "param_required"), (200, None), (200, None), (200, None)]


def test_max_output_tokens(stack: SettingsStack) -> None:
    """What asks for more is refused, and told by which member, and what the maximum is."""
    asked = [
        outcome(chat(stack, api, **more))
        for api, more in (
            ("short", {}),
            ("short", {"max_tokens": 100}),
            ("short", {"max_tokens": 60, "n": 2}),
            (PLAIN, {"max_tokens": 101}),
        )
    ]
    assert asked == [(200, None), (200, None), (400, "param_not_allowed"), (200, None)]
    message = chat(stack, "short", max_completion_tokens=101).json["error"]["message"]
    assert '"max_completion_tokens"' in message and "at most 100" in message


def test_requests_per_minute(stack: SettingsStack) -> None:
    asked = [outcome(models(stack, "rate")) for _ in range(2)]
    assert asked == [(200, None), (429, "rate_limit_exceeded")]


def test_tokens_per_minute(stack: SettingsStack) -> None:
    asked = [outcome(chat(stack, "tokens")) for _ in range(4)]
    assert asked[0] == (200, None) and asked[-1] == (429, "rate_limit_exceeded")


def test_concurrency(stack: SettingsStack) -> None:
    """Where one is under way a second is refused; elsewhere it is not."""
    lines = {"X-Sim-Events": "2", "X-Sim-Fault": "stall; after=1"}
    body = json.dumps({**CHAT, "stream": True}).encode()
    for api, expected in (("together", (429, "rate_limit_exceeded")), (PLAIN, (200, None))):
        with Asked(stack, "POST", f"/{api}/v1/chat/completions", body, lines) as held:
            eventually(lambda held=held: held.status() == 200)
            assert outcome(models(stack, api)) == expected


def test_budgets(stack: SettingsStack) -> None:
    assert outcome(chat(stack, "dollars")) == (429, "budget_exceeded")
    assert outcome(chat(stack, "token-budget")) == (429, "quota_exceeded")


def test_default_output_tokens(stack: SettingsStack) -> None:
    """A request that says no maximum fits into the budget only if it is not assumed to use 4096."""
    assert outcome(chat(stack, "assumed")) == (200, None)
    assert outcome(chat(stack, "assumed", max_tokens=4096)) == (429, "quota_exceeded")


def test_metering(stack: SettingsStack) -> None:
    """The event of a response that was not measured says nothing of its tokens."""
    for api in ("unmeasured", PLAIN):
        assert chat(stack, api, {"X-Request-ID": f"measured-{api}"}).status == 200
    for api, expected in (("unmeasured", False), (PLAIN, True)):
        (event,) = eventually(
            lambda api=api: [each for each in stack.request_events() if each["request_id"] == f"measured-{api}"]
        )
        assert bool(event.get("output_tokens")) is expected, event


def test_include_usage(stack: SettingsStack) -> None:
    """The provider is asked for what the client has not asked for, and does not get."""
    for api, expected in (("injecting", True), (PLAIN, False)):
        response = chat(stack, api, stream=True)
        assert response.status == 200 and b'"prompt_tokens"' not in response.body
        sent = json.dumps({**CHAT, "stream": True}).encode()
        assert (stack.last()["body_length"] > len(sent)) is expected


def test_error_format(stack: SettingsStack) -> None:
    shown = [
        type(stack.ask("GET", f"/{api}/v1/models", headers={"Authorization": ""}).json["error"])
        for api in ("plain-errors", PLAIN)
    ]
    assert shown == [str, dict]


def test_cached_posts(stack: SettingsStack) -> None:
    """And for how long."""
    for api, expected in (("cached", ["stored", "hit"]), (PLAIN, ["bypass", "bypass"])):
        responses = [chat(stack, api) for _ in range(2)]
        assert [each.header("X-Cache-Status") for each in responses] == expected
        if api == "cached":
            ttl = (responses[-1].header("Cache-Status") or "").rpartition("ttl=")[2]
            assert 800 < int(ttl) <= 1000


def test_ca_file(stack: SettingsStack) -> None:
    assert models(stack, "secure").status == 200
    assert outcome(models(stack, "stranger")) == (502, "upstream_unreachable")


def test_failures(stack: SettingsStack) -> None:
    asked = [models(stack, api).header("X-LLMProxy-Error") for api in ("breaking", "nowhere") for _ in range(3)]
    assert asked == ["upstream_unreachable", "upstream_unreachable", "circuit_open", *["upstream_unreachable"] * 3]


def test_cooldown(stack: SettingsStack) -> None:
    """After it the provider is asked again: one failure has opened the breaker, and there is another."""
    assert outcome(models(stack, "probing")) == (502, "upstream_unreachable")
    eventually(lambda: outcome(models(stack, "probing")) == (502, "upstream_unreachable"))


def test_attempts(stack: SettingsStack, tmp_path: Path) -> None:
    """A connection that did not come about is made once more, if that is allowed."""
    authority = Authority(tmp_path)
    authority.server("127.0.0.1")
    with (
        TLSInFront(tmp_path / "server.pem", stack.simulator.port, refused=1) as once,
        TLSInFront(tmp_path / "server.pem", stack.simulator.port, refused=1) as twice,
    ):
        trusted = {"ca_file": authority.ca_file}
        stack.apis = {
            PLAIN: {"base_url": f"https://127.0.0.1:{once}", **trusted},
            "twice": {"base_url": f"https://127.0.0.1:{twice}", **trusted, "retries": {"attempts": 2}},
        }
        keys = dict.fromkeys(stack.apis, "sk-sim-openai")
        project = stack.manage("POST", "/manage/projects", {"name": "Retried", "api_keys": keys})["id"]
        token = stack.manage("POST", "/manage/tokens", {"project_id": project, "name": "retried"})["token"]
        with stack.another("retrying", default_api=PLAIN) as daemon:
            asked = [
                outcome(stack.ask("GET", f"/{api}/v1/models", port=daemon.port, token=token))
                for api in ("twice", PLAIN)
            ]
    assert asked == [(200, None), (502, "upstream_unreachable")]
