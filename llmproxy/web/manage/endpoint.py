"""What every management endpoint does: authenticate, act, audit, respond."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar
from uuid import uuid4

from pydantic import BaseModel
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from llmproxy.auth.unwritten_revocations import CHANGE_SECONDS, Kind, UnwrittenRevocations
from llmproxy.base.coroutines import FairLock
from llmproxy.base.peers import Peers
from llmproxy.base.secret_reference import SecretReference
from llmproxy.caching import CacheAdmin
from llmproxy.errors import (
    AuditUnavailable,
    ChangedMeanwhile,
    LimitsUnavailable,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    StoreUnavailable,
    Unauthorized,
)
from llmproxy.errors.management import RevocationNotStored
from llmproxy.http.error_body import PROBLEM
from llmproxy.interfaces import IAuditLogger, IProjectStore, ITokenStore
from llmproxy.ledger.reports import Report, ReportRows, UsageQuery
from llmproxy.limits.limiter import LimitStatus
from llmproxy.model import Allowance
from llmproxy.observability.activity import Activity
from llmproxy.observability.metrics import ProxyMetrics
from llmproxy.observability.requests_of_workers import RequestsOfWorkers
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.audit_trail import AuditDraft, AuditTrail
from llmproxy.web.manage.auth import InvalidManagementToken, JwtWithoutAccess, ManagementAuth
from llmproxy.web.manage.body_types import MAX_BODY, Body, BodyContext
from llmproxy.web.manage.controls import LogLevels, ReloadOutcome, SettingSource, UpstreamControl
from llmproxy.web.manage.intents import draft_of_intent
from llmproxy.web.manage.paging import ID
from llmproxy.web.manage.preconditions import CONDITIONAL, NO_PRECONDITIONS, Preconditions, once, preconditions
from llmproxy.web.manage.roles import LEAST_ROLES, UNLISTED, Principal, Scope, hidden
from llmproxy.web.manage.stores import (
    AlertEntries,
    AuditEntries,
    Creations,
    Groups,
    ManagementKeys,
    RevokedSubjects,
    SignedIn,
    TokenRotation,
)
from llmproxy.web.respond import StreamedResponse, identify, run

MAX_ATTEMPTS = 5  # to change what other processes change at the same time

E = TypeVar("E")
T = TypeVar("T")
ApiResponse = BufferedResponse | StreamedResponse

Standings = Callable[[str, str, Allowance], Awaitable[list[LimitStatus]]]


class InThread(Protocol):
    """Does work without holding up others."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


async def at_once(work: Callable[[], T]) -> T:
    """Do it here and now."""
    return work()


async def _nothing() -> ProxyMetrics:
    return ProxyMetrics()


async def _untold(owner: str, name: str, allowance: Allowance) -> list[LimitStatus]:
    return []


class UsageReports(Protocol):
    """Says what was used."""

    def latest(self) -> Deferred[None]:
        """Fire once what is known by now is in the store, or would take too long."""

    def report(self, question: UsageQuery) -> Deferred[Report]:
        """Fire with it; L{errors.StoreUnavailable} where the store does not answer."""

    def export(self, question: UsageQuery) -> Deferred[ReportRows]:
        """Fire with all its rows, to be closed; L{errors.StoreUnavailable} also where many are being exported."""


@dataclass(frozen=True)
class ManagementContext:
    """What the management endpoints work with.

    @ivar apis: The configured APIs, each with its C{allowed_endpoints}.
    @ivar activity: What went on, over time; C{requests}: the last ones.
    @ivar peers: The other workers, of which there may be none.
    @ivar changes: Held by whoever reads, alters and writes back, so that no change undoes another.
    @ivar clock: For what is waited for; C{now}: seconds since the epoch, for what is written down.
    @ivar standings: Gives how the limits of a C{token} or a C{project} of that id stand.
    @ivar new_id: Makes a project's id.
    @ivar cache: The response cache, or C{None} where there is none; C{counts}: what was counted of all requests.
    @ivar denials: Where wrong management tokens are written down, if not in C{audit}.
    @ivar revocations: Those that are in force before they are stored.
    @ivar reload: Reads the settings again; L{Invalid} where something is wrong with them.
    @ivar effective: The settings with their sources; L{Invalid} likewise.
    @ivar upstreams: The providers; C{log}: how much is logged.
    @ivar keys: The management keys, where there may be any.
    @ivar audit_table: The audit log in the store, if it is there; C{alerts}: what was alerted of budgets;
        C{rotation}: gives tokens other secrets; C{subjects}: those of the C{issuers} that are refused.
    @ivar creations: What was answered to creations that name a key of idempotency.
    @ivar attributions: The names of what requests are attributed to; C{providers}: the provider of each API.
    @ivar references: Reads a provider key as a reference; C{None} where it is none, L{ValueError} if not allowed.
    @ivar groups: The groups of projects, where there may be any.
    @ivar sessions: Who is signed in to the admin pages, where there are any.
    @ivar in_thread: Does what computes for long.
    """

    projects: IProjectStore
    tokens: ITokenStore
    usage: UsageReports
    audit: IAuditLogger
    auth: ManagementAuth
    clock: IReactorTime
    now: Callable[[], float]
    apis: Mapping[str, Collection[str]]
    default_api: str = ""
    standings: Standings = _untold
    new_id: Callable[[], str] = lambda: str(uuid4())
    changes: FairLock = field(default_factory=FairLock)
    cache: CacheAdmin | None = None
    counts: Callable[[], Awaitable[ProxyMetrics]] = _nothing
    denials: IAuditLogger | None = None
    revocations: UnwrittenRevocations | None = None
    keys: ManagementKeys | None = None
    creations: Creations | None = None
    references: Callable[[str], SecretReference | None] = lambda text: None
    reload: Callable[[], Awaitable[ReloadOutcome]] | None = None
    audit_table: AuditEntries | None = None
    alerts: AlertEntries | None = None
    rotation: TokenRotation | None = None
    subjects: RevokedSubjects | None = None
    sessions: SignedIn | None = None
    issuers: Collection[str] = ()
    effective: Callable[[], Sequence[SettingSource]] | None = None
    upstreams: UpstreamControl | None = None
    log: LogLevels | None = None
    activity: Activity | None = None
    requests: RequestsOfWorkers = field(default_factory=RequestsOfWorkers)
    peers: Peers = field(default_factory=Peers)
    attributions: Callable[[], Collection[str]] = tuple
    providers: Callable[[], Mapping[str, str]] = dict
    groups: Groups | None = None
    in_thread: InThread = at_once

    async def standing(self, owner: str, name: str, allowance: Allowance) -> list[LimitStatus] | None:
        """How these limits stand; C{None} while nobody can tell, which is no reason not to show the rest."""
        try:
            return await self.standings(owner, name, allowance)
        except LimitsUnavailable:
            return None

    def change(self) -> AbstractAsyncContextManager[None]:
        """Hold C{changes}; L{StoreUnavailable} where those who change something before take too long."""
        return self.changes.within(CHANGE_SECONDS, self.clock, StoreUnavailable())

    async def altered(self, change: Callable[[], Awaitable[T]]) -> T:
        """Read, alter and write back as C{change} does; once more where another process came between."""
        async with self.change():
            for _ in range(MAX_ATTEMPTS - 1):
                with suppress(ChangedMeanwhile):
                    return await change()
            return await change()

    def in_force(self, kind: Kind, name: str) -> AbstractAsyncContextManager[None]:
        """Refuse what is being revoked in the body, stored or not."""
        return nullcontext() if self.revocations is None else self.revocations.in_force(kind, name)

    def body_context(self) -> BodyContext:
        """What a request's body is judged by now."""
        return BodyContext(self.apis, self.default_api, self.now(), self.references)


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the management API.

    @ivar uri: Its path and query, as sent; C{id}: the id in the path, or C{""}.
    @ivar signed_in: On whose behalf; C{None} until that is known.
    """

    uri: bytes
    operation: ApiOperation[Any]
    id: str
    body: bytes
    client: str
    request_id: str
    audit: AuditDraft
    signed_in: Principal | None = None
    preconditions: Preconditions = NO_PRECONDITIONS

    @property
    def principal(self) -> Principal:
        """On whose behalf; L{Unauthorized} where nobody has signed in."""
        if self.signed_in is None:
            raise Unauthorized
        return self.signed_in


@dataclass(frozen=True, slots=True)
class ApiOperation(Generic[E]):
    """What one method does on one path; the OpenAPI document is made of these.

    @ivar handler: The endpoint's coroutine; its name is the C{operationId} in the document.
    @ivar action: What the audit log calls it; C{""} where nothing is changed.
    @ivar query: Parameters it takes.
    """

    method: bytes
    handler: Callable[[E, Call], Awaitable[ApiResponse]]
    summary: str
    response: type[BaseModel] | None
    body: type[Body] | None
    status: int
    action: str
    query: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.handler.__name__


def operation(
    method: str,
    summary: str,
    response: type[BaseModel] | None = None,
    body: type[Body] | None = None,
    status: int = 200,
    *,
    action: str = "",
    query: tuple[str, ...] = (),
) -> Callable[[Callable[[E, Call], Awaitable[ApiResponse]]], ApiOperation[E]]:
    """Make a coroutine of an L{Endpoint} what it does for this method; see L{ApiOperation}."""

    def decorated(handler: Callable[[E, Call], Awaitable[ApiResponse]]) -> ApiOperation[E]:
        return ApiOperation(method.encode("ascii"), handler, summary, response, body, status, action, query)

    return decorated


class Endpoint:
    """One path of the management API; a subclass has a coroutine for each method, decorated with L{operation}.

    @cvar path: Such as C{/manage/projects/{id}}.
    @cvar refusal: What is said, besides C{Allow}, to a method that is not there.
    """

    path: ClassVar[str]
    operations: ClassVar[Mapping[bytes, ApiOperation[Any]]] = {}
    refusal: ClassVar[str] = ""
    _log = Logger()

    def __init__(self, context: ManagementContext) -> None:
        self.context = context

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.operations = {each.method: each for each in vars(cls).values() if isinstance(each, ApiOperation)}

    def render(self, request: Request, path_id: bytes) -> None:
        """Start to answer C{request}, whose path names this id, or C{b""}."""
        request_id = identify(request)
        run(request, self._respond(request, path_id, _body(request), request_id), PROBLEM, request_id)

    async def _respond(self, request: Request, path_id: bytes, body: bytes, request_id: str) -> ApiResponse:
        client = self.context.auth.client(request)
        call = self.call(request.method, request.uri, path_id, body, client, request_id)
        principal = await self._admit(call, request)
        return await self.perform(replace(call, signed_in=principal, preconditions=preconditions(request)))

    def call(self, method: bytes, uri: bytes, path_id: bytes, body: bytes, client: str, request_id: str) -> Call:
        """A call of what this method does here; L{MethodNotAllowed} where it does nothing.

        @param client: The address it comes from.
        """
        operation = self.operations.get(b"GET" if method == b"HEAD" else method)
        if operation is None:
            raise MethodNotAllowed(self.refusal, headers={"Allow": allow(self.operations)})
        return Call(uri, operation, path_id.decode("latin-1"), body, client, request_id, AuditDraft(operation.action))

    async def perform(self, call: Call) -> ApiResponse:
        """Do what it asks for, if who has signed in may; what is changed, or was to be, is audited."""
        key, creations = call.preconditions.idempotency_key, self.context.creations
        if not key or creations is None or call.operation.status != 201:
            return await self._performed(call)
        await self._authorize(call)
        what = f"{call.operation.name} {call.uri.decode('latin-1')}"
        return await once(creations, call.principal.actor, what, key, call.body, lambda: self._performed(call))

    async def _performed(self, call: Call) -> ApiResponse:
        if call.operation.action:
            return await self._audited(call)
        await self._check(call)
        return await call.operation.handler(self, call)

    async def _admit(self, call: Call, request: Request) -> Principal:
        try:
            return await self.context.auth.admit(request)
        except InvalidManagementToken as e:
            # Who knocks on is held back by TooManyFailures, and not written down: he is not to fill the audit log.
            await self._denied(call, "unknown", e, {"reason": e.reason} if e.reason else {})
            raise
        except JwtWithoutAccess as e:
            await self._denied(call, e.actor, e, {})
            raise

    async def _denied(self, call: Call, actor: str, error: Exception, details: dict[str, object]) -> None:
        trail = self._trail(call, actor, self.context.denials)
        await trail.result(AuditDraft("management.denied", details=details), error)

    async def _audited(self, call: Call) -> ApiResponse:
        """Do it, and write into the audit log before that it is to be done, and after that that it was, or why not."""
        trail = self._trail(call, call.principal.actor, name=call.principal.audit_name)
        try:
            await self._check(call)
            if call.operation.method in (b"PATCH", b"DELETE") and call.operation.name not in CONDITIONAL:
                call.preconditions.check_untagged()
        except Exception as e:
            await trail.result(call.audit, e)
            raise
        await trail.intend(call.operation.name, self.intended(call))
        try:
            answer = await call.operation.handler(self, call)
        except RevocationNotStored as e:
            with suppress(AuditUnavailable):  # the disk that is full may be the audit log's too
                await trail.result(call.audit, e)
            raise
        except Exception as e:
            await trail.result(call.audit, e)
            raise
        await trail.result(call.audit)
        return answer

    def intended(self, call: Call) -> AuditDraft:
        """What is known of a change before it is made."""
        scope = LEAST_ROLES.get(call.operation.name, UNLISTED).scope
        project_id, token_id = (call.id if scope is each else "" for each in (Scope.PROJECT, Scope.TOKEN))
        path = call.uri.partition(b"?")[0].decode("latin-1")
        details: dict[str, object] = {"method": call.operation.method.decode(), "path": path}
        draft = AuditDraft(call.audit.action, project_id, token_id, details)
        return draft_of_intent(draft, call.operation.body, call.body)

    def _trail(self, call: Call, actor: str, audit: IAuditLogger | None = None, name: str = "") -> AuditTrail:
        return AuditTrail(audit or self.context.audit, self.context.now, actor, call.client, call.request_id, name)

    async def _check(self, call: Call) -> None:
        if len(call.body) > MAX_BODY:
            raise RequestTooLarge
        if call.id and not re.fullmatch(ID, call.id):
            raise NotFound  # what no id looks like is asked of no store
        await self._authorize(call)

    async def _authorize(self, call: Call) -> None:
        """L{errors.management.RoleNotAllowed}, or L{NotFound} for what belongs to others' projects."""
        call.principal.require(call.operation.name)
        scope = LEAST_ROLES.get(call.operation.name, UNLISTED).scope
        if call.principal.projects is None:
            return
        if scope is Scope.PROJECT and not call.principal.sees(call.id):
            raise hidden("project", call.id)
        if scope is Scope.TOKEN and not call.principal.sees((await self.context.tokens.get_token(call.id)).project_id):
            raise hidden("token", call.id)


def allow(methods: Collection[bytes]) -> str:
    """The C{Allow} field for these methods; HEAD comes with GET."""
    return ", ".join(method.decode("ascii") + (", HEAD" if method == b"GET" else "") for method in methods)


def _body(request: Request) -> bytes:
    """Up to one byte more than is allowed, read now: the content is closed as soon as the client leaves."""
    if request.content is None:
        return b""
    request.content.seek(0)
    body: bytes = request.content.read(MAX_BODY + 1)
    return body
