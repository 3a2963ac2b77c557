"""A burst of one client's first requests, each on a connection of its own, and others meanwhile; the started daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.integration.test_bombs import TURNS, Turns
from tests.support.processes import HOST
from tests.support.stack import Stack, eventually
from tests.support.suspending import suspended

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


def call(token: str, name: str) -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
        f"X-Request-ID: {name}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


async def burst(stack: Stack, *others: bytes) -> None:
    """A burst, and behind it the requests of others: all of them are there when the daemon goes on."""
    requests = [call(stack.token, f"burst-{number}") for number in range(AT_ONCE)] + [*others]
    connections = [await asyncio.open_connection(HOST, stack.daemon.port) for _ in requests]

    async def response(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        whole = await reader.read()
        writer.close()
        return whole

    with suspended(stack.daemon.pid):
        for (_, writer), request in zip(connections, requests, strict=True):
            writer.write(request)
            await writer.drain()
    responses = await asyncio.gather(*(response(*each) for each in connections))
    assert {whole[9:12] for whole in responses} == {b"200"}


def sent(stack: Stack) -> list[str]:
    """What the requests were called, in the order in which the daemon has sent them to their provider."""
    events = [each for each in stack.events() if each["request_id"].startswith(("burst-", "other-"))]
    times = {each["request_id"]: each["started_at"] + each["first_byte"] - each["upstream_time"] for each in events}
    return sorted(times, key=times.__getitem__)


@pytest.mark.alone  # in how many turns a burst is read depends on what else the machine does
@pytest.mark.long("4 s: that no turn is long is what others feel of it")
def test_another_client_does_not_wait_for_all_of_them(stack: Stack) -> None:
    """By what the daemon does: the provider takes its time with all of them, and so does a client that is busy."""
    asyncio.run(burst(stack, call(stack.new_token(), "other-1")))
    eventually(lambda: len(sent(stack)) == AT_ONCE + 1)
    place = sent(stack).index("other-1")
    print("sent before another client's:", place)
    assert place < AT_ONCE * 0.6


@pytest.mark.alone
def test_no_turn_is_long(stack: Stack) -> None:
    turns = Turns(stack.home / "turns")
    turns.note("the start")
    turns.longest.clear()

    def attempt(name: str) -> None:
        asyncio.run(burst(stack))
        turns.note(name)

    attempt("burst")
    turns.again(attempt)
    turns.check()
