"""Groups of projects through the daemon: limits for all below them together, whichever process counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support.stack import Stack, eventually
from tests.support.workers import WorkerStack

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "max_tokens": 400, "messages": [{"role": "user", "content": "x" * 200}]}).encode()
REQUESTS = 500
PATIENCE = 60.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("groups")) as stack:
        yield stack


def group(stack: Stack, name: str, parent: str | None = None, **limits: Any) -> str:
    made = stack.manage("POST", "/manage/groups", {"name": name, "parent_id": parent, **limits})
    return str(made["id"])


def project(stack: Stack, group_id: str | None, **limits: Any) -> tuple[str, str]:
    """A project in a group, and a token of it."""
    body = {"name": "In a group", "api_keys": dict(stack.keys), "group_id": group_id, **limits}
    made = stack.manage("POST", "/manage/projects", body)
    assert made["group_id"] == group_id
    token = stack.manage("POST", "/manage/tokens", {"project_id": made["id"]})["token"]
    return str(made["id"]), str(token)


def refused(stack: Stack, method: str, path: str, body: object = None) -> int:
    with pytest.raises(HTTPError) as raised:
        stack.manage(method, path, body)
    with raised.value as answer:
        return answer.code


def used(stack: Stack, kind: str, name: str) -> dict[str, float]:
    limits = stack.manage("GET", f"/manage/{kind}/{name}")["limits"]
    return {each["limit"]: each["used"] for each in limits}


def cost(usage: dict[str, int]) -> float:
    return (usage["prompt_tokens"] * 2.5 + usage["completion_tokens"] * 10) / 1e6


@pytest.mark.long("7 s: three budgets of a tree hold under load of several processes")
def test_three_budgets_under_load(tmp_path: Path) -> None:
    """An organisation, two teams and their projects, each with a budget of its own, 500 requests at once on four
    workers: nothing is ever spent above any, and what is counted in the end is what was spent."""
    with WorkerStack(tmp_path, 4) as stack:
        budgets = {"organisation": 0.06, "team 0": 0.04, "team 1": 0.025, "project": 0.03}
        organisation = group(stack, "Organisation", budget_usd=f"{budgets['organisation']}/day")
        teams = [group(stack, f"Team {n}", organisation, budget_usd=f"{budgets[f'team {n}']}/day") for n in range(2)]
        projects = [project(stack, teams[n % 2], budget_usd=f"{budgets['project']}/day") for n in range(4)]

        def ask(number: int) -> tuple[int, int, float, str]:
            answer = stack.ask("POST", CHAT, BODY, {"X-Sim-Events": "60"}, token=projects[number % 4][1])
            if answer.status == 200:
                return number % 4, 200, cost(answer.json["usage"]), ""
            return number % 4, answer.status, 0.0, str(answer.json["error"]["message"])

        with ThreadPoolExecutor(REQUESTS) as many:
            answers = list(many.map(ask, range(REQUESTS)))
        assert {status for _, status, _, _ in answers} == {200, 429}
        of_projects = [sum(spent for of, _, spent, _ in answers if of == each) for each in range(4)]
        of_teams = [of_projects[0] + of_projects[2], of_projects[1] + of_projects[3]]
        assert 0 < sum(of_projects) <= budgets["organisation"]
        assert all(spent <= budgets["project"] for spent in of_projects)
        assert all(spent <= budgets[f"team {n}"] for n, spent in enumerate(of_teams))
        assert any('the group "' in message for *_, message in answers)

        def counted() -> bool:
            shown = [used(stack, "groups", organisation), *(used(stack, "groups", team) for team in teams)]
            return [round(each["budget_usd"], 9) for each in shown] == [
                round(spent, 9) for spent in (sum(of_teams), *of_teams)
            ]

        stack.daemon.stop()
        stack.daemon = stack.another("afterwards")
        with stack.daemon:
            eventually(counted, PATIENCE)
            rows = stack.manage("GET", "/manage/usage?group_by=group")["data"]
            assert {row["group_id"]: round(row["cost_usd"], 9) for row in rows if row["group_id"]} == {
                team: round(spent, 9) for team, spent in zip(teams, of_teams, strict=True)
            }


def test_the_level_is_named(shared: Stack) -> None:
    """The code is as for any limit; whose it is is in the message; nothing is taken of the other levels."""
    company = group(shared, "Company", requests_per_minute=1000)
    team = group(shared, "Search", company, requests_per_minute=2)
    _, first = project(shared, team)
    _, second = project(shared, team)
    statuses = [shared.ask("POST", CHAT, BODY, token=token).status for token in (first, second, first, second)]
    assert statuses == [200, 200, 429, 429]
    answer = shared.ask("POST", CHAT, BODY, token=first)
    assert answer.json["error"]["code"] == "rate_limit_exceeded"
    assert 'The group "Search" is limited to 2 requests per minute.' in answer.json["error"]["message"]
    assert used(shared, "groups", company) == {"requests_per_minute": 2}
    poor = group(shared, "Poor", company, budget_usd="0.000001/day")
    _, token = project(shared, poor)
    answer = shared.ask("POST", CHAT, BODY, token=token)
    assert (answer.status, answer.json["error"]["code"]) == (429, "budget_exceeded")
    assert 'the group "Poor"\'s budget' in answer.json["error"]["message"]


def test_a_change_holds_at_once_and_elsewhere(shared: Stack) -> None:
    """On the fast path too: a limit that is set, a project that is moved."""
    team = group(shared, "Changing")
    project_id, token = project(shared, team)
    with shared.another("second") as other:
        for _ in range(4):
            assert shared.ask("POST", CHAT, BODY, token=token).status == 200
            assert shared.ask("POST", CHAT, BODY, token=token, port=other.port).status == 200
        shared.manage("PATCH", f"/manage/groups/{team}", {"budget_usd": "0.000001/day"})
        assert shared.ask("POST", CHAT, BODY, token=token).status == 429
        eventually(lambda: shared.ask("POST", CHAT, BODY, token=token, port=other.port).status == 429, PATIENCE)
        shared.manage("PATCH", f"/manage/projects/{project_id}", {"group_id": None})
        assert shared.ask("POST", CHAT, BODY, token=token).status == 200
        eventually(lambda: shared.ask("POST", CHAT, BODY, token=token, port=other.port).status == 200, PATIENCE)


def test_what_a_killed_process_spent(tmp_path: Path) -> None:
    """Is charged to the group's budget, no more and no less, once another has found its journal."""
    with Stack(tmp_path) as stack:
        top = group(stack, "Top", budget_usd="1/day")
        _, token = project(stack, group(stack, "Below", top))
        answers = [stack.ask("POST", CHAT, BODY, {"X-Sim-Events": "9"}, token=token) for _ in range(5)]
        spent = sum(cost(answer.json["usage"]) for answer in answers)
        stack.daemon.kill()
        stack.daemon = stack.another("second")
        with stack.daemon:
            eventually(lambda: round(used(stack, "groups", top)["budget_usd"], 9) == round(spent, 9), PATIENCE)


def test_a_tree(shared: Stack) -> None:
    """What cannot be: a circle, a parent that there is not, too many levels, a group with something in it removed."""
    first = group(shared, "First")
    second = group(shared, "Second", first)
    assert refused(shared, "PATCH", f"/manage/groups/{first}", {"parent_id": second}) == 422
    assert refused(shared, "PATCH", f"/manage/groups/{first}", {"parent_id": first}) == 422
    assert refused(shared, "POST", "/manage/groups", {"name": "x", "parent_id": "nothing"}) == 422
    assert refused(shared, "POST", "/manage/projects", {"name": "x", "group_id": "nothing"}) == 422
    assert refused(shared, "DELETE", f"/manage/groups/{first}") == 409
    below = second
    for level in range(6):
        below = group(shared, f"Level {level}", below)
    assert refused(shared, "POST", "/manage/groups", {"name": "too deep", "parent_id": below}) == 422
    above = group(shared, "Above")
    assert refused(shared, "PATCH", f"/manage/groups/{first}", {"parent_id": above}) == 422
    shared.manage("PATCH", f"/manage/groups/{second}", {"parent_id": None})
    shared.manage("DELETE", f"/manage/groups/{first}")
    assert refused(shared, "GET", f"/manage/groups/{first}") == 404
    actions = [each["action"] for each in shared.manage("GET", "/manage/audit?action=group.delete")["data"]]
    assert actions and set(actions) == {"group.delete"}


def test_who_is_bound_to_projects(shared: Stack) -> None:
    """Sees no groups, and moves no project out of the reach of a budget."""
    team = group(shared, "Guarded", budget_usd="1/day")
    project_id, _ = project(shared, team)
    key = shared.manage("POST", "/manage/keys", {"name": "lead", "role": "admin", "projects": [project_id]})["key"]
    headers = {"Content-Type": "application/json"}
    move = json.dumps({"group_id": None}).encode()
    assert shared.ask("PATCH", f"/manage/projects/{project_id}", move, headers, token=key).status == 403
    assert shared.ask("GET", "/manage/groups", token=key).status == 403
    assert shared.manage("GET", f"/manage/projects/{project_id}")["group_id"] == team
