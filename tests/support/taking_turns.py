"""A client that sends one request after the other, each to the next process, while others keep all of them busy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from threading import Event, Thread

from tests.support.processes import HOST

CHAT = "/v1/chat/completions"
WAYS: Sequence[Mapping[str, str]] = ({}, {"X-Sim-Split": "1"}, {"Connection": "close"})
BUSY_CLIENTS = 3


def refused_by_turns(
    ports: Sequence[int], token: str, busy_token: str, bodies: Sequence[bytes], each: int
) -> list[str]:
    """Which requests were not answered with 200: so many of each body, whole and in pieces, over connections that are
    kept and over new ones.

    @param ports: Each is asked in turn, over a connection of its own.
    @param busy_token: What others ask with meanwhile.
    """
    refused: list[str] = []
    with ExitStack() as open_lines, busy(ports, busy_token, bodies):
        lines = [_line(open_lines, port) for port in ports]
        for line, (_, body, more) in zip(itertools.cycle(lines), itertools.product(range(each), bodies, WAYS)):
            said = _asked(line, token, body, more)
            if said:
                refused.append(f"{said}: {more} {body!r:.60}")
    return refused


@contextmanager
def busy(ports: Sequence[int], token: str, bodies: Sequence[bytes]) -> Iterator[None]:
    """Meanwhile, a few clients ask as fast as they can."""
    over = Event()

    def ask(number: int) -> None:
        with ExitStack() as open_lines:
            lines = [_line(open_lines, port) for port in ports]
            for place in itertools.count(number):
                if over.is_set():
                    break
                _asked(lines[place % len(lines)], token, bodies[place % len(bodies)], {})

    clients = [Thread(target=ask, args=(number,)) for number in range(BUSY_CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        over.set()
        for client in clients:
            client.join()


def _line(open_lines: ExitStack, port: int) -> HTTPConnection:
    line = HTTPConnection(HOST, port, timeout=30)
    open_lines.callback(line.close)
    return line


def _asked(line: HTTPConnection, token: str, body: bytes, more: Mapping[str, str]) -> str:
    """Status and error where it was not answered with 200."""
    line.request("POST", CHAT, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **more})
    with line.getresponse() as answer:
        said = answer.read()
        return "" if answer.status == 200 else f"{answer.status} {answer.headers['X-LLMProxy-Error']} {said!r:.200}"
