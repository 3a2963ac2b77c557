"""Floods of guesses and of management calls, against the started daemon: who has a valid token does not notice."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.flooding import answers, flood
from tests.support.processes import HOST
from tests.support.stack import Stack

pytestmark = pytest.mark.alone

CONNECTIONS = 1500
SECONDS = 5.0


def asked(stack: Stack, token: str, address: str = HOST) -> tuple[float, int]:
    """How long one request with this token took, and its status; from another loopback address, if that is named."""
    begun = time.monotonic()
    connection = HTTPConnection(HOST, stack.daemon.port, timeout=30, source_address=(address, 0))
    try:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        return time.monotonic() - begun, answer.status
    finally:
        connection.close()


def told(name: str, seen: Sequence[tuple[float, int]]) -> None:
    statuses = dict(Counter(status for _, status in seen))
    print(f"{name}: {len(seen)} requests, {statuses}, slowest {max(seen)[0]:.2f} s")
    assert statuses == {200: len(seen)}


@pytest.mark.long("3 s: 1,500 connections that guess for five seconds keep nobody out")
def test_guesses_on_many_connections(tmp_path: Path) -> None:
    """1,500 connections with unknown tokens: each is answered, none with 503, and every valid token is let in.

    Also one that this process has never seen, and even from the address that guesses.
    """
    with Stack(tmp_path) as stack:
        fresh = [stack.new_token() for _ in range(120)]
        asked(stack, stack.token)
        guessing = flood(stack.daemon.port, CONNECTIONS, SECONDS)
        time.sleep(0.5)
        end = time.monotonic() + SECONDS

        def several(token: Callable[[], str], address: str = HOST) -> list[tuple[float, int]]:
            seen = []
            while time.monotonic() < end:
                seen.append(asked(stack, token(), address))
                time.sleep(0.1)
            return seen

        with ThreadPoolExecutor(3) as clients:
            asking = [
                clients.submit(several, lambda: stack.token),
                clients.submit(several, fresh.pop, "127.0.0.2"),
                clients.submit(several, fresh.pop),
            ]
            known, new, new_there = (each.result() for each in asking)
        statuses = answers(guessing)
        print("guesses:", statuses)
        told("a known token", known)
        told("new tokens, another address", new)
        told("new tokens, the same address", new_there)
        assert min(map(len, (known, new, new_there))) > 1
        assert set(statuses) == {"401", "429"} and statuses["401"] == 20
        assert sum(statuses.values()) >= CONNECTIONS
        assert stack.ask("GET", "/ready").status == 200


@pytest.mark.long("5 s: lists of a crowd hold up nobody else")
def test_many_lists_at_once(tmp_path: Path) -> None:
    """What operators read waits for what operators read: look-ups of tokens do not."""
    with Stack(tmp_path) as stack:
        fresh = [stack.new_token() for _ in range(300)]
        with ThreadPoolExecutor(8) as operators:
            end = time.monotonic() + 3

            def read() -> int:
                count = 0
                while time.monotonic() < end:
                    assert len(stack.manage("GET", "/manage/tokens?limit=1000")["data"]) == 301
                    count += 1
                return count

            reading = [operators.submit(read) for _ in range(8)]
            seen = []
            while time.monotonic() < end:
                seen.append(asked(stack, fresh.pop()))
                time.sleep(0.02)
            lists = sum(each.result() for each in reading)
        print(f"{lists} lists meanwhile")
        told("new tokens", seen)
        assert len(seen) > 5 and lists > 8


def audited(stack: Stack) -> list[dict[str, Any]]:
    lines = (stack.home / "audit.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["action"] in ("request.refused", "management.denied")]


def test_refused_requests_fill_no_audit_log(tmp_path: Path) -> None:
    """A thousand requests with a revoked token, and of a project that is inactive: two entries each, with the number.

    What was counted is written when the daemon stops.
    """
    with Stack(tmp_path) as stack:
        other = stack.manage("POST", "/manage/projects", {"name": "Other"})["id"]
        inactive = stack.new_token(project_id=other)
        stack.manage("PATCH", f"/manage/projects/{other}", {"active": False})
        made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project})
        stack.manage("DELETE", f"/manage/tokens/{made['id']}")
        floods = [flood(stack.daemon.port, 20, 1, token) for token in (inactive, made["token"])]
        forbidden, revoked = (answers(each) for each in floods)
        for _ in range(5):
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(
                    urllib.request.Request(f"{stack.url}/manage/projects", headers={"Authorization": "Bearer x"})
                )
        assert set(forbidden) == {"403"} and set(revoked) == {"401"}
        print(f"refused: {forbidden} {revoked}; entries: {len(audited(stack))}")
        stack.daemon.stop()
        entries = audited(stack)
        counted: Counter[str] = Counter()
        for entry in entries:
            details = entry["details"]
            counted[details.get("code") or details["error"]] += details.get("count", 1)
        assert counted == {"project_inactive": forbidden["403"], "token_inactive": revoked["401"], "unauthorized": 5}
        assert len(entries) == 6
        assert {entry["token_id"] for entry in entries if entry["details"].get("code") == "token_inactive"} == {
            made["id"]
        }
