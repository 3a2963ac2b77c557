"""Everything that was used, out of a daemon that runs: FOCUS, CSV and JSON, over HTTP and by the command."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_cli_commands import llmproxy
from tests.support.focus import breaches, read
from tests.support.stack import KEYS, MANAGEMENT, Stack, eventually

CHAT, MESSAGES = "/v1/chat/completions", "/anthropic/v1/messages"
VERSION = {"anthropic-version": "2023-06-01"}
FURTHER = """
ledger: {interval: 0.2s}
"""


def chat(model: str) -> bytes:
    return json.dumps({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "a b c"}]}).encode()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("export"), further=FURTHER) as stack:
        own = {"name": "=SUM(1)", "api_keys": dict(KEYS), "labels": ["search"], "metadata": {"cost_center": "7"}}
        other = stack.manage("POST", "/manage/projects", own)["id"]
        token = stack.manage("POST", "/manage/tokens", {"project_id": other})["token"]
        for _ in range(3):
            assert stack.ask("POST", CHAT, chat("gpt-4o-mini")).status == 200
        assert stack.ask("POST", MESSAGES, chat("claude-sonnet-4-5"), VERSION, token=token).status == 200
        assert stack.ask("POST", CHAT, chat("gpt-unheard-of"), token=token).status == 200
        assert stack.ask("GET", "/v1/models", token=token).status == 200
        eventually(lambda: sum(row["requests"] for row in usage(stack)) == 6)
        yield stack


def usage(stack: Stack) -> list[dict[str, Any]]:
    return list(stack.manage("GET", "/manage/usage?group_by=day,project,api,model")["data"])


def get(stack: Stack, path: str) -> tuple[HTTPResponse, str]:
    request = urllib.request.Request(stack.url + path, headers={"Authorization": f"Bearer {MANAGEMENT}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer, answer.read().decode()


def run(stack: Stack, *arguments: str, code: int = 0) -> str:
    done = llmproxy("--url", stack.url, *arguments, cwd=stack.home, env=stack.env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_focus(shared: Stack) -> None:
    """It keeps the specification's rules, and says what the report says."""
    answer, text = get(shared, "/manage/usage?format=focus")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert breaches(text) == []
    rows, reported = read(text), usage(shared)
    assert len(rows) == len(reported) == 4
    for row, said in zip(rows, reported, strict=True):
        assert Decimal(row["BilledCost"]) == Decimal(str(said["cost_usd"]))
        assert row["BilledCost"] == row["EffectiveCost"] == row["ListCost"] == row["ContractedCost"]
        assert (row["SubAccountId"], row["x_Api"]) == (said["project_id"], said["api"])
        assert row["ChargePeriodStart"] == f"{said['day']}T00:00:00Z"
        assert int(row["x_Requests"]) == said["requests"]
    by_model = {row["SkuId"].partition("-2")[0]: row for row in rows}
    assert by_model["gpt-4o-mini"]["ProviderName"] == "OpenAI"
    assert by_model["gpt-4o-mini"]["SubAccountName"] == "Team"
    assert by_model["gpt-4o-mini"]["PricingUnit"] == "Tokens"
    claude = next(row for row in rows if row["x_Api"] == "anthropic")
    assert (claude["ProviderName"], claude["ServiceName"]) == ("Anthropic", "Anthropic API")
    assert claude["SubAccountName"] == "'=SUM(1)"  # what a spreadsheet would calculate
    assert json.loads(claude["Tags"]) == {"search": True, "cost_center": "7"}
    assert Decimal(claude["BilledCost"]) > 0
    assert by_model["no model"]["PricingUnit"] == "Requests"
    assert by_model["gpt-unheard-of"]["x_UnpricedRequests"] == "1"
    assert "of unknown cost" in by_model["gpt-unheard-of"]["ChargeDescription"]


def test_focus_of_some(shared: Stack) -> None:
    """Of one project, of a span; what has nothing in it has its headings still."""
    _, text = get(shared, f"/manage/projects/{shared.project}/usage?format=focus")
    assert {row["SubAccountId"] for row in read(text)} == {shared.project}
    assert get(shared, f"/manage/usage?format=focus&project_id={shared.project}")[1] == text
    _, none = get(shared, "/manage/usage?format=focus&to=2020-01-01")
    assert breaches(none) == []
    assert read(none) == []
    for query in ("group_by=api", "limit=1"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(shared, f"/manage/usage?format=focus&{query}")
        with refused.value:
            assert refused.value.code == 422


def test_the_checker_finds_faults(shared: Stack) -> None:
    """What checks the files is itself able to fail."""
    _, text = get(shared, "/manage/usage?format=focus")
    for was, became in (
        ("BilledCost", "billed_cost"),
        ("T00:00:00Z", ""),
        (",USD,", ",dollars,"),
        (",Usage,", ",,"),
        (",AI and Machine Learning,", ",AI,"),
        (",x_Api", ",Api"),
    ):
        assert was in text
        assert breaches(text.replace(was, became)), was


def test_the_command(shared: Stack) -> None:
    """It writes the same to standard output, or to a file; CSV and JSON likewise."""
    whole = get(shared, "/manage/usage?format=focus")[1]
    assert run(shared, "usage", "export", "--format", "focus").splitlines() == whole.splitlines()
    file = shared.home / "usage.csv"
    assert run(shared, "usage", "export", "--format", "focus", "--file", str(file)) == ""
    assert file.read_bytes() == whole.encode()
    groups = ("--by", "day", "--by", "project", "--by", "api", "--by", "model")
    rows = json.loads(run(shared, "usage", "export", "--format", "json", *groups))
    assert rows == usage(shared)
    table = list(csv.DictReader(io.StringIO(run(shared, "usage", "export", "--format", "csv", *groups))))
    assert [row["model"] for row in table] == [row["model"] for row in rows]
    assert json.loads(run(shared, "usage", "export", "--format", "json", "--to", "2020-01-01")) == []
    assert run(shared, "usage", "export", "--project", shared.project).splitlines()[1].startswith(shared.project)
    assert "422" in run(shared, "usage", "export", "--by", "colour", "--file", str(file), code=1)
    assert file.read_bytes() == whole.encode()  # what was there stays where nothing can replace it
    assert not list(shared.home.glob("*.part"))
    assert "leave --by out" in run(shared, "usage", "export", "--format", "focus", "--by", "api", code=2)


OTHER_SHAPES = [
    pytest.param(shape, marks=pytest.mark.long("1 s: the bar of another format")) for shape in ("csv", "json")
]


@pytest.mark.parametrize("shape", ["focus", *OTHER_SHAPES])
def test_a_bar_on_a_terminal(shared: Stack, shape: str) -> None:
    """Whoever looks at a terminal sees how far it is; the file has nothing of it."""
    file = shared.home / f"bar.{shape}"
    command = [sys.executable, "-c", "from llmproxy.cli import main; main(prog_name='llmproxy')", "--url", shared.url]
    further = ["usage", "export", "--format", shape, "--file", str(file)]
    outer, inner = pty.openpty()
    try:
        env = {**os.environ, **shared.env, "TERM": "xterm"}
        done = subprocess.run([*command, *further], cwd=shared.home, env=env, stderr=inner, timeout=120, check=False)
    finally:
        os.close(inner)
    said = bytearray()
    try:
        while part := os.read(outer, 4096):
            said += part
    except OSError:
        pass  # all of it was read
    finally:
        os.close(outer)
    assert done.returncode == 0, said
    assert b"Exporting" in said
    assert b"100%" in said
    assert b"Exporting" not in file.read_bytes()
    assert file.read_bytes()


def test_who_is_bound(shared: Stack, tmp_path: Path) -> None:
    """A key that is bound to a project exports that project's alone."""
    made = {"name": "lead", "role": "viewer", "projects": [shared.project]}
    file = tmp_path / "key"
    file.write_text(shared.manage("POST", "/manage/keys", made)["key"])
    file.chmod(0o600)
    text = run(shared, "usage", "export", "--format", "focus", "--management-token-file", str(file))
    assert {row["SubAccountId"] for row in read(text)} == {shared.project}
