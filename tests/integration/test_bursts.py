"""A burst of one client's first requests, each on a connection of its own, and others meanwhile; the started daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.integration.test_bombs import TURNS, Turns
from tests.support.processes import HOST
from tests.support.stack import Stack

AT_ONCE = 600
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello."}]}).encode()
ROOM = "connection: {max_conns_per_host: 4000, max_open_per_project: 4000}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("bursts")
    env = {
        "PYTHONPATH": TURNS,
        "TURNS": str(home / "turns"),
        "LLMPROXY_SERVER_MAX_CONNECTIONS_PER_ADDRESS": "4000",
    }
    with Stack(home, more=ROOM, env=env) as started:
        yield started


def call(token: str) -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


async def burst(stack: Stack, others: list[bytes]) -> list[int]:
    """A burst, and then one request of each of the others: how many of the burst had been responded to before it."""
    requests = [call(stack.token)] * AT_ONCE + others
    connections = [await asyncio.open_connection(HOST, stack.daemon.port) for _ in requests]
    responded: list[int] = []

    async def response(number: int) -> bytes:
        reader, writer = connections[number]
        whole = await reader.read()
        responded.append(number)
        writer.close()
        return whole

    for (_, writer), request in zip(connections, requests, strict=True):
        writer.write(request)
    responses = await asyncio.gather(*(response(number) for number in range(len(requests))))
    assert {whole[9:12] for whole in responses} == {b"200"}
    return [responded.index(AT_ONCE + number) for number in range(len(others))]


@pytest.mark.alone  # in how many turns a burst is read depends on what else the machine does
@pytest.mark.long("4 s: that no turn is long is what others feel of it")
def test_another_client_does_not_wait_for_all_of_them(stack: Stack) -> None:
    before = asyncio.run(burst(stack, [call(stack.new_token())]))
    print("responded to before another client's:", before)
    assert before[0] < AT_ONCE * 0.6, before


@pytest.mark.alone
def test_no_turn_is_long(stack: Stack) -> None:
    turns = Turns(stack.home / "turns")
    turns.note("the start")
    turns.longest.clear()

    def attempt(name: str) -> None:
        asyncio.run(burst(stack, []))
        turns.note(name)

    attempt("burst")
    turns.again(attempt)
    turns.check()
