"""Groups of projects through the daemon: limits for all below them together, whichever process counts."""

from __future__ import annotations

import json
import time
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
EXHAUSTING_SECONDS = 8.0
SHORT_WAIT = 5.0  # seconds; until others give back what they hold, and not until the next day
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


class Hierarchy:
    """An organisation, two teams and their four projects, each with a budget of its own.

    @ivar budgets: In dollars, by whose they are; C{of_projects}, C{of_teams}: what was spent, by the responses.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.budgets = {"organisation": 0.09, "team 0": 0.05, "team 1": 0.06, "project": 0.03}
        self.organisation = group(stack, "Organisation", budget_usd=f"{self.budgets['organisation']}/day")
        self.teams = [
            group(stack, f"Team {n}", self.organisation, budget_usd=f"{self.budgets[f'team {n}']}/day")
            for n in range(2)
        ]
        budget = f"{self.budgets['project']}/day"
        self.waits: dict[int, float] = {}  # seconds that a project was told to wait, the last time
        self.projects = [project(stack, self.teams[n % 2], budget_usd=budget) for n in range(4)]

    def spend(self, requests: int) -> None:
        """So many at once; no budget may be overspent."""
        with ThreadPoolExecutor(requests) as many:
            answers = list(many.map(self._ask, range(requests)))
        with ThreadPoolExecutor(4) as some:
            for further in some.map(self._exhaust, range(4)):
                answers += further
        statuses = [status for _, status, _, _ in answers]
        assert set(statuses) == {200, 429}
        self.of_projects = [sum(spent for of, _, spent, _ in answers if of == each) for each in range(4)]
        self.of_teams = [
            self.of_projects[0] + self.of_projects[2],
            self.of_projects[1] + self.of_projects[3],
        ]
        served, refused = statuses.count(200), statuses.count(429)
        self.figures = (
            f"{requests} at once and {len(statuses) - requests} after: {served} served, {refused} refused; spent: "
            f"organisation {sum(self.of_teams):.6f} of {self.budgets['organisation']}, teams {self.of_teams[0]:.6f} of "
            f"{self.budgets['team 0']} and {self.of_teams[1]:.6f} of {self.budgets['team 1']}, projects "
            f"{', '.join(f'{spent:.6f}' for spent in self.of_projects)} of {self.budgets['project']} each"
        )
        assert 0 < sum(self.of_projects) <= self.budgets["organisation"], self.figures
        assert all(spent <= self.budgets["project"] for spent in self.of_projects), self.figures
        assert all(spent <= self.budgets[f"team {n}"] for n, spent in enumerate(self.of_teams)), self.figures
        assert any('the group "' in message for *_, message in answers)

    def _exhaust(self, number: int) -> list[tuple[int, int, float, str]]:
        """Spend what is given back of what was held for the worst, as one client that waits as it is told to."""
        answers = []
        until = time.monotonic() + EXHAUSTING_SECONDS
        while time.monotonic() < until:
            answers.append(self._ask(number))
            if answers[-1][1] == 429:
                if self.waits[number] > SHORT_WAIT:
                    break
                time.sleep(self.waits[number])
        return answers

    def _ask(self, number: int) -> tuple[int, int, float, str]:
        answer = self.stack.ask("POST", CHAT, BODY, {"X-Sim-Events": "60"}, token=self.projects[number % 4][1])
        if answer.status == 200:
            return number % 4, 200, cost(answer.json["usage"]), ""
        self.waits[number % 4] = float(answer.header("retry-after") or 0)
        return number % 4, answer.status, 0.0, str(answer.json["error"]["message"])

    def is_counted(self) -> bool:
        """Whether what is counted in the end is what was spent."""
        names = [("groups", self.organisation), *(("groups", team) for team in self.teams)]
        names += [("projects", name) for name, _ in self.projects]
        shown = [used(self.stack, kind, name)["budget_usd"] for kind, name in names]
        spent = [sum(self.of_teams), *self.of_teams, *self.of_projects]
        return [round(each, 9) for each in shown] == [round(each, 9) for each in spent]

    def is_reported(self) -> bool:
        """Whether usage by groups has the same."""
        rows = self.stack.manage("GET", "/manage/usage?group_by=group&limit=1000")["data"]
        reported = {row["group_id"]: round(row["cost_usd"], 9) for row in rows}
        return [reported.get(team) for team in self.teams] == [round(spent, 9) for spent in self.of_teams]


@pytest.mark.long("7 s: three budgets of a tree hold under load of several processes")
def test_three_budgets_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """500 requests at once on four workers: nothing is ever spent above any budget of three levels, and what is
    counted in the end is what was spent."""
    with WorkerStack(tmp_path, 4) as stack:
        hierarchy = Hierarchy(stack)
        hierarchy.spend(REQUESTS)
        eventually(hierarchy.is_counted, PATIENCE)
        eventually(hierarchy.is_reported, PATIENCE)
    with capsys.disabled():
        print(f"\non SQLite, {hierarchy.figures}")


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


@pytest.mark.long("1 s: of groups, as of tokens")
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
