"""Whom requests are attributed to, through the daemon: in the ledger, in events and in reports, on both paths."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support.processes import HOST
from tests.support.proxy_case import FAST_PATH
from tests.support.stack import Stack, eventually

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "a b c"}]}).encode()
SETTINGS = """
attribution: {user: X-User, session: X-Claude-Code-Session-Id}
ledger: {attribution_values: 3, interval: 0.2s}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("attribution"), further=SETTINGS) as stack:
        yield stack


def lines(stack: Stack, project: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(stack.home / "llmproxy.db")) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute("SELECT * FROM ledger WHERE project_id = ? ORDER BY at", (project,))
        return [dict(row) for row in rows]


def project(stack: Stack, **token: Any) -> tuple[str, str]:
    """One of its own, and a token."""
    made = stack.manage("POST", "/manage/projects", {"name": "Own", "api_keys": dict(stack.keys)})["id"]
    return made, str(stack.manage("POST", "/manage/tokens", {"project_id": made, **token})["token"])


def by_user(stack: Stack, of: str, groups: str = "user") -> dict[tuple[str, bool], int]:
    data = stack.manage("GET", f"/manage/projects/{of}/usage?group_by={groups}")["data"]
    return {(row["user"], row["claimed"]): row["requests"] for row in data}


def test_claimed_and_fixed(shared: Stack) -> None:
    """What a client says is marked as claimed, unless its token fixes it; the two are never added up together."""
    own, open_token = project(shared)
    fixed = shared.manage("POST", "/manage/tokens", {"project_id": own, "metadata": {"user": "ada", "cost": "7"}})
    assert fixed["metadata"] == {"cost": "7", "user": "ada"}
    for token, user in ((open_token, "ada"), (open_token, "grace"), (fixed["token"], "grace"), (open_token, "")):
        headers = {"X-User": user, "X-Claude-Code-Session-Id": "s-1"} if user else {}
        assert shared.ask("POST", CHAT, BODY, headers, token=token).status == 200
    eventually(lambda: len(lines(shared, own)) == 4)
    expected = {("ada", True): 1, ("grace", True): 1, ("ada", False): 1, ("", False): 1}
    assert by_user(shared, own) == expected
    assert by_user(shared, own, "api,user,day") == expected
    stored = [json.loads(line["attribution"]) for line in lines(shared, own)]
    assert stored[1] == {"user": ["grace", "claimed"], "session": ["s-1", "claimed"]}
    assert stored[2]["user"] == ["ada", "token"]
    (asked,) = shared.manage("GET", f"/manage/requests?token_id={fixed['id']}")["data"]
    assert asked["attribution"]["user"] == {"value": "ada", "claimed": False}

    def events() -> list[dict[str, Any]]:
        told = shared.events()
        return [event["attribution"] for event in told if event["project_id"] == own and "attribution" in event]

    eventually(lambda: len(events()) == 4)
    assert {"value": "grace", "claimed": True} in [event.get("user") for event in events()]


def test_the_fast_path_reads_each_requests_own(shared: Stack) -> None:
    """Requests that differ in their fields alone go the short way, and each line has its own values."""
    own, token = project(shared)
    is_fast = os.environ.get(FAST_PATH) != "false"
    before = shared.metric("fast_path_requests_total") if is_fast else 0
    sent: Counter[str] = Counter()
    with closing(HTTPConnection(HOST, shared.daemon.port, timeout=30)) as client:
        for number in range(30):
            user = ("ada", "grace")[number % 2]
            sent[user] += 1
            fields = {"X-User": user, "X-Claude-Code-Session-Id": f"s-{number}", "Authorization": f"Bearer {token}"}
            client.request("POST", CHAT, BODY, fields)
            answer = client.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
    eventually(lambda: len(lines(shared, own)) == 30)
    assert not is_fast or shared.metric("fast_path_requests_total") - before >= 20
    values = [json.loads(line["attribution"]) for line in lines(shared, own)]
    assert Counter(value["user"][0] for value in values) == sent
    assert [value["session"][0] for value in values] == [f"s-{number}" for number in range(30)]
    assert by_user(shared, own) == {("ada", True): 15, ("grace", True): 15}
    seen = [header for entry in shared.recorded()[-30:] for header in entry["headers"]]
    assert sum(header.lower().startswith("x-user:") for header in seen) == 30


def test_more_values_than_are_told_apart(shared: Stack) -> None:
    """Beyond as many as the settings say they are added up together, which is counted; lines keep theirs."""
    own, token = project(shared)
    before = shared.metric("attribution_overflow_total")
    for number in range(8):
        assert shared.ask("POST", CHAT, BODY, {"X-User": f"user-{number}"}, token=token).status == 200
    eventually(lambda: len(lines(shared, own)) == 8)
    found = by_user(shared, own)
    assert found.pop(("(other)", True)) == 5
    assert set(found.values()) == {1} and len(found) == 3
    assert shared.metric("attribution_overflow_total") - before == 5
    users = {json.loads(line["attribution"])["user"][0] for line in lines(shared, own)}
    assert users == {f"user-{number}" for number in range(8)}
    assert shared.ask("POST", CHAT, BODY, {"X-User": next(iter(found))[0]}, token=token).status == 200
    eventually(lambda: by_user(shared, own)[next(iter(found))] == 2)  # what has a row keeps it


def test_what_a_client_may_send(shared: Stack) -> None:
    """Values are cut, made printable, and hold no secret; a request that is refused has its own too."""
    own, token = project(shared, models=["gpt-4o"])
    values = ["x" * 500, "Zo\xc3\xab", f"Bearer {token}", 'a"b\\c']
    for value in values:
        assert shared.ask("POST", CHAT, BODY, {"X-User": value}, token=token).status == 200
    refused = json.dumps({"model": "gpt-4.1", "messages": []}).encode()
    assert shared.ask("POST", CHAT, refused, {"X-User": "denied"}, token=token).status == 403
    eventually(lambda: len(lines(shared, own)) == 5)
    users = [json.loads(line["attribution"])["user"][0] for line in lines(shared, own)]
    assert users[:2] == ["x" * 128, "Zo\u00eb"]
    assert token not in users[2] and "[redacted]" in users[2]
    assert users[3:] == ['a"b\\c', "denied"]


def test_a_report_that_cannot_be(shared: Stack) -> None:
    """Two attributions at once, or one beside tokens, or one that nobody has configured."""
    for groups in ("user,session", "user,token", "colour"):
        with pytest.raises(HTTPError) as refused:
            shared.manage("GET", f"/manage/usage?group_by={groups}")
        with refused.value as answer:
            assert answer.code == 422
    assert shared.manage("GET", "/manage/apis")["attributions"] == ["user", "session"]


def test_killed_and_reloaded(tmp_path: Path) -> None:
    """What was under way when the process was killed is attributed; other fields are read after a reload."""
    with Stack(tmp_path, further=SETTINGS) as stack:
        with closing(HTTPConnection(HOST, stack.daemon.port, timeout=30)) as client:
            fields = {"Authorization": f"Bearer {stack.token}", "X-User": "ada", "X-Sim-Fault": "stall-head"}
            client.request("POST", CHAT, BODY, fields)
            eventually(stack.recorded)
            stack.daemon.kill()
        with stack.another("second") as daemon:
            eventually(lambda: lines(stack, stack.project))
            (left,) = lines(stack, stack.project)
            assert left["error"] == "process_ended"
            assert json.loads(left["attribution"])["user"] == ["ada", "claimed"]
            config = tmp_path / "second.yaml"
            config.write_text(config.read_text().replace("user: X-User", "user: X-Person"))
            stack.daemon = daemon
            assert "attribution" in stack.manage("POST", "/manage/reload")["changed"]
            for _ in range(4):
                fields = {"X-User": "ada", "X-Person": "grace"}
                assert stack.ask("POST", CHAT, BODY, fields).status == 200
            eventually(lambda: by_user(stack, stack.project).get(("grace", True)) == 4)
