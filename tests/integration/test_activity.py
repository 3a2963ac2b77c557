"""What goes on, as the management API tells it: over time from the store, and the last requests one by one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.stack import Stack, eventually

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
JSON = {"Content-Type": "application/json"}


def test_what_clients_did_is_shown(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        good = stack.ask("POST", "/v1/chat/completions", CHAT, JSON)
        assert good.status == 200
        assert stack.ask("GET", "/v1/nothing").status == 403
        assert stack.ask("GET", "/v1/models", token="sk-lp-" + "a" * 43).status == 401
        total = eventually(
            lambda: (t := stack.manage("GET", "/manage/activity?period=1h")["total"])["requests"] >= 3 and t
        )
        assert (total["requests"], total["refused"], total["failed"]) == (3, 2, 0)
        assert total["input_tokens"] > 0 and total["cost_usd"] > 0 and total["first_byte_p95"] > 0
        project = stack.manage("GET", f"/manage/activity?period=1h&project_id={stack.project}")
        assert project["total"]["requests"] == 1 and sum(p["requests"] for p in project["points"]) == 1

        shown = stack.manage("GET", "/manage/requests")["data"]
        assert [each["status"] for each in shown] == [401, 403, 200]
        assert stack.manage("GET", "/manage/requests?status=4xx&limit=1")["data"] == shown[:1]
        one = stack.manage("GET", f"/manage/requests/{good.header('X-Request-ID')}")
        assert (one["model"], one["outcome"], one["project_id"]) == ("gpt-4o", "complete", stack.project)
        assert abs(one["cost_usd"] - total["cost_usd"]) < 1e-12

        # It is the store that knows what went on: another process tells the same.
        with stack.another("other") as other:
            reply = stack.ask(
                "GET", "/manage/activity?period=24h", port=other.port,
                token=stack.env["LLMPROXY_MANAGEMENT_TOKEN"],
            )  # fmt: skip
            assert json.loads(reply.body)["total"]["requests"] == 3
