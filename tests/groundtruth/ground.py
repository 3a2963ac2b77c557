"""The daemon on the simulator with an API for every dialect, and the prices that its operator has to say himself."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from tests.groundtruth.calls import Ask
from tests.support.responses import Response
from tests.support.stack import KEYS, Stack, eventually

TRUE_KEYS = {**KEYS, "bedrock": "sk-sim-bedrock", "ollama": "sk-sim-ollama"}
TRUE_KEYS |= dict.fromkeys(("xai", "groq", "moonshot"), "sk-sim-openai")
TRUE_KEYS.pop("anything")

_APIS = {
    "openai": "openai", "anthropic": "anthropic", "google": "google", "mistral": "mistral", "azure": "azure",
    "bedrock": "bedrock-bearer", "xai": "generic", "groq": "generic", "moonshot": "generic", "ollama": "generic",
}  # fmt: skip

# What the price pages of these say (the simulator's own list names them): behind a base_url of one's own they are
# nobody that the proxy's list knows.
_PRICES = [
    {"api": "xai", "model": "grok-4*", "input": 3, "cached": 0.75, "output": 15},
    {"api": "xai", "model": "grok-3-mini", "input": 0.3, "cached": 0.075, "output": 0.5},
    {"api": "groq", "model": "llama-3.3-70b*", "input": 0.59, "output": 0.79},
    {"api": "moonshot", "model": "kimi-k2*", "input": 0.6, "cached": 0.15, "output": 2.5},
    {"api": "ollama", "model": "*", "input": 0.05, "output": 0.2},
]


def settings() -> str:
    """With the places that L{Stack} fills in; JSON is YAML."""
    api = {"base_url": "PROVIDER", "allowed_endpoints": ["/**"], "allowed_methods": ["GET", "POST"]}
    apis = {name: {"provider": provider, **api} for name, provider in _APIS.items()}
    top = {"default_api": "openai", "apis": apis, "prices": _PRICES, "ledger": {"interval": "200ms"}}
    said = "".join(f"{name}: {json.dumps(value)}\n" for name, value in top.items())
    return said.replace("{", "{{").replace("}", "}}").replace("PROVIDER", "{provider}") + _REST


_REST = """\
state_dir: {home}/state
server: {{listen: ["tcp:{port}:interface=127.0.0.1"]}}
store: {{url: "sqlite:///{home}/llmproxy.db"}}
audit: {{file: {home}/audit.jsonl}}
"""


class Ground(Stack):
    """A stack that knows what everything cost."""

    settings = settings()
    keys = TRUE_KEYS

    def make(self, asks: Sequence[Ask], at_once: int = 8, seed: int = 1) -> None:
        """Make all calls; number N has the request ids C{truth-N.0}, and C{truth-N.1} and so on where it is fetched."""
        rng = random.Random(seed)
        fields = [ask.fields(rng) for ask in asks]
        with ThreadPoolExecutor(at_once) as many:
            list(many.map(self._one, range(len(asks)), asks, fields))

    def _one(self, number: int, ask: Ask, fields: dict[str, str]) -> None:
        answer = self._ask("POST", ask.path, ask.content, {**fields, "X-Request-ID": f"truth-{number}.0"}, ask)
        if ask.later is None:
            return
        fields = {name: value for name, value in fields.items() if name in ("anthropic-version",)}
        for look, path in enumerate([path for path in ask.later(answer.json) for _ in range(2)], 1):
            self._ask("GET", path, None, {**fields, "X-Request-ID": f"truth-{number}.{look}"}, ask)

    def _ask(self, method: str, path: str, body: bytes | None, fields: dict[str, str], ask: Ask) -> Response:
        reply = self.ask(method, path, body, fields)
        assert reply.status == 200, (ask.kind, method, path, reply.status, reply.body[:500])
        if ask.later is not None and "gzip" in (reply.header("Content-Encoding") or ""):
            reply.body = gzip.decompress(reply.body)
        return reply

    def invoice(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.simulator.url}/-/invoice", timeout=30) as answer:
            return dict(json.loads(answer.read()))

    def limit(self, budget: str) -> None:
        """From now on all calls are made with a token that has this budget of dollars."""
        made = self.manage("POST", "/manage/tokens", {"project_id": self.project, "name": "b", "budget_usd": budget})
        self.token, self._limited = str(made["token"]), str(made["id"])

    def used(self) -> float:
        """Dollars of that budget."""
        (limit,) = self.manage("GET", f"/manage/tokens/{self._limited}")["limits"]
        return float(limit["used"])

    def ledger(self) -> list[dict[str, Any]]:
        """Its lines, once there is one for each request that was received."""
        many = len(self.recorded())

        def read() -> list[dict[str, Any]]:
            with closing(sqlite3.connect(self.home / "llmproxy.db")) as database:
                database.row_factory = sqlite3.Row
                return [dict(row) for row in database.execute("SELECT * FROM ledger")]

        eventually(lambda: len(read()) >= many, 30)
        return read()


def by_call(lines: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Lines of a ledger or an invoice by the number of their call."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        if line["request_id"].startswith("truth-"):
            found[int(line["request_id"][6:].partition(".")[0])].append(line)
    return found
