"""What must change so that all is there that is declared: decided before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_network
from typing import Any

from llmproxy.base import budgets
from llmproxy.cli.declaration import Declaration, Declared
from llmproxy.model import Budget

Thing = Mapping[str, Any]
OWNER_FIELDS = {"group": "parent_id", "project": "group_id", "token": "project_id"}
ONCE = ("expires_in", "duration_minutes")  # spans that begin when a token is created: nothing to compare them with


class CannotPlan(Exception):
    """What is declared does not fit what is there."""


@dataclass(frozen=True)
class Change:
    """One call to make.

    @ivar action: C{create}, C{update}, or C{remove}: revoke a token, deactivate a project, delete a group.
    @ivar owner: The name of the group or the project that it is to belong to, as in L{Declared}; C{None}: as it is.
    @ivar fields: What is sent; C{before}: what these were.
    """

    action: str
    kind: str
    name: str
    id: str = ""
    owner: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Present:
    """What the daemon has.

    @ivar tokens: By the id of their project.
    """

    groups: Sequence[Thing]
    projects: Sequence[Thing]
    tokens: Mapping[str, Sequence[Thing]]
    default_api: str
    apis: frozenset[str] = frozenset()


def plan(declared: Declaration, present: Present, prune: bool) -> list[Change]:
    """The changes, in an order in which they can be made; L{CannotPlan} where a name means several things."""
    groups, projects = _by_name(present.groups, "group"), _active_by_name(present.projects)
    names = {group["id"]: group["name"] for group in present.groups}
    for each in (*declared.groups, *declared.projects):
        if each.owner and each.owner not in groups and each.owner not in {group.name for group in declared.groups}:
            raise CannotPlan(f"{each.kind} {each.name}: there is no group {each.owner}, and none is declared.")
    changes = [change for each in declared.groups for change in _change(each, groups.get(each.name), names)]
    for each in declared.projects:
        wanted = Declared(each.kind, each.name, each.owner, _with_keys(each.fields, present.default_api))
        changes += _change(wanted, projects.get(each.name), names)
    for each in declared.tokens:
        project = projects.get(each.owner or "")
        tokens = _by_name(_usable(present.tokens.get(project["id"], ())), "token") if project is not None else {}
        changes += _change(each, tokens.get(each.name), {})
    return [*changes, *(_removals(declared, present, projects) if prune else ())]


def _change(wanted: Declared, there: Thing | None, groups: Mapping[str, str]) -> Iterable[Change]:
    if there is None:
        yield Change("create", wanted.kind, wanted.name, owner=wanted.owner or None, fields=_given(wanted.fields))
        return
    fields: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for name, value in wanted.fields.items():
        if name == "api_keys":
            keys = {api: key for api, key in value.items() if not same(name, key, there["api_keys"].get(api))}
            if keys:
                fields[name], before[name] = keys, {api: there["api_keys"].get(api) for api in keys}
        elif name not in ONCE and not same(name, value, there.get(name)):
            fields[name], before[name] = _nothing(there.get(name)) if value is None else value, there.get(name)
    if wanted.kind == "project" and "active" not in wanted.fields and not there["active"]:
        fields["active"], before["active"] = True, False
    owner = None
    if wanted.kind != "token" and wanted.owner is not None:
        current = groups.get(there[OWNER_FIELDS[wanted.kind]] or "", "")
        owner = wanted.owner if wanted.owner != current else None
        before = {**before, **({"group": current or None} if owner is not None else {})}
    if fields or owner is not None:
        yield Change("update", wanted.kind, wanted.name, there["id"], owner, fields, before)


def _removals(declared: Declaration, present: Present, projects: Mapping[str, Thing]) -> Iterable[Change]:
    """Of what is there and not declared: tokens of projects whose tokens are, projects; groups, those below first."""
    wanted = {name: {each.name for each in declared.tokens if each.owner == name} for name in declared.with_tokens}
    for name, tokens in wanted.items():
        if name in projects:
            for token in _usable(present.tokens.get(projects[name]["id"], ())):
                if token["name"] not in tokens:
                    yield Change("remove", "token", f"{name}/{token['name'] or token['id']}", token["id"])
    doomed: set[str] = set()
    if "groups" in declared.sections:
        doomed = {g["id"] for g in present.groups if g["name"] not in {each.name for each in declared.groups}}
    if "projects" in declared.sections:
        names = {each.name for each in declared.projects}
        for project in present.projects:
            if project["name"] in names:
                continue
            leaves = {"group_id": None} if project["group_id"] in doomed else {}
            if project["active"] or leaves:
                yield Change("remove", "project", project["name"], project["id"], fields={"active": False, **leaves})
    below = [group for group in present.groups if group["id"] in doomed]
    while below:
        parents = {group["parent_id"] for group in below}
        leaves_of_tree = [group for group in below if group["id"] not in parents]
        for group in leaves_of_tree or below:
            yield Change("remove", "group", group["name"], group["id"])
        below = [group for group in below if leaves_of_tree and group not in leaves_of_tree]


def same(name: str, wanted: Any, there: Any) -> bool:
    """Whether a field is already as it is to be, however it is written."""
    if wanted is None or wanted in ([], {}, ""):
        return not there
    try:
        if name in ("budget_usd", "soft_budget_usd"):
            return _budgets(wanted, budgets.usd) == _budgets(there or [], budgets.usd)
        if name in ("budget_tokens", "soft_budget_tokens"):
            return _budgets(wanted, budgets.tokens) == _budgets(there or [], budgets.tokens)
        if name == "ips":
            return [ip_network(each) for each in wanted] == [ip_network(each) for each in there or ()]
        if name == "expires_at":
            return bool(there) and datetime.fromisoformat(wanted) == datetime.fromisoformat(there)
    except (ValueError, TypeError):
        return False  # the daemon says what is wrong with it
    if name == "labels" and isinstance(wanted, list):
        return bool(list(dict.fromkeys(map(str, wanted))) == there)
    if isinstance(wanted, list) and len(wanted) == 1 and isinstance(there, str):
        return bool(wanted[0] == there)  # one key
    return bool(wanted == there)


def _nothing(there: Any) -> Any:
    """How the API has it that a field of this kind is lifted."""
    return type(there)() if isinstance(there, list | dict) else None


def _budgets(given: Any, read: Callable[[str], Budget]) -> tuple[Budget, ...]:
    return budgets.each_once(map(read, [str(each) for each in (given if isinstance(given, list) else [given])]))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What is said, without what is to be none."""
    keys = {api: key for api, key in fields.get("api_keys", {}).items() if key is not None}
    given = {name: value for name, value in fields.items() if value is not None and name != "api_keys"}
    return {**given, "api_keys": keys} if keys else given


def _with_keys(fields: Mapping[str, Any], default_api: str) -> dict[str, Any]:
    """The same with C{api_key} as the default API's."""
    keys = {**(fields.get("api_keys") or {}), **({default_api: fields["api_key"]} if "api_key" in fields else {})}
    others = {name: value for name, value in fields.items() if name not in ("api_key", "api_keys")}
    return {**others, "api_keys": keys} if keys else others


def _usable(tokens: Iterable[Thing]) -> list[Thing]:
    """Those that were not revoked."""
    return [token for token in tokens if token["active"]]


def _active_by_name(projects: Sequence[Thing]) -> dict[str, Thing]:
    """Each name's project: the active one, else the one that was deactivated."""
    active = [project for project in projects if project["active"]]
    names = {project["name"] for project in active}
    return _by_name([*active, *(p for p in projects if p["name"] not in names)], "project")


def _by_name(things: Iterable[Thing], kind: str) -> dict[str, Thing]:
    found: dict[str, Thing] = {}
    twice: dict[str, list[str]] = {}
    for thing in things:
        if thing["name"] in found:
            twice.setdefault(thing["name"], [found[thing["name"]]["id"]]).append(thing["id"])
        found[thing["name"]] = thing
    return _Names(found, kind, twice)


class _Names(dict[str, Thing]):
    """Things by their names; L{CannotPlan} where one is looked for that several have."""

    def __init__(self, found: Mapping[str, Thing], kind: str, twice: Mapping[str, Sequence[str]]) -> None:
        super().__init__(found)
        self._kind, self._twice = kind, twice

    def get(self, name: str, default: Any = None) -> Any:
        if name in self._twice:
            ids = ", ".join(self._twice[name])
            raise CannotPlan(f"Several {self._kind}s have the name {name} ({ids}): rename all but one.")
        return super().get(name, default)
