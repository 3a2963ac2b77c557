"""A provider's export beside the ledger of a daemon that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.test_cli_commands import llmproxy
from tests.support.stack import Stack, eventually

USAGE = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,model,input_tokens,output_tokens\n"
)
COSTS = "usage_date_utc,model,workspace,api_key,usage_type,token_type,cost_usd,list_price_usd\n"
ANTHROPIC = {"anthropic-version": "2023-06-01"}


def body(model: str) -> bytes:
    return json.dumps({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "a b c"}]}).encode()


def test_reconcile(tmp_path: Path) -> None:
    """What agrees is 0; a difference is 1 and is named, by day and model, in a table and in JSON."""
    with Stack(tmp_path, further="\nledger: {interval: 0.2s}\n") as stack:

        def used() -> list[dict[str, Any]]:
            return list(stack.manage("GET", "/manage/usage?group_by=day,api,model")["data"])

        def run(file: Path, code: int, *further: str) -> str:
            done = llmproxy("--url", stack.url, "usage", "reconcile", str(file), *further, cwd=tmp_path, env=stack.env)
            assert done.returncode == code, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            return done.stdout + done.stderr

        for _ in range(2):
            assert stack.ask("POST", "/v1/chat/completions", body("gpt-4o-mini")).status == 200
        assert stack.ask("POST", "/anthropic/v1/messages", body("claude-sonnet-4-5"), ANTHROPIC).status == 200
        eventually(lambda: sum(row["requests"] for row in used()) == 3)
        openai, claude = sorted(used(), key=lambda row: row["api"], reverse=True)
        tokens = f"2,{openai['model']},{openai['input_tokens']},{openai['output_tokens']}"
        good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
        good.write_text(f"{USAGE}0,0,{openai['day']}T00:00:00+00:00,,proj,{tokens}\n")
        assert "0 of 1 days and models differ" in run(good, 0)
        bad.write_text(f"{USAGE}0,0,{openai['day']}T00:00:00+00:00,,proj,{tokens}0\n")
        said = run(bad, 1)
        (line,) = [line for line in said.splitlines() if line.endswith("differs")]
        assert line.split()[:4] == [
            openai["day"],
            openai["model"],
            "output_tokens",
            f"{openai['output_tokens'] * 10:,}",
        ]
        assert "requests" in run(bad, 1, "--all").splitlines()[1]
        found = json.loads(run(bad, 1, "--output", "json"))
        assert (found["format"], found["apis"], found["differences"]) == ("openai-usage", ["openai"], 1)
        assert [row["measure"] for row in found["data"] if row["differs"]] == ["output_tokens"]
        assert run(bad, 0, "--tolerance", "95")

        costs = tmp_path / "costs.csv"
        cost, name = claude["cost_usd"], "Claude Sonnet 4.5"
        costs.write_text(f"{COSTS}{claude['day']},{name},Default,key,message,output,{cost:.12f},{cost:.12f}\n")
        assert cost > 0
        exactly = ("--tolerance", "0.001", "--tolerance-usd", "0")
        run(costs, 0, *exactly)
        costs.write_text(f"{COSTS}{claude['day']},{name},Default,key,message,output,{2 * cost:.12f},{cost:.12f}\n")
        run(costs, 1, *exactly)
        run(costs, 0, *exactly[:2], "--tolerance-usd", "1")
        stack.manage("POST", "/manage/projects", {"name": "Idle"})
        assert run(costs, 1, *exactly, "--project", "Idle")
        other = run(costs, 1, *exactly, "--api", "openai", "--output", "json")
        assert {row["model"] for row in json.loads(other)["data"]} == {name, openai["model"]}

        nonsense = tmp_path / "nonsense.csv"
        nonsense.write_text("a,b\n1,2\n")
        assert "no export that is known" in run(nonsense, 78)
