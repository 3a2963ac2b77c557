"""Providers that close connections which nobody uses: what that shows is learned, and no request comes twice."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import TracebackType

from tests.support.stack import KEYS, MANAGEMENT, SETTINGS, Stack, eventually
from tests.support.web_provider import WebProvider

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
IDLE_SECONDS = 0.6
API = """\
  own:
    base_url: {own}
    allowed_endpoints: [/v1/chat/completions]
    circuit_breaker: {{failures: 0}}
"""


class OwnStack(Stack):
    """As L{Stack}, with an API C{own} whose provider is the test's."""

    def __init__(self, home: Path, provider: WebProvider) -> None:
        self.settings = SETTINGS.replace("server: {{", API.replace("{own}", provider.url) + "server: {{")
        self.keys = {**KEYS, "own": "sk-own"}
        super().__init__(home)
        self.provider = provider

    def __enter__(self) -> OwnStack:
        self.provider.__enter__()
        try:
            super().__enter__()
        except BaseException:
            self.provider.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        try:
            super().__exit__(kind, e, at)
        finally:
            self.provider.__exit__(kind, e, at)

    def post(self, number: int) -> int:
        headers = {"Content-Type": "application/json", "X-Request-Number": str(number)}
        return self.ask("POST", "/own/v1/chat/completions", CHAT, headers).status

    def figure(self, name: str) -> float:
        text = self.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
        found = re.search(rf'^llmproxy_{name}{{api="own"}} (\S+)$', text, re.MULTILINE)
        return float("nan") if found is None else float(found[1])


def test_a_provider_that_soon_closes_what_is_not_used(tmp_path: Path) -> None:
    """After three closes nobody uses a connection that is about to be closed, and all is well."""
    with OwnStack(tmp_path, WebProvider(idle=IDLE_SECONDS)) as stack:
        number = 0
        while not stack.figure("upstream_idle_lifetime_seconds") < IDLE_SECONDS * 1.3:
            number += 1
            assert stack.post(number) == 200
            time.sleep(IDLE_SECONDS * 1.25)  # no wait for anything: the provider's time is what this is about
            assert number < 30
        learning = number
        for _ in range(12):
            number += 1
            assert stack.post(number) == 200
            time.sleep(IDLE_SECONDS)
        assert stack.provider.received == [str(each) for each in range(1, number + 1)], "each of them once"
        assert len(set(stack.provider.peers[learning:])) > 6, "connections are not used at their end"


def test_a_provider_that_says_how_long(tmp_path: Path) -> None:
    with OwnStack(tmp_path, WebProvider(fields={"Keep-Alive": "timeout=5, max=100"})) as stack:
        assert stack.figure("upstream_idle_lifetime_seconds") == 90
        assert stack.post(1) == 200
        assert eventually(lambda: stack.figure("upstream_idle_lifetime_seconds") == 4)
        assert stack.post(2) == 200
        assert len(set(stack.provider.peers)) == 1, "one connection for both"
