"""Stand-ins for what an outsider may provide, kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from llmproxy.base.audit_chain import ChainLink, ChainReport
from llmproxy.base.coroutines import deferred
from llmproxy.base.token_format import MANAGEMENT_KEY_PREFIX
from llmproxy.errors import ChangedMeanwhile, Conflict, NotFound, TokenInactive, TokenNotFound, UpstreamAuthError
from llmproxy.interfaces import IAuditLogger, IProjectStore, IProviderKeyLists, ITokenStore
from llmproxy.ledger.sql import Report, UsageQuery
from llmproxy.ledger.usage_queries import SUM_COLUMNS
from llmproxy.management_key import ManagementKey
from llmproxy.model import (
    ALL_OF_THEM,
    AuditEntry,
    BudgetAlert,
    Group,
    ListFilter,
    Page,
    PageRequest,
    Project,
    Token,
)
from llmproxy.observability.activity import Activity
from llmproxy.store.admin_sessions import AdminSession
from llmproxy.store.audit_log import AuditFilter
from llmproxy.store.budget_alerts import AlertFilter
from llmproxy.store.revoked_subjects import SubjectRevocation


class MemoryUsage:
    """Tells the same rows to everybody, and remembers what was asked, how often the latest was to be entered before,
    and how many exports are open."""

    def __init__(self) -> None:
        self.asked: list[UsageQuery] = []
        self.rows: list[dict[str, Any]] = []
        self.open = 0
        self.entered = 0

    @deferred
    async def latest(self) -> None:
        self.entered += 1

    @deferred
    async def report(self, question: UsageQuery) -> Report:
        self.asked.append(question)
        limit, offset, cursor = question.part
        begin = int(cursor or offset)
        following = str(begin + limit) if begin + limit < len(self.rows) else ""
        return Report(self.rows[begin : begin + limit], None if cursor else len(self.rows), following)

    @deferred
    async def export(self, question: UsageQuery) -> Any:
        self.asked.append(question)
        self.open += 1
        return MemoryRows(self, question)


class MemoryRows:
    """All rows, two at once."""

    def __init__(self, usage: MemoryUsage, question: UsageQuery) -> None:
        self._usage = usage
        self._names = (*question.columns, *SUM_COLUMNS)
        self._at = 0

    @deferred
    async def part(self, render: Callable[[list[tuple[Any, ...]]], bytes]) -> bytes:
        rows = [tuple(row[name] for name in self._names) for row in self._usage.rows[self._at : self._at + 2]]
        self._at += 2
        return render(rows) if rows else b""

    @deferred
    async def close(self) -> None:
        self._usage.open -= 1


def paged(items: list[Any], request: PageRequest) -> Page[Any]:
    """A page of a list in memory, whose cursors are places."""
    begin = int(request.cursor or request.offset)
    following = str(begin + request.limit) if begin + request.limit < len(items) else ""
    return Page(items[begin : begin + request.limit], None if request.cursor else len(items), following)


@implementer(IProjectStore, IProviderKeyLists, ITokenStore)
class MemoryStore:
    """Keeps projects and tokens; forgets them with the test.

    @ivar keys: The provider keys by project id and API name.
    @ivar before: Called with a method's name before it does anything; may raise, or return what is to be awaited.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.projects: dict[str, Project] = {}
        self.tokens: dict[str, Token] = {}
        self.keys: dict[str, dict[str, str]] = {}
        self.further: dict[str, dict[str, tuple[str, ...]]] = {}
        self.before: Callable[[str], Any] = lambda name: None

    async def _enter(self, name: str) -> None:
        waiting = self.before(name)
        if waiting is not None:
            await waiting

    def _project(self, project_id: str) -> Project:
        if project_id not in self.projects:
            raise NotFound(f"There is no project {project_id}.")
        return self.projects[project_id]

    def _token(self, token_id: str) -> Token:
        if token_id not in self.tokens:
            raise NotFound(f"There is no token {token_id}.")
        return self.tokens[token_id]

    def _keep(self, project: Project) -> Project:
        keys = {**self.keys.get(project.id, {}), **project.api_keys}
        self.keys[project.id] = {api: key for api, key in keys.items() if key}
        masked = {api: _masked(key) for api, key in self.keys[project.id].items()}
        self.further[project.id] = {
            **{api: keys for api, keys in self.further.get(project.id, {}).items() if api not in project.api_keys},
            **{api: keys for api, keys in project.further_keys.items() if keys},
        }
        further = {api: tuple(map(_masked, keys)) for api, keys in self.further[project.id].items()}
        before = self.projects.get(project.id)
        if before and project.revision not in (0, before.revision):
            raise ChangedMeanwhile
        revision = before.revision + 1 if before else 1
        self.projects[project.id] = replace(
            project, api_keys={}, masked_keys=masked, revision=revision, further_keys={}, masked_further_keys=further
        )
        return self.projects[project.id]

    @deferred
    async def get_api_key_for_project(self, project_id: str, api: str = "") -> str:
        await self._enter("get_api_key_for_project")
        keys = self.keys.get(project_id, {})
        key = keys.get(api) if api else next(iter(keys.values()), None)
        if key is None:
            raise UpstreamAuthError
        return key

    @deferred
    async def get_api_keys_for_project(self, project_id: str, api: str = "") -> list[str]:
        return [await self.get_api_key_for_project(project_id, api), *self.further.get(project_id, {}).get(api, ())]

    @deferred
    async def get_project_active(self, project_id: str) -> bool:
        await self._enter("get_project_active")
        return self._project(project_id).active

    @deferred
    async def list_projects(self) -> list[Project]:
        await self._enter("list_projects")
        return list(self.projects.values())

    @deferred
    async def project_page(self, request: PageRequest, wanted: ListFilter = ALL_OF_THEM) -> Page[Project]:
        await self._enter("list_projects")
        return paged([each for each in self.projects.values() if _is_wanted(wanted, each, each.id)], request)

    @deferred
    async def create_project(self, project: Project) -> Project:
        await self._enter("create_project")
        if project.id in self.projects:
            raise Conflict
        return self._keep(project)

    @deferred
    async def get_project_by_id(self, project_id: str) -> Project:
        await self._enter("get_project_by_id")
        return self._project(project_id)

    @deferred
    async def update_project(self, project: Project) -> Project:
        await self._enter("update_project")
        self._project(project.id)
        return self._keep(project)

    @deferred
    async def delete_project(self, project_id: str) -> None:
        await self._enter("delete_project")
        self._project(project_id)
        del self.projects[project_id], self.keys[project_id]
        self.tokens = {key: token for key, token in self.tokens.items() if token.project_id != project_id}

    @deferred
    async def create_token(self, token: Token) -> tuple[Token, str]:
        await self._enter("create_token")
        self._project(token.project_id)
        number = len(self.tokens) + 1
        secret = f"sk-lp-{number:043d}"
        kept = replace(token, id=f"tok-{number}", prefix=secret[:10], created_at=self._clock.seconds(), revision=1)
        self.tokens[kept.id] = kept
        return kept, secret

    @deferred
    async def get_token(self, token_id: str) -> Token:
        await self._enter("get_token")
        return self._token(token_id)

    @deferred
    async def list_tokens(self, project_id: str | None = None) -> list[Token]:
        await self._enter("list_tokens")
        return [token for token in self.tokens.values() if project_id in (None, token.project_id)]

    @deferred
    async def token_page(self, request: PageRequest, wanted: ListFilter = ALL_OF_THEM) -> Page[Token]:
        await self._enter("list_tokens")
        return paged([each for each in self.tokens.values() if _is_wanted(wanted, each, each.project_id)], request)

    @deferred
    async def update_token(self, token: Token) -> Token:
        await self._enter("update_token")
        before = self._token(token.id)
        if token.revision not in (0, before.revision):
            raise ChangedMeanwhile
        self.tokens[token.id] = replace(token, revision=before.revision + 1)
        return self.tokens[token.id]

    @deferred
    async def deactivate_token(self, token_id: str) -> Token:
        await self._enter("deactivate_token")
        token = self._token(token_id)
        since = token.deactivated_at or self._clock.seconds()
        self.tokens[token_id] = replace(token, active=False, deactivated_at=since, revision=token.revision + 1)
        return self.tokens[token_id]

    @deferred
    async def revoke_project_tokens(self, project_id: str) -> int:
        await self._enter("revoke_project_tokens")
        self._project(project_id)
        active = [token.id for token in self.tokens.values() if token.project_id == project_id and token.active]
        for token_id in active:
            self.tokens[token_id] = replace(self.tokens[token_id], active=False, deactivated_at=self._clock.seconds())
        return len(active)

    @deferred
    async def count_uses(self, uses: Mapping[str, tuple[int, float]]) -> None:
        await self._enter("count_uses")
        for token_id, (count, last) in uses.items():
            token = self._token(token_id)
            self.tokens[token_id] = replace(token, request_count=token.request_count + count, last_used_at=last)

    @deferred
    async def count_cache_hits(self, hits: Mapping[str, tuple[int, float]]) -> None:
        await self._enter("count_cache_hits")
        for token_id, (count, last) in hits.items():
            token = self._token(token_id)
            self.tokens[token_id] = replace(token, cache_hits=token.cache_hits + count, last_used_at=last)


def _masked(key: str) -> str:
    return f"{key[:3]}…{key[-2:]}"


def _is_wanted(wanted: ListFilter, each: Project | Token, project_id: str) -> bool:
    return (
        (wanted.projects is None or project_id in wanted.projects)
        and wanted.active in (None, each.active)
        and wanted.search.lower() in each.name.lower()
        and wanted.named in ("", each.id, each.name)
        and all(label in each.labels or tuple(label.split("=", 1)) in each.metadata for label in wanted.labels)
    )


class MemoryKeys:
    """Keeps management keys; forgets them with the test.

    @ivar failing: Raised when a key is to be validated, while it is set; C{validated}: how often one was.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.keys: dict[str, ManagementKey] = {}
        self.secrets: dict[str, str] = {}
        self.failing: Exception | None = None
        self.validated = 0

    def _key(self, key_id: str) -> ManagementKey:
        if key_id not in self.keys:
            raise NotFound(f"There is no management key {key_id}.")
        return self.keys[key_id]

    @deferred
    async def create_key(self, key: ManagementKey) -> tuple[ManagementKey, str]:
        number = len(self.keys) + 1
        secret = f"{MANAGEMENT_KEY_PREFIX}{number:043d}"
        kept = replace(key, id=f"key-{number}", prefix=secret[:13], created_at=self._clock.seconds())
        self.keys[kept.id] = kept
        self.secrets[secret] = kept.id
        return kept, secret

    @deferred
    async def get_key(self, key_id: str) -> ManagementKey:
        return self._key(key_id)

    @deferred
    async def key_page(self, request: PageRequest) -> Page[ManagementKey]:
        return paged(list(self.keys.values()), request)

    @deferred
    async def revoke_key(self, key_id: str) -> ManagementKey:
        key = self._key(key_id)
        self.keys[key_id] = replace(key, deactivated_at=key.deactivated_at or self._clock.seconds())
        return self.keys[key_id]

    @deferred
    async def validate_key(self, secret: str) -> ManagementKey:
        self.validated += 1
        if self.failing is not None:
            raise self.failing
        if secret not in self.secrets:
            raise TokenNotFound
        key = self.keys[self.secrets[secret]]
        if not key.active:
            raise TokenInactive
        self.keys[key.id] = replace(key, last_used_at=self._clock.seconds())
        return self.keys[key.id]


class MemoryGroups:
    """Keeps groups of projects; forgets them with the test. Knows nothing of trees: the real one is in the store's."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.groups: dict[str, Group] = {}

    @deferred
    async def create_group(self, group: Group) -> Group:
        now = self._clock.seconds()
        kept = replace(group, id=f"group-{len(self.groups) + 1}", created_at=now, updated_at=now, revision=1)
        self.groups[kept.id] = kept
        return kept

    @deferred
    async def get_group(self, group_id: str) -> Group:
        if group_id not in self.groups:
            raise NotFound(f"There is no group {group_id}.")
        return self.groups[group_id]

    @deferred
    async def group_page(
        self, request: PageRequest, search: str = "", ids: tuple[str, ...] | None = None
    ) -> Page[Group]:
        named = [each for each in self.groups.values() if search.lower() in each.name.lower()]
        return paged([each for each in named if ids is None or each.id in ids], request)

    @deferred
    async def update_group(self, group: Group) -> Group:
        self.groups[group.id] = replace(group, revision=group.revision + 1)
        return self.groups[group.id]

    @deferred
    async def delete_group(self, group_id: str, revision: int = 0) -> None:
        await self.get_group(group_id)
        del self.groups[group_id]


@implementer(IAuditLogger)
class MemoryAudit:
    """Keeps what was written down, and what was intended apart.

    @ivar failing: Raised instead, while it is set.
    """

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.intents: list[AuditEntry] = []
        self.failing: Exception | None = None

    @deferred
    async def log(self, entry: AuditEntry) -> None:
        if self.failing is not None:
            raise self.failing
        (self.intents if entry.outcome == "intent" else self.entries).append(entry)


class MemorySubjects:
    """Subjects that are refused, in memory."""

    def __init__(self) -> None:
        self.revoked: dict[str, SubjectRevocation] = {}

    def revoke(self, revocation: SubjectRevocation) -> Deferred[SubjectRevocation]:
        self.revoked[revocation.id] = revocation
        return succeed(revocation)

    def restore(self, subject: str) -> Deferred[SubjectRevocation]:
        return succeed(self.revoked.pop(subject)) if subject in self.revoked else fail(NotFound())

    def page(self, request: PageRequest) -> Deferred[Page[SubjectRevocation]]:
        return succeed(Page(list(self.revoked.values()), len(self.revoked), ""))


class MemorySessions:
    """Who is signed in to the admin pages: Ada, whom an identity provider knows, and somebody with a key."""

    def __init__(self) -> None:
        ada = AdminSession(
            *("a" * 32, "hash of ada's", "hash before", "csrf of ada's", "oidc:3d38e146:ada"),
            *(1_794_992_800.0, 1_794_992_800.0, 1_794_992_860.0, "192.0.2.1", "Firefox"),
            '{"name": "Ada", "role": "admin", "projects": null}',
        )
        key = ada._replace(id="b" * 32, subject="key:key-1", principal=None)
        self.sessions = {each.id: each for each in (ada, key)}

    async def all(self) -> list[AdminSession]:
        return list(self.sessions.values())

    async def end(self, session_id: str) -> bool:
        return self.sessions.pop(session_id, None) is not None


class NoEntries:
    """An audit log, and what was alerted, in a store that has none of them."""

    def page(self, wanted: AuditFilter, request: PageRequest) -> Deferred[Page[dict[str, Any]]]:
        return succeed(Page([], 0, ""))

    def verify(self) -> Deferred[ChainReport]:
        return succeed(ChainReport(0, ChainLink(0, ""), 0, 0, ""))

    def alert_page(self, wanted: AlertFilter, request: PageRequest) -> Deferred[Page[BudgetAlert]]:
        return succeed(Page([], 0, ""))


class NoRows:
    """A store where nothing goes on."""

    def write(self, work: object) -> Deferred[Any]:
        return succeed(0)

    def report(self, work: object) -> Deferred[Any]:
        return succeed([])


def idle_activity(clock: Clock) -> Activity:
    """One that has nothing to tell."""
    return Activity(NoRows(), clock, clock.seconds)
