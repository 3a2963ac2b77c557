"""Two daemons on one database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.processes import Daemon
from tests.support.stack import Stack, eventually

BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Daemon]]:
    with Stack(tmp_path_factory.mktemp("pair")) as stack, stack.another("second") as second:
        yield stack, second


def test_max_requests_is_exact_for_eight_clients_on_two_processes(pair: tuple[Stack, Daemon]) -> None:
    """A hundred requests are allowed and two hundred are sent: a hundred answers, no more and no fewer."""
    stack, second = pair
    token = stack.new_token(max_requests=100)
    before = len(stack.recorded())

    def client(number: int) -> list[int]:
        port = (stack.daemon.port, second.port)[number % 2]
        return [stack.ask("POST", "/v1/chat/completions", BODY, token=token, port=port).status for _ in range(25)]

    with ThreadPoolExecutor(8) as clients:
        statuses = [status for answers in clients.map(client, range(8)) for status in answers]
    assert (statuses.count(200), statuses.count(429)) == (100, 100)
    assert len(stack.recorded()) - before == 100
    refused = stack.ask("POST", "/v1/chat/completions", BODY, token=token)
    assert refused.header("X-LLMProxy-Error") == "quota_exceeded"
    assert refused.header("X-Should-Retry") == "false"


def test_a_revoked_token_is_refused_here_at_once_and_elsewhere_soon(pair: tuple[Stack, Daemon]) -> None:
    stack, second = pair
    token = stack.new_token()
    for port in (stack.daemon.port, second.port):
        assert stack.ask("GET", "/v1/models", token=token, port=port).status == 200
    listed = stack.manage("GET", f"/manage/tokens?project_id={stack.project}&limit=1000")
    token_id = next(t["id"] for t in next(iter(v for v in listed.values() if isinstance(v, list)))
                    if token.startswith(t["prefix"]))  # fmt: skip
    stack.manage("DELETE", f"/manage/tokens/{token_id}")
    refused = stack.ask("GET", "/v1/models", token=token)
    assert (refused.status, refused.header("X-LLMProxy-Error")) == (401, "token_inactive")
    eventually(lambda: stack.ask("GET", "/v1/models", token=token, port=second.port).status == 401, 10)


def test_every_request_is_one_event(pair: tuple[Stack, Daemon], tmp_path: Path) -> None:
    stack, _ = pair
    asked = [stack.ask("GET", "/v1/models").header("X-Request-ID") for _ in range(5)]
    asked += [stack.ask("GET", "/v1/nowhere").header("X-Request-ID")]

    def written() -> list[str]:
        return [event["request_id"] for event in stack.events()]

    eventually(lambda: set(asked) <= set(written()))
    assert all(written().count(str(one)) == 1 for one in asked)
    assert "sk-" not in (stack.home / "events.jsonl").read_text()
