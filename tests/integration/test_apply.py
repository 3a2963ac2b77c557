"""Groups, projects and tokens as a file declares them, through the daemon."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_cli_commands import llmproxy
from tests.support.stack import Stack

MANUAL = Path(__file__).parents[2] / "docs" / "management.md"
SECRETS = """
secrets: {environment: ["*_API_KEY"], directories: [/run/secrets]}
"""
CHAT = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a b c"}]}).encode()
ENV = {"OPENAI_API_KEY": "sk-sim-openai", "OTHER_API_KEY": "sk-sim-anthropic"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("apply"), further=SECRETS, env=ENV) as stack:
        yield stack


class Applied:
    """What a run of the command did."""

    def __init__(self, stack: Stack, text: str, *further: str, code: int = 0) -> None:
        file = stack.home / "declared.yaml"
        file.write_text(text)
        done = llmproxy("--url", stack.url, "apply", "-f", str(file), *further, cwd=stack.home, env=stack.env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        self.out, self.err = done.stdout, done.stderr
        self.plan = [line for line in done.stdout.splitlines() if line[:2] in ("+ ", "~ ", "- ")]
        self.tokens = re.findall(r"^(\S+)  (sk-lp-\S+)$", done.stdout, re.MULTILINE)


def all_of(stack: Stack, kind: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in stack.manage("GET", f"/manage/{kind}?limit=1000")["data"]}


def test_the_example(shared: Stack) -> None:
    """The manual's file: a plan, then changes, then nothing; its tokens work."""
    (text,) = re.findall(r"^```yaml\n(# team.yaml\n.*?)^```", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    text = text.replace("file:/run/secrets/anthropic", "env:OTHER_API_KEY")  # which there is here
    before = all_of(shared, "projects")
    dry = Applied(shared, text, "--dry-run")
    assert [line.split("  ")[0] for line in dry.plan] == [
        "+ create group Company",
        "+ create group Research",
        "+ create project Search",
        "+ create token Search/backend",
        "+ create token Search/ada",
    ]
    assert "Nothing was changed" in dry.err
    assert all_of(shared, "projects") == before
    first = Applied(shared, text)
    assert first.plan == dry.plan
    assert [name for name, _ in first.tokens] == ["Search/backend", "Search/ada"]
    groups, project = all_of(shared, "groups"), all_of(shared, "projects")["Search"]
    assert groups["Research"]["parent_id"] == groups["Company"]["id"]
    assert project["group_id"] == groups["Research"]["id"]
    assert project["api_keys"]["openai"] == "env:OPENAI_API_KEY"
    assert shared.ask("POST", "/v1/chat/completions", CHAT, token=first.tokens[1][1]).status == 200
    assert shared.ask("POST", "/v1/chat/completions", CHAT, token=first.tokens[0][1]).status == 403  # other models
    audited = (shared.home / "audit.jsonl").read_text()
    for _ in range(2):
        again = Applied(shared, text)
        assert (again.plan, again.tokens) == ([], [])
        assert "nothing to change" in again.err
    assert (shared.home / "audit.jsonl").read_text() == audited  # not a single change was asked for


def test_changes(shared: Stack) -> None:
    """What is named changes, what is not stays, null lifts; the plan says from what to what."""
    text = "projects: [{name: Changing, requests_per_minute: 5, labels: [a], tokens: [{name: t, ips: [10.0.0.1]}]}]"
    Applied(shared, text)
    assert not Applied(shared, text).plan
    made = all_of(shared, "projects")["Changing"]
    found = Applied(shared, "projects: [{name: Changing, requests_per_minute: 7, budget_usd: 3}]")
    assert found.plan == ['~ update project Changing  requests_per_minute: 5 -> 7, budget_usd: none -> ["3"]']
    now = all_of(shared, "projects")["Changing"]
    assert (now["id"], now["requests_per_minute"], now["labels"]) == (made["id"], 7, ["a"])
    assert not Applied(shared, "projects: [{name: Changing, budget_usd: [3/lifetime]}]").plan
    lifted = "projects: [{name: Changing, budget_usd: [], requests_per_minute: null, tokens: [{name: t, ips: null}]}]"
    assert len(Applied(shared, lifted).plan) == 2
    assert not Applied(shared, lifted).plan
    assert all_of(shared, "projects")["Changing"]["budget_usd"] == []
    shared.manage("PATCH", f"/manage/projects/{made['id']}", {"active": False})
    assert Applied(shared, "projects: [{name: Changing}]").plan == ["~ update project Changing  active: false -> true"]
    keyed = "projects: [{name: Changing, api_key: 'env:OPENAI_API_KEY', api_keys: {anthropic: 'env:OTHER_API_KEY'}}]"
    assert len(Applied(shared, keyed).plan) == 1
    assert not Applied(shared, keyed).plan


def test_pruning(shared: Stack) -> None:
    """Nothing goes without --prune; with it all that is not named, and then nothing more."""
    whole = "groups: [{name: A}, {name: B, parent: A}]\n" + (
        "projects: [{name: P, group: B, tokens: [{name: x}, {name: y}]}, {name: Q, group: A}]"
    )
    Applied(shared, whole)
    less = (
        "groups: [{name: A}]\nprojects: [{name: Q, tokens: []}, {name: P, group: A, tokens: [{name: x}]}, {name: Team}]"
    )
    kept = Applied(shared, less)
    assert kept.plan == ["~ update project P  group: B -> A"]
    pruned = Applied(shared, less, "--prune")
    assert all(line.startswith("- ") for line in pruned.plan)
    assert "- revoke token P/y" in pruned.plan
    assert "- delete group B" in pruned.plan
    assert "- deactivate project Search" in pruned.plan or "Search" not in all_of(shared, "projects")
    assert set(all_of(shared, "groups")) == {"A"}
    assert not Applied(shared, less, "--prune").plan
    assert Applied(shared, "projects: [{name: Q}, {name: Team}]", "--prune").plan == ["- deactivate project P"]


def test_the_secrets_file(shared: Stack) -> None:
    """New tokens go there and nowhere else; one that others can read takes none, and then none is issued."""
    file = shared.home / "secrets.jsonl"
    text = "projects: [{name: Secret, tokens: [{name: one}]}]"
    found = Applied(shared, text, "--secrets-file", str(file), "--output", "json")
    (token,) = map(json.loads, file.read_text().splitlines())
    assert (token["project"], token["name"], token["token"][:6]) == ("Secret", "one", "sk-lp-")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token["token"] not in found.out + found.err
    said = json.loads(found.out)
    assert (said["applied"], said["dry_run"], [each["name"] for each in said["tokens"]]) == (2, False, ["one"])
    more = text.replace("{name: one}", "{name: one}, {name: two}")
    file.chmod(0o644)
    refused = Applied(shared, more, "--secrets-file", str(file), code=78)
    assert "chmod 600" in refused.err
    file.chmod(0o600)
    Applied(shared, more, "--secrets-file", str(file))
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 78, "must have groups or projects"),
        ("projects: {name: x}", 78, "must be a list"),
        ("projects: [{nam: x}]", 78, "has a name"),
        ("projects:\n- name: x\n  colour: red", 78, "declared.yaml:3:3: projects[0].colour: is no field"),
        ("projects: [{name: x}, {name: x}]", 78, "another project"),
        ("groups: [{name: x, parent: y}, {name: y, parent: x}]", 78, "below itself"),
        ("tokens: [{name: x}]", 78, "is unknown"),
        ("projects: [{name: x, group: nowhere}]", 1, "no group nowhere"),
        ("projects: [{name: x, requests_per_minute: -1}]", 78, "create project x"),
        ("projects: [{name: x, budget_usd: 5/week}]", 78, "create project x: The body is not valid: budget_usd"),
        (
            "projects: [{name: x, tokens: [{name: y, expires_in: 5}]}]",
            78,
            "create token y: The body is not valid: expi",
        ),
        ("projects: [{name: x, apis: [nope]}]", 78, "names an API that is not configured"),
        (
            "projects: [{name: Team, api_keys: {nope: 'env:X'}}]",
            78,
            "update project Team: The body is not valid: api_k",
        ),
        ("projects: [{name: '${HOME}'}]", 78, "projects[0].name: must be plain: variables are not replaced here"),
        ("projects: [{name: x, group: '${HOME:-x}'}]", 78, "projects[0].group: must be the name of a group"),
        ("projects: [{name: x", 78, "declared.yaml:1"),
    ],
)
def test_faults(shared: Stack, text: str, code: int, said: str) -> None:
    """What is wrong is named, and nothing is changed."""
    before = all_of(shared, "projects")
    assert said in Applied(shared, text, code=code).err
    if text:
        assert said in Applied(shared, text, "--dry-run", code=code).err
    assert all_of(shared, "projects") == before


def test_a_key_in_the_file(shared: Stack) -> None:
    """A provider key belongs elsewhere, and is not repeated."""
    found = Applied(shared, "projects: [{name: x, api_keys: {openai: sk-very-secret-key}}]", code=78)
    assert "must be a reference" in found.err
    assert "very-secret" not in found.err + found.out


def test_names_that_several_have(shared: Stack) -> None:
    """Which one is meant is not guessed."""
    ids = [shared.manage("POST", "/manage/projects", {"name": "Twin"})["id"] for _ in range(2)]
    said = Applied(shared, "projects: [{name: Twin, requests_per_minute: 1}]", code=1).err
    assert all(each in said for each in ids)
