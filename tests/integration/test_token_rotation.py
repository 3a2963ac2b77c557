"""A token gets another secret: both are valid for a while, then the old one stops, on every worker."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support.stack import Stack, eventually
from tests.support.workers import WorkerStack

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
PATIENCE = 60.0


def code(stack: Stack, token: str) -> tuple[int, str]:
    answer = stack.ask("POST", CHAT, BODY, token=token)
    return answer.status, "" if answer.status == 200 else str(answer.json["error"]["code"])


def rotated(stack: Stack, token_id: str, **body: Any) -> dict[str, Any]:
    return stack.manage("POST", f"/manage/tokens/{token_id}/rotate", body)


@pytest.mark.long("2 s: two workers that are asked while a token is replaced")
def test_old_and_new(tmp_path: Path) -> None:
    """On two workers: nothing is refused while both are valid; afterwards the old one always is, the new one never."""
    with WorkerStack(tmp_path, 2) as stack:
        made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project, "max_requests": 10_000})
        old, token_id = made["token"], made["id"]
        assert {code(stack, old) for _ in range(20)} == {(200, "")}
        answer = rotated(stack, token_id, grace="4s")
        new = answer["token"]
        assert new != old and answer["id"] == token_id and answer["max_requests"] == 10_000
        until = datetime.fromisoformat(answer["previous_expires_at"]).timestamp()
        while time.time() < until - 2:
            found = code(stack, old)
            assert found == (200, "") or time.time() >= until
            assert code(stack, new) == (200, "")
        eventually(lambda: time.time() > until + 0.1, PATIENCE)
        assert {code(stack, old) for _ in range(20)} == {(401, "token_expired")}
        assert {code(stack, new) for _ in range(20)} == {(200, "")}
        shown = stack.manage("GET", f"/manage/tokens/{token_id}")
        assert "token" not in shown and shown["prefix"] == new[:10]
        stack.manage("DELETE", f"/manage/tokens/{token_id}")
        eventually(lambda: code(stack, new) == (401, "token_inactive"), PATIENCE)
        entries = stack.manage("GET", f"/manage/audit?action=token.rotate&token_id={token_id}")["data"]
        assert [each["outcome"] for each in entries] == ["success", "intent"]
        assert entries[0]["details"]["grace"] == "4s"
        written = (tmp_path / "audit.jsonl").read_text() + stack.daemon.output()
        assert new not in written and old not in written


def test_at_once_twice_and_never(tmp_path: Path) -> None:
    """Without a grace the old one stops at once; of two rotations only the last leaves an old one; what is revoked has
    none."""
    with Stack(tmp_path) as stack:
        made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project})
        assert code(stack, made["token"]) == (200, "")
        first = rotated(stack, made["id"], grace="0s")
        assert code(stack, made["token"]) == (401, "token_expired")
        second = rotated(stack, made["id"])
        third = rotated(stack, made["id"], grace="1h")
        assert code(stack, first["token"])[0] == 401
        assert code(stack, second["token"]) == code(stack, third["token"]) == (200, "")
        with stack.another("second") as other:
            assert stack.ask("POST", CHAT, BODY, token=second["token"], port=other.port).status == 200
        stack.manage("DELETE", f"/manage/tokens/{made['id']}")
        assert code(stack, second["token"]) == code(stack, third["token"]) == (401, "token_inactive")
        for path, body, status in ((made["id"], {}, 409), ("nobody", {}, 404), (made["id"], {"grace": "100d"}, 422)):
            with pytest.raises(HTTPError) as raised:
                rotated(stack, path, **body)
            with raised.value as answer:
                assert answer.code == status
