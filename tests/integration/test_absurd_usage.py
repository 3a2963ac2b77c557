"""What a provider says that nobody can have used, and what nobody knows the cost of: budgets and ledger go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.support.scripted_provider import ScriptedProvider
from tests.support.stack import KEYS, Stack, eventually

CHAT = "/v1/chat/completions"
SETTINGS = """\
state_dir: {home}/state
default_api: openai
apis:
  openai: {{provider: openai, base_url: "%s", allowed_endpoints: ["/**"]}}
prices: [{{api: openai, model: dear, input: 1000000000}}]
server: {{listen: ["tcp:{port}:interface=127.0.0.1"]}}
store: {{url: "sqlite:///{home}/llmproxy.db"}}
"""


def answer(**said: Any) -> list[bytes]:
    body = json.dumps({"object": "chat.completion", "model": "gpt-4o-2024-08-06", "choices": [], **said}).encode()
    return [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)]


def usage(given: float, made: float) -> dict[str, float]:
    return {"prompt_tokens": given, "completion_tokens": made}


SCRIPTS = {
    "usual": answer(usage=usage(10, 5)),
    "endless": answer(usage=usage(10, 10**15)),
    "dear": answer(model="dear", usage=usage(10**10, 5)),
    "without-a-price": answer(model="gpt-5", service_tier="scale", usage=usage(10, 5)),
}


class Asked(Stack):
    keys = MappingProxyType({"openai": KEYS["openai"]})

    def __init__(self, home: Path, provider: ScriptedProvider) -> None:
        self.settings = SETTINGS % f"http://127.0.0.1:{provider.port}"
        super().__init__(home)
        self.provider = provider

    def ask_for(self, script: str, token: str, model: str = "gpt-4o") -> int:
        self.provider.scripts["completions"] = SCRIPTS[script]
        body = json.dumps({"model": model, "max_tokens": 100, "messages": []}).encode()
        return self.ask("POST", CHAT, body, token=token).status

    def limited(self, **limits: str) -> tuple[str, str]:
        said = self.manage("POST", "/manage/tokens", {"project_id": self.project, "name": "limited", **limits})
        return said["token"], said["id"]

    def used(self, token_id: str) -> float:
        return float(self.manage("GET", f"/manage/tokens/{token_id}")["limits"][0]["used"])

    def entered(self) -> int:
        return int(self.metric("ledger_lines_total"))


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    with ScriptedProvider({}) as provider, Asked(tmp_path, provider) as stack:
        yield stack


@pytest.mark.parametrize("script", ["endless", "dear"])
def test_nobody_elses_lines_wait(asked: Asked, script: str) -> None:
    """Those of others are entered, as is its own, and a budget is charged with no more than there can be."""
    token, token_id = asked.limited(soft_budget_usd="5/day")
    assert [asked.ask_for(script, token), asked.ask_for("usual", asked.token)] == [200, 200]
    eventually(lambda: asked.entered() == 2)
    assert asked.ask("GET", "/ready").json["checks"]["ledger"] == "ok"
    if script == "dear":
        eventually(lambda: asked.used(token_id) == 1_000_000)
    asked.daemon.stop()
    asked.daemon.start()
    assert asked.ask_for("usual", token) == 200
    eventually(lambda: asked.entered() == 1)


def test_what_an_unknown_cost_is_charged_survives(asked: Asked) -> None:
    """Of a response that nobody has a price for the worst case is charged, also when the process has ended."""
    token, token_id = asked.limited(budget_usd="5/day")
    assert [asked.ask_for("without-a-price", token, "gpt-5") for _ in range(3)] == [200] * 3
    eventually(lambda: asked.entered() == 3)
    before = asked.used(token_id)
    assert before > 0.001
    asked.daemon.stop()
    asked.daemon.start()
    assert asked.used(token_id) == pytest.approx(before, abs=1e-9)
