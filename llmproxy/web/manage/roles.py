"""Who may do what: the roles, and the least role of every operation, in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from llmproxy.errors import NotFound
from llmproxy.errors.challenges import INSUFFICIENT_SCOPE
from llmproxy.errors.management import RoleNotAllowed
from llmproxy.management_key import Role

RANKS: Mapping[Role, int] = {"viewer": 0, "operator": 1, "admin": 2}


class Scope(Enum):
    """How an operation relates to projects, which decides what somebody bound to some of them may do with it."""

    GENERAL = "nothing of any project: whoever has the role"
    PROJECT = "the path's id is a project's"
    TOKEN = "the path's id is a token's"
    FILTERED = "the operation itself keeps to the projects of its caller"
    WHOLE = "all projects at once, or the process: nobody who is bound"


class AccessRule(NamedTuple):
    """The least role that an operation takes, and how it relates to projects."""

    role: Role
    scope: Scope


LEAST_ROLES: Mapping[str, AccessRule] = {
    "list_projects": AccessRule("viewer", Scope.FILTERED),
    "create_project": AccessRule("operator", Scope.WHOLE),
    "get_project": AccessRule("viewer", Scope.PROJECT),
    "update_project": AccessRule("operator", Scope.PROJECT),
    "deactivate_project": AccessRule("operator", Scope.PROJECT),
    "revoke_project_tokens": AccessRule("operator", Scope.PROJECT),
    "report_project_usage": AccessRule("viewer", Scope.PROJECT),
    "list_tokens": AccessRule("viewer", Scope.FILTERED),
    "create_token": AccessRule("operator", Scope.FILTERED),
    "get_token": AccessRule("viewer", Scope.TOKEN),
    "update_token": AccessRule("operator", Scope.TOKEN),
    "revoke_token": AccessRule("operator", Scope.TOKEN),
    "rotate_token": AccessRule("operator", Scope.TOKEN),
    "report_usage": AccessRule("viewer", Scope.FILTERED),
    "get_cache": AccessRule("viewer", Scope.WHOLE),
    "purge_cache": AccessRule("operator", Scope.FILTERED),
    "report_activity": AccessRule("viewer", Scope.FILTERED),
    "report_most_active": AccessRule("viewer", Scope.FILTERED),
    "list_requests": AccessRule("viewer", Scope.FILTERED),
    "get_request": AccessRule("viewer", Scope.FILTERED),
    "list_groups": AccessRule("viewer", Scope.WHOLE),
    "create_group": AccessRule("operator", Scope.WHOLE),
    "get_group": AccessRule("viewer", Scope.WHOLE),
    "update_group": AccessRule("operator", Scope.WHOLE),
    "delete_group": AccessRule("operator", Scope.WHOLE),
    "list_keys": AccessRule("admin", Scope.WHOLE),
    "create_key": AccessRule("admin", Scope.WHOLE),
    "get_key": AccessRule("admin", Scope.WHOLE),
    "revoke_key": AccessRule("admin", Scope.WHOLE),
    "list_subjects": AccessRule("viewer", Scope.WHOLE),
    "revoke_subject": AccessRule("operator", Scope.WHOLE),
    "restore_subject": AccessRule("operator", Scope.WHOLE),
    "list_upstreams": AccessRule("viewer", Scope.WHOLE),
    "update_upstream": AccessRule("operator", Scope.WHOLE),
    "get_logging": AccessRule("viewer", Scope.WHOLE),
    "update_logging": AccessRule("admin", Scope.WHOLE),
    "list_settings": AccessRule("admin", Scope.WHOLE),
    "verify_audit": AccessRule("operator", Scope.WHOLE),
    "reload_settings": AccessRule("admin", Scope.WHOLE),
    "list_apis": AccessRule("viewer", Scope.GENERAL),
    "list_alerts": AccessRule("viewer", Scope.FILTERED),
    "list_audit": AccessRule("operator", Scope.FILTERED),
    "get_version": AccessRule("viewer", Scope.GENERAL),
    "get_openapi": AccessRule("viewer", Scope.GENERAL),
    "list_sessions": AccessRule("admin", Scope.WHOLE),
    "end_session": AccessRule("admin", Scope.WHOLE),
    "get_metrics": AccessRule("viewer", Scope.WHOLE),  # /metrics, where it asks for a credential
}
UNLISTED = AccessRule("admin", Scope.WHOLE)  # what is in no table is for those only who may do anything


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has signed in.

    @ivar name: What people call it; C{actor} is what the audit log calls it.
    @ivar projects: The only ones that it sees and changes; C{None} for all.
    """

    name: str
    role: Role
    projects: tuple[str, ...] | None = None
    actor: str = "management"

    def may(self, action: str, project: str | None = None) -> bool:
        """Whether it may do this.

        @param action: An operation's name, as in L{LEAST_ROLES} and as C{operationId} in the OpenAPI document.
        @param project: With what belongs to this project; C{None}: with anything at all.
        """
        rule = LEAST_ROLES.get(action, UNLISTED)
        if RANKS[self.role] < RANKS[rule.role]:
            return False
        if self.projects is None or rule.scope is Scope.GENERAL:
            return True
        return rule.scope is not Scope.WHOLE and (project is None or project in self.projects)

    def require(self, action: str) -> None:
        """L{RoleNotAllowed} where it may do this with nothing at all."""
        if not self.may(action):
            least = LEAST_ROLES.get(action, UNLISTED)
            of_all = ", of all projects" if least.scope is Scope.WHOLE else ""
            said = f"This takes the role {least.role} or above{of_all}; yours is {self.role}."
            raise RoleNotAllowed(said, headers=INSUFFICIENT_SCOPE)

    def sees(self, project: str) -> bool:
        """Whether what belongs to this project is there for it."""
        return self.projects is None or project in self.projects

    def narrowed(self, project: str | None) -> tuple[str, ...] | None:
        """Of which projects a list has something, where it was asked for one of them, or for all; C{None}: of all."""
        if project is None:
            return self.projects
        return (project,) if self.sees(project) else ()

    @property
    def audit_name(self) -> str:
        """What the audit log says beside C{actor}, which is an id that says nothing to people."""
        return "" if self.actor == BOOTSTRAP.actor else self.name

    @property
    def manages_projects(self) -> bool:
        """Whether it may change more of its projects than their limits: names, provider keys, activity."""
        return self.projects is None or self.role == "admin"

    def as_json(self) -> str:
        """What remains of it where nobody but an identity provider knows it: L{principal_from_json} reads that."""
        return json.dumps({"name": self.name, "role": self.role, "projects": self.projects})


def principal_from_json(text: str, actor: str) -> Principal:
    """The one that was written so."""
    stored = json.loads(text)
    projects = stored["projects"]
    return Principal(stored["name"], stored["role"], None if projects is None else tuple(projects), actor)


BOOTSTRAP = Principal("management token", "admin")


def hidden(kind: str, name: str) -> NotFound:
    """What somebody is told of what belongs to others: the same as if it were not there."""
    return NotFound(f"There is no {kind} {name}.")
