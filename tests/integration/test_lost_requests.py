"""Requests that a provider took and never responded to: sent again where the settings say so, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import HOST
from tests.support.scripted_provider import CLOSE, RESET, Act, ScriptedProvider
from tests.support.stack import SETTINGS, Stack

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHAT = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}'


class InTurn(list[Act]):
    """Each request gets the next of these scripts."""

    def __init__(self, *scripts: list[Act]) -> None:
        super().__init__()
        self._scripts = list(scripts)

    def __iter__(self) -> Iterator[Act]:
        return iter(self._scripts.pop(0))


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize(
    ("on", "unused", "used"),
    [("connect", 502, 502), ("reused", 502, 200), ("reset", 200, 200), ("connect, reused, reset", 200, 200)],
)
def test_a_connection_that_ends_after_the_request(tmp_path: Path, on: str, unused: int, used: int, end: str) -> None:
    """On a connection that had carried nothing before, and on one that had."""
    with ScriptedProvider({}) as provider:

        class Behind(Stack):
            settings = SETTINGS.replace("{provider}", f"http://{HOST}:{provider.port}")

        with Behind(tmp_path, f"retries: {{attempts: 2, on: [{on}]}}") as stack:
            provider.scripts["completions"] = InTurn([end], [OK, CLOSE])
            assert stack.ask("POST", "/v1/chat/completions", CHAT).status == unused
            provider.scripts["completions"] = InTurn([OK], [end], [OK, CLOSE])
            assert stack.ask("POST", "/v1/chat/completions", CHAT).status == 200
            assert stack.ask("POST", "/v1/chat/completions", CHAT).status == used
            assert provider.seen["completions"] == 3 + (unused == 200) + (used == 200)


@pytest.mark.parametrize("cause", ["reused", "reset"])
def test_a_long_body_is_held_for_that(tmp_path: Path, cause: str) -> None:
    """One that would else have been passed on as it came."""
    long = CHAT[:-1] + b', "user": "' + b"x" * 400_000 + b'"}'
    with ScriptedProvider({}) as provider:

        class Behind(Stack):
            settings = SETTINGS.replace("{provider}", f"http://{HOST}:{provider.port}")

        with Behind(tmp_path, f"retries: {{attempts: 2, on: [{cause}]}}") as stack:
            provider.scripts["completions"] = InTurn([OK], [CLOSE], [OK, CLOSE])
            assert stack.ask("POST", "/v1/chat/completions", long).status == 200
            assert stack.ask("POST", "/v1/chat/completions", long).status == 200
            assert provider.seen["completions"] == 3
            assert provider.bodies["completions"] == len(long)
