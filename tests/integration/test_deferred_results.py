"""Background responses and batches through the started daemon: paid for once, whenever and however often fetched."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_background import metric
from tests.integration.test_ledger import entered, lines
from tests.support.proxy_case import FAST_PATH
from tests.support.responses import Response
from tests.support.stack import Stack, eventually

RESPONSE = {"model": "o3", "input": "look into it", "background": True, "max_output_tokens": 50_000}
JSON = {"Content-Type": "application/json"}
O3 = {"input": 2e-6, "output": 8e-6}
HELD = 0.4  # dollars, and a little for the input


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    allow_all(stack, "llmproxy")
    with stack:
        yield stack


def allow_all(stack: Stack, name: str) -> None:
    config = stack.home / f"{name}.yaml"
    config.write_text(re.sub(r"allowed_endpoints: .*", 'allowed_endpoints: ["/**"]', config.read_text()))


def call(stack: Stack, token: str, method: str, path: str, body: Any = None, port: int = 0, **headers: str) -> Response:
    raw = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return stack.ask(method, path, raw, given, token=token, port=port or stack.daemon.port)


def new_token(stack: Stack, **properties: Any) -> tuple[str, str]:
    made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project, "name": "t", **properties})
    return made["token"], made["id"]


def used(stack: Stack, token_id: str) -> float:
    return float(stack.manage("GET", f"/manage/tokens/{token_id}")["limits"][0]["used"])


def pending(stack: Stack) -> int:
    with closing(sqlite3.connect(stack.home / "llmproxy.db")) as database:
        return int(database.execute("SELECT count(*) FROM pending_results").fetchone()[0])


@pytest.mark.long("1 s: as any line of a journal that is left behind")
def test_a_background_response_survives_a_kill(own: Stack) -> None:
    """Held at its most, through kill -9; the one who fetches it first pays what it used, nobody pays again."""
    token, token_id = new_token(own, budget_usd="1/day")
    other, _ = new_token(own)
    asked = call(own, token, "POST", "/openai/v1/responses", RESPONSE, X_Sim_Events="30")
    assert (asked.status, asked.json["status"]) == (200, "queued"), asked.body
    own.daemon.kill()  # within a second: what was announced stands in the journal alone
    own.daemon = own.another("second")
    allow_all(own, "second")
    own.daemon.start()
    (line,) = entered(own, 1)
    assert line["outcome"] in ("pending", "truncated")  # it may not even have been settled
    assert (line["basis"], line["cost_usd"]) == ("pending", None)
    assert pending(own) == 1
    assert used(own, token_id) == pytest.approx(HELD, abs=0.001)
    path = f"/openai/v1/responses/{asked.json['id']}"
    replies = [call(own, who, "GET", path) for who in (other, token, token)]
    assert [reply.json["status"] for reply in replies] == ["completed"] * 3
    usage = replies[0].json["usage"]
    cost = usage["input_tokens"] * O3["input"] + usage["output_tokens"] * O3["output"]
    eventually(lambda: pending(own) == 0)
    eventually(lambda: used(own, token_id) == pytest.approx(cost, abs=1e-8))
    found = entered(own, 4)
    assert sorted((each["basis"], each["cost_usd"] or 0.0) for each in found) == [
        ("exact", pytest.approx(cost)), ("none", 0.0), ("none", 0.0), ("pending", 0.0),
    ]  # fmt: skip
    (result,) = (each for each in found if each["cost_usd"])
    assert (result["token_id"], result["output_tokens"]) == (token_id, usage["output_tokens"])
    rows = {row["token_id"]: row for row in own.manage("GET", "/manage/usage?group_by=token")["data"]}
    assert (rows[token_id]["cost_usd"], rows[token_id]["unpriced"]) == (pytest.approx(cost), 0)
    own.daemon.stop()


def test_the_short_way(tmp_path: Path) -> None:
    """Responses take it, and one that is to be made in the background is noticed, however its request is spelled."""
    with Stack(tmp_path, env={FAST_PATH: "true"}) as own:
        eventually(lambda: foreground(own) and metric(own, "llmproxy_fast_path_requests_total") > 4)
        asks = '{"model": "o3", "input": "look into it", %s}'
        for count, background in enumerate(
            ('"background": true', '"\\u0062ackground": true', '"background": false, "background": true'), 1
        ):
            asked = own.ask("POST", "/openai/v1/responses", (asks % background).encode(), JSON)
            assert asked.json["status"] == "queued"
            eventually(lambda count=count: pending(own) == count)
        before = metric(own, "llmproxy_fast_path_requests_total")
        plain = (asks % '"background": false').encode()
        eventually(
            lambda: (
                own.ask("POST", "/openai/v1/responses", plain, JSON).json["status"] == "completed"
                and metric(own, "llmproxy_fast_path_requests_total") > before
            )
        )
        assert pending(own) == 3


def foreground(stack: Stack) -> bool:
    """Ask for one that is whole, and for one that is streamed."""
    for streams in (False, True):
        body = json.dumps({"model": "o3", "input": "look into it", "stream": streams}).encode()
        assert stack.ask("POST", "/openai/v1/responses", body, JSON).status == 200
    return True


def test_what_is_held_holds(own: Stack) -> None:
    """A budget is not circumvented by asking in the background: what is under way counts at its most."""
    token, token_id = new_token(own, budget_usd="1/day")
    asked = [call(own, token, "POST", "/openai/v1/responses", RESPONSE) for _ in range(4)]
    assert [reply.status for reply in asked] == [200, 200, 429, 429]
    call(own, token, "GET", f"/openai/v1/responses/{asked[0].json['id']}")
    eventually(lambda: used(own, token_id) < 0.9 * HELD * 2)
    assert call(own, token, "POST", "/openai/v1/responses", RESPONSE).status == 200


def test_batches(own: Stack) -> None:
    """Half the price of what the batch, its file or its results say; once, whichever is looked at."""
    token, _ = new_token(own)
    order = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h",
             "metadata": {"model": "gpt-4o-mini"}}  # fmt: skip
    batch = call(own, token, "POST", "/openai/v1/batches", order).json["id"]
    (line,) = entered(own, 1)
    assert (line["outcome"], line["cost_usd"]) == ("pending", None)
    shown = call(own, token, "GET", f"/openai/v1/batches/{batch}").json
    eventually(lambda: pending(own) == 0)
    for path in (f"/openai/v1/batches/{batch}", f"/openai/v1/files/{shown['output_file_id']}/content"):
        assert call(own, token, "GET", path).status == 200
    requests = [{"custom_id": "a", "params": {"model": "claude-sonnet-4-5", "max_tokens": 50,
                                              "messages": [{"role": "user", "content": "one two three"}]}}]  # fmt: skip
    headers = {"anthropic_version": "2023-06-01"}
    made = call(own, token, "POST", "/anthropic/v1/messages/batches", {"requests": requests}, **headers).json["id"]
    for _ in range(2):
        assert (
            call(own, token, "GET", f"/anthropic/v1/messages/batches/{made}", **headers).json["processing_status"]
            == "ended"
        )
        assert call(own, token, "GET", f"/anthropic/v1/messages/batches/{made}/results", **headers).status == 200
    found = entered(own, 9)
    costs = sorted(each["cost_usd"] for each in found if each["cost_usd"])
    usage = shown["usage"]
    openai = (usage["input_tokens"] * 0.15 + usage["output_tokens"] * 0.6) / 1e6 / 2
    assert len(costs) == 2 and pytest.approx(openai) in costs, costs
    (row,) = own.manage("GET", "/manage/usage?group_by=project")["data"]
    assert (row["unpriced"], row["cost_usd"]) == (0, pytest.approx(sum(costs)))
    assert lines(own) and pending(own) == 0
    eventually(lambda: metric(own, "llmproxy_buffered_bytes") == 0)


def test_batches_under_a_budget(own: Stack) -> None:
    """Anthropic's are held at the sum of their maxima at half the price; of OpenAI's nobody knows."""
    token, token_id = new_token(own, budget_usd="2/day")
    limited, _ = new_token(own, models=["claude-haiku*"])
    headers = {"anthropic_version": "2023-06-01"}

    def batch(model: str, most: int, words: int = 3) -> dict[str, Any]:
        """The simulator names a batch by what it will have used."""
        params = {"model": model, "max_tokens": most, "messages": [{"role": "user", "content": "word " * words}]}
        return {"requests": [{"custom_id": str(number), "params": params} for number in range(2)]}

    asked = [
        call(own, token, "POST", "/anthropic/v1/messages/batches", batch("claude-sonnet-4-5", 50_000, words), **headers)
        for words in (3, 4, 5)
    ]
    assert [reply.status for reply in asked] == [200, 200, 429]  # 0.75 dollars each
    assert used(own, token_id) == pytest.approx(1.5, abs=0.01)
    path = f"/anthropic/v1/messages/batches/{asked[0].json['id']}/results"
    assert call(own, token, "GET", path, **headers).status == 200
    eventually(lambda: used(own, token_id) == pytest.approx(0.75, abs=0.01))
    order = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    refused = call(own, token, "POST", "/openai/v1/batches", order)
    assert (refused.status, refused.header("X-LLMProxy-Error")) == (403, "price_unknown")
    for path, body in (
        ("/anthropic/v1/messages/batches", batch("claude-opus-4-5", 5)),
        ("/openai/v1/batches", order),
    ):
        refused = call(own, limited, "POST", path, body, **headers)
        assert (refused.status, refused.header("X-LLMProxy-Error")) == (403, "model_not_allowed"), path
    allowed = call(own, limited, "POST", "/anthropic/v1/messages/batches", batch("claude-haiku-4-5", 5), **headers)
    assert allowed.status == 200
