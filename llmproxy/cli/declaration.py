"""What a file declares that there is to be: groups, projects, and their tokens, each by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmproxy.config import yaml
from llmproxy.config.problems import Path, Problem, SettingsError

REFERENCE = re.compile(r"[a-z][a-z0-9_-]*:[\x21-\x7e]+")
SECTIONS = ("groups", "projects")
_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Declared:
    """One thing that is to be there.

    @ivar owner: The name of a group's parent, of a project's group, or of a token's project; C{None} where nothing is
        said, C{""} where it is to belong to none.
    @ivar fields: What else is said of it, as the management API has it.
    """

    kind: str
    name: str
    owner: str | None
    fields: Mapping[str, Any]


@dataclass
class Declaration:
    """All of a file.

    @ivar groups: Each behind its parent, where that is declared too.
    @ivar with_tokens: The projects whose tokens are declared, be it that there are none.
    """

    groups: list[Declared] = field(default_factory=list)
    projects: list[Declared] = field(default_factory=list)
    tokens: list[Declared] = field(default_factory=list)
    sections: frozenset[str] = frozenset()
    with_tokens: frozenset[str] = frozenset()


def read_declaration(text: str, file: str, known: Mapping[str, Collection[str]]) -> Declaration:
    """What the text declares; L{SettingsError} with all that is wrong with it, each with its line.

    @param known: The fields that a C{group}, a C{project} and a C{token} may be given.
    """
    return _Reader(yaml.read(text, file, _EveryVariable()), known).all()


class _EveryVariable(dict[str, str]):
    """An environment in which all are set: what stands for one is refused, whether it is or not."""

    def get(self, name: str, default: Any = None) -> Any:
        return "set"


class _Reader:
    def __init__(self, document: yaml.Document, known: Mapping[str, Collection[str]]) -> None:
        self._document = document
        self._known = known
        self._problems = list(document.problems)

    def all(self) -> Declaration:
        tree = self._document.tree
        if not self._problems and not (isinstance(tree, dict) and tree):
            self._fail((), "must have groups or projects")
        if self._problems:
            raise SettingsError(self._problems)
        for name in tree.keys() - set(SECTIONS):
            self._fail((name,), f"is unknown (known: {', '.join(SECTIONS)})")
        found = Declaration(sections=frozenset(tree.keys() & set(SECTIONS)))
        found.groups = self._in_order(self._items(tree, ("groups",), "group", "parent"))
        found.projects = self._items(tree, ("projects",), "project", "group")
        with_tokens = []
        for index, project in enumerate(tree.get("projects") or ()):
            if isinstance(project, dict) and isinstance(project.get("name"), str) and "tokens" in project:
                with_tokens.append(project["name"])
                found.tokens += self._items(project, ("projects", index, "tokens"), "token", "", project["name"])
        found.with_tokens = frozenset(with_tokens)
        if self._problems:
            raise SettingsError(self._problems)
        return found

    def _items(self, tree: Mapping[str, Any], path: Path, kind: str, owner: str, of: str = "") -> list[Declared]:
        items = tree.get(str(path[-1]))
        if not isinstance(items, list):
            if items is not None:
                self._fail(path, "must be a list")
            return []
        found = [self._item(item, (*path, at), kind, owner, of) for at, item in enumerate(items)]
        names = [each.name for each in found if each is not None]
        for at, each in enumerate(found):
            if each is not None and each.name in names[:at]:
                self._fail((*path, at), f"there is another {kind} of the name {each.name}")
        return [each for each in found if each is not None]

    def _item(self, item: Any, path: Path, kind: str, owner: str, of: str) -> Declared | None:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
            self._fail(path, "must be a mapping that has a name")
            return None
        before = len(self._problems)
        for name, value in item.items():
            if name != owner and not (kind == "project" and name == "tokens"):
                self._field(name, value, (*path, name), kind)
        belongs = item.get(owner, "") if owner in item else None
        if owner and belongs is not None and not (_plain(belongs) and isinstance(belongs, str)):
            self._fail((*path, owner), "must be the name of a group, or left out")
        if len(self._problems) > before:
            return None
        fields = {name: _written(name, value) for name, value in item.items() if name not in ("name", owner, "tokens")}
        return Declared(kind, item["name"], of if not owner else belongs, fields)

    def _field(self, name: str, value: Any, path: Path, kind: str) -> None:
        if name not in self._known[kind]:
            self._fail(path, f"is no field of a {kind} (known: {', '.join(sorted(self._known[kind]))})")
        elif not _plain(value):
            self._fail(path, "must be plain: variables are not replaced here")
        elif name in ("api_key", "api_keys"):
            for api, keys in value.items() if isinstance(value, dict) else (("", value),):
                if not all(key is None or _is_reference(key) for key in (keys if isinstance(keys, list) else [keys])):
                    # It is not repeated: it may be the key itself.
                    self._fail((*path, api) if api else path, "must be a reference (env:NAME, file:/path), no key")

    def _in_order(self, groups: list[Declared]) -> list[Declared]:
        """Each behind its parent."""
        waiting, done = list(groups), list[Declared]()
        names = {group.name for group in groups}
        while waiting:
            ready = [g for g in waiting if g.owner not in names - {each.name for each in done}]
            if not ready:
                self._fail(("groups",), f"{waiting[0].name} is below itself")
                break
            done += ready
            waiting = [group for group in waiting if group not in ready]
        return done

    def _fail(self, path: Path, message: str) -> None:
        self._problems.append(Problem.at(self._document.place(path), path, message))


def _is_reference(key: Any) -> bool:
    return isinstance(key, str) and REFERENCE.fullmatch(key) is not None


def _written(name: str, value: Any) -> Any:
    """A budget and what a policy compares as text, as the management API has it: C{3} is a number to YAML."""
    if name in ("param_whitelist", "header_values") and isinstance(value, dict):
        return {each: [_glob(glob) for glob in globs] if isinstance(globs, list) else globs
                for each, globs in value.items()}  # fmt: skip
    if not name.startswith(("budget_", "soft_budget_")) or value is None:
        return value
    return [str(each) for each in (value if isinstance(value, list) else [value])]


def _glob(value: Any) -> Any:
    """What a parameter's value is compared with: as JSON writes it."""
    return json.dumps(value) if isinstance(value, bool | int | float) else value


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_plain, value.values()))
    return all(map(_plain, value)) if isinstance(value, list) else type(value) in _SCALARS
