"""How long a provider is waited for, and what is kept of its connections: one daemon, an API for each setting.

What takes shorter than by default is asked beside an API in which nothing is set: that one still waits.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.support.processes import HOST
from tests.support.settings_stack import PLAIN, Asked, SettingsStack
from tests.support.stack import eventually

POOL = {"max_open_per_project": 20}
APIS: dict[str, dict[str, Any]] = {
    "first-byte": {"timeouts": {"response_header": "0.3s"}},
    "whole": {"timeouts": {"request": "0.3s"}},
    "whole-stream": {"timeouts": {"stream": "0.3s"}},
    "silence": {"timeouts": {"idle": "0.3s"}},
    "gathering": {"timeouts": {"flush_interval": "60s"}},
    "unused": {"timeouts": {"idle_connection": "0.3s"}},
    "draining": {"on_client_abort": "drain"},
    "draining-briefly": {"on_client_abort": "drain", "timeouts": {"drain": "0.3s"}},
    "one-kept": {"connection": {"max_idle_conns": 1}},
    "one-kept-per-host": {"connection": {"max_idle_conns_per_host": 1}},
    "one-at-once": {"connection": {"max_conns_per_host": 1, **POOL}},
    "two-for-each": {"connection": {"max_open_per_project": 2}},
}
ENDLESS = {"X-Sim-Events": "9000", "X-Sim-Delay": "0,0.1"}
SILENT = {"X-Sim-Events": "4", "X-Sim-Fault": "stall; after=2"}
UNANSWERED = {"X-Sim-Fault": "stall-head"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SettingsStack]:
    with closing(socket.create_server((HOST, 0))) as mute:  # whoever connects gets no TLS from it
        address = f"https://{HOST}:{mute.getsockname()[1]}"
        connecting = {
            "connecting": {"base_url": address, "timeouts": {"connect": "0.3s"}},
            "connecting-longer": {
                "base_url": address,
                "timeouts": {"connect": "60s"},
            },  # the usual 10 s pass on busy machines
        }
        with SettingsStack(tmp_path_factory.mktemp("patience"), {**APIS, **connecting}) as running:
            yield running


def chat(stack: SettingsStack, api: str, headers: dict[str, str] | None = None, stream: bool = True) -> Asked:
    body = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": api}]}
    path = f"/{api}/v1/chat/completions"
    return Asked(
        stack, "POST", path, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
    )


@pytest.mark.parametrize(
    ("api", "longer", "headers", "stream"),
    [
        pytest.param("connecting", "connecting-longer", {}, True, id="connect"),
        pytest.param("first-byte", PLAIN, UNANSWERED, True, id="response_header"),
        pytest.param("whole", PLAIN, UNANSWERED, False, id="request"),
    ],
)
def test_until_it_responds(stack: SettingsStack, api: str, longer: str, headers: dict[str, str], stream: bool) -> None:
    with chat(stack, longer, headers, stream) as patient, chat(stack, api, headers, stream) as impatient:
        eventually(lambda: impatient.status() == 504)
        assert b"upstream_timeout" in impatient.so_far()
        assert patient.status() == 0


@pytest.mark.parametrize(
    ("api", "headers"),
    [pytest.param("silence", SILENT, id="idle"), pytest.param("whole-stream", ENDLESS, id="stream")],
)
def test_until_it_ends(stack: SettingsStack, api: str, headers: dict[str, str]) -> None:
    """A stream that has begun is cut."""
    with chat(stack, PLAIN, headers) as patient, chat(stack, api, headers) as impatient:
        eventually(lambda: impatient.so_far() and impatient.ended)
        assert impatient.status() == 200 and b"[DONE]" not in impatient.received
        assert patient.so_far() and not patient.ended


def test_gathered(stack: SettingsStack) -> None:
    """Where events are gathered for a minute none has come, though they came later elsewhere."""
    since = len(stack.recorded())
    with chat(stack, "gathering", SILENT) as gathering:
        eventually(lambda: [each for each in stack.recorded()[since:] if each["events_sent"] >= 2])
        with chat(stack, PLAIN, SILENT) as plain:
            eventually(lambda: plain.so_far().count(b"data: ") >= 2)
        assert gathering.so_far().count(b"data: ") == 0


def test_unused_connection(stack: SettingsStack) -> None:
    """Who comes a second later gets another one; elsewhere the same."""

    def same(api: str) -> bool:
        connections = []
        for pause in (0.0, 1.0):
            time.sleep(pause)
            assert stack.ask("GET", f"/{api}/v1/models").status == 200
            connections.append(stack.last()["connection"])
        return connections[0] == connections[1]

    eventually(lambda: not same("unused"))
    eventually(lambda: same(PLAIN))


def test_client_leaves(stack: SettingsStack) -> None:
    """What it asked for is read to its end, elsewhere aborted."""
    ends = {}
    for api, steered in (("draining", {"X-Sim-Events": "10", "X-Sim-Delay": "0,0.15"}), (PLAIN, ENDLESS)):
        with chat(stack, api, steered) as leaving:
            eventually(lambda leaving=leaving: b"data: " in leaving.so_far())
            number = stack.last()["id"]
        (ended,) = eventually(
            lambda number=number: [
                each for each in stack.recorded() if each["id"] == number and (each["left_at"] or each["finished_at"])
            ]
        )
        ends[api] = bool(ended["left_at"])
    assert ends == {"draining": False, PLAIN: True}


def test_drain(stack: SettingsStack) -> None:
    """For no longer than it is said."""
    with chat(stack, "draining-briefly", ENDLESS) as leaving:
        eventually(lambda: b"data: " in leaving.so_far())
        number = stack.last()["id"]
    eventually(lambda: [each for each in stack.recorded() if each["id"] == number and each["left_at"]])


def at_once(stack: SettingsStack, api: str, many: int) -> int:
    """How many connections so many requests at once had."""
    since = len(stack.recorded())

    def models(_: int) -> int:
        return stack.ask("GET", f"/{api}/v1/models", headers={"X-Sim-Delay": "1"}).status

    with ThreadPoolExecutor(many) as clients:
        assert [*clients.map(models, range(many))] == [200] * many
    return len({each["connection"] for each in stack.recorded()[since:]})


@pytest.mark.parametrize(
    "api",
    [
        pytest.param("one-kept", id="max_idle_conns"),
        pytest.param("one-kept-per-host", id="max_idle_conns_per_host"),
    ],
)
def test_kept_connections(stack: SettingsStack, api: str) -> None:
    before = stack.provider_connections()
    assert any(at_once(stack, api, 3) > 1 for _ in range(10))
    eventually(lambda: stack.provider_connections() == before + 1)


def test_connections_at_once(stack: SettingsStack) -> None:
    """Further requests wait for the one there may be."""
    assert at_once(stack, "one-at-once", 3) == 1


def test_requests_of_a_project_at_once(stack: SettingsStack) -> None:
    with chat(stack, "two-for-each", ENDLESS) as first, chat(stack, "two-for-each", ENDLESS) as second:
        eventually(lambda: (first.status(), second.status()) == (200, 200))
        refused = stack.ask("GET", "/two-for-each/v1/models")
        assert (refused.status, refused.header("X-LLMProxy-Error")) == (429, "too_many_open_requests")
