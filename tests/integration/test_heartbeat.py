"""Comments in silent streams of events: where they stand, and where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import HOST
from tests.support.responses import Response
from tests.support.scripted_provider import Act, ScriptedProvider
from tests.support.settings_stack import SettingsStack
from tests.support.stack import eventually

COMMENT = b": heartbeat\n\n"
FIRST, SECOND, THIRD = b'data: {"n":1}\n\n', b"event: x\r\ndata: 2\r\n\r\nda", b"ta: 3\n\ndata: [DONE]\n\n"
SILENCE = 1.5  # seconds of the provider's; five times the heartbeat
EVENTS = FIRST + SECOND + THIRD


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(*fields: bytes) -> tuple[Act, ...]:
    """A response of three pieces with pauses between them, the last of which is within an event."""
    head = b"\r\n".join((b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *fields, b"\r\n"))
    return (head + chunk(FIRST), SILENCE, chunk(SECOND), SILENCE, chunk(THIRD) + b"0\r\n\r\n")


SSE = b"Content-Type: text/event-stream; charset=utf-8"
SCRIPTS: dict[str, tuple[Act, ...]] = {
    "events": stream(SSE),
    "stored": stream(SSE, b"Cache-Control: max-age=600"),
    "late": (b"HTTP/1.1 200 OK\r\n" + SSE + b"\r\n\r\n", SILENCE, FIRST, "close"),
    "coded": stream(SSE, b"Content-Encoding: gzip"),
    "json": stream(b"Content-Type: application/json"),
    "long": (
        b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (SSE, len(EVENTS), FIRST), SILENCE, SECOND + THIRD,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SettingsStack]:
    with ScriptedProvider(SCRIPTS) as provider:
        base_url = f"http://{HOST}:{provider.port}"
        apis = {
            "silent": {"base_url": base_url},
            "beating": {"base_url": base_url, "heartbeat": "300ms", "provider": "generic"},
        }
        home: Path = tmp_path_factory.mktemp("heartbeat")
        with SettingsStack(home, apis, cache={"streams": True}) as running:
            yield running


def ask(stack: SettingsStack, api: str, script: str, request_id: str = "") -> Response:
    response = stack.ask("GET", f"/{api}/{script}", headers={"X-Request-ID": request_id or f"{api}-{script}"})
    assert response.status == 200
    return response


def test_a_silent_stream(stack: SettingsStack) -> None:
    """Between events there are comments, within one there is none; every byte of the provider's is as it was, and only
    these are counted."""
    body = ask(stack, "beating", "events").body
    assert body.replace(COMMENT, b"") == EVENTS
    first, *comments, rest = body.split(COMMENT)
    assert (first, set(comments) <= {b""}, rest) == (FIRST, True, SECOND + THIRD)
    assert ask(stack, "silent", "events").body == EVENTS
    found = eventually(lambda: {e["request_id"]: e["bytes_out"] for e in stack.request_events()}.keys()
                       >= {"beating-events", "silent-events"} and stack.request_events())  # fmt: skip
    assert {e["bytes_out"] for e in found if e["request_id"].endswith("-events")} == {len(EVENTS)}


def test_before_the_first_event(stack: SettingsStack) -> None:
    """Once the head is there, silence is silence."""
    body = ask(stack, "beating", "late").body
    assert body.startswith(COMMENT)
    assert body.replace(COMMENT, b"") == FIRST


@pytest.mark.parametrize("script", ["coded", "json", "long"])
def test_what_takes_no_comment(stack: SettingsStack, script: str) -> None:
    """What is encoded, is no stream of events, or has a length passes to the byte."""
    assert ask(stack, "beating", script).body == EVENTS


def test_stored(stack: SettingsStack) -> None:
    """The cache has what the provider sent."""
    assert COMMENT in ask(stack, "beating", "stored").body
    again = ask(stack, "beating", "stored", "again")
    assert (again.header("X-Cache-Status"), again.body) == ("hit", EVENTS)
