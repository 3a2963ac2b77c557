"""The management API as one Resource, to be served at C{/manage}."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from llmproxy.auth.unwritten_revocations import UnwrittenRevocations
from llmproxy.base.coroutines import FairLock
from llmproxy.base.peers import Peers
from llmproxy.base.secret_reference import SecretReference
from llmproxy.caching import CacheAdmin
from llmproxy.errors import NotFound
from llmproxy.http.error_body import PROBLEM
from llmproxy.interfaces import IAuditLogger, IProjectStore, ITokenStore
from llmproxy.observability.activity import Activity
from llmproxy.observability.metrics import ProxyMetrics
from llmproxy.observability.recent_requests import RecentRequests
from llmproxy.observability.requests_of_workers import RequestsOfWorkers
from llmproxy.web.manage.activity import ActivityReportEndpoint, MostActive, RequestCollection, RequestItem
from llmproxy.web.manage.alerts import AlertCollection
from llmproxy.web.manage.apis import ApiCollection
from llmproxy.web.manage.audit import AuditCollection, AuditVerification
from llmproxy.web.manage.auth import ManagementAuth
from llmproxy.web.manage.cache import CachePurge, CacheStatus
from llmproxy.web.manage.controls import LogLevels, ReloadOutcome, SettingSource, UpstreamControl
from llmproxy.web.manage.endpoint import (
    ApiResponse,
    Endpoint,
    InThread,
    ManagementContext,
    Standings,
    UsageReports,
    at_once,
)
from llmproxy.web.manage.groups import GroupCollection, GroupItem
from llmproxy.web.manage.keys import KeyCollection, KeyItem
from llmproxy.web.manage.logging import LoggingItem
from llmproxy.web.manage.openapi import OpenApi
from llmproxy.web.manage.projects import ProjectCollection, ProjectItem, ProjectTokensRevocation
from llmproxy.web.manage.reload import SettingsList, SettingsReload
from llmproxy.web.manage.roles import Principal
from llmproxy.web.manage.stores import (
    AlertEntries,
    AuditEntries,
    Creations,
    Groups,
    ManagementKeys,
    RevokedSubjects,
    TokenRotation,
)
from llmproxy.web.manage.subjects import SubjectCollection, SubjectRestoration, SubjectRevocationEndpoint
from llmproxy.web.manage.tokens import TokenCollection, TokenItem, TokenSecretRotation
from llmproxy.web.manage.upstreams import UpstreamCollection, UpstreamItem
from llmproxy.web.manage.usage import ProjectUsage, UsageTotals
from llmproxy.web.manage.version import Version
from llmproxy.web.root import NotFoundResource

ENDPOINTS: tuple[type[Endpoint], ...] = (
    *(ProjectCollection, ProjectItem, ProjectTokensRevocation, ProjectUsage, TokenCollection, TokenItem, UsageTotals),
    *(ApiCollection, CacheStatus, CachePurge, ActivityReportEndpoint, MostActive, RequestCollection, RequestItem),
    *(
        GroupCollection,
        GroupItem,
        KeyCollection,
        KeyItem,
        SubjectCollection,
        SubjectRevocationEndpoint,
        SubjectRestoration,
        AlertCollection,
        TokenSecretRotation,
        AuditCollection,
        AuditVerification,
        SettingsReload,
        SettingsList,
        LoggingItem,
        UpstreamCollection,
        UpstreamItem,
        Version,
    ),
)


class Management(Resource):
    """Finds the endpoint for the raw path, and lets it answer.

    @param apis: The configured APIs, those that keys and tokens may name, each with its C{allowed_endpoints}.
    @param default_api: The API whose key C{api_key} alone is; C{""} if there is none.
    @param cache: The response cache, if there is one; C{counts}: gives what was counted of all requests.
    @param standings: Gives how limits stand, where anybody counts.
    @param denials: Where wrong management tokens are written down, if not in C{audit}.
    @param revocations: Has those in force that are not stored; C{changes}: what it holds while it stores them.
    @param reload: Reads the settings again; C{effective}: has their sources; C{upstreams}: the providers; C{log}: how
        much is logged.
    @param usage: Gives what was used; C{activity}: what went on; C{requests}: the last ones of this process.
    @param peers: The other workers, of which there may be none.
    @param audit_table: The audit log in the store, if it is there; C{alerts}: what was alerted of budgets;
        C{rotation}: gives tokens other secrets; C{subjects}: those of the C{issuers}, whose JWTs are taken, that
        are refused.
    @param keys: The management keys, where there may be any; C{creations}: what was answered to creations.
    @param attributions: The names of what requests are attributed to; C{groups}: the groups of projects.
    @param providers: The provider of each API, by the API's name.
    @param references: Reads a provider key as a reference; C{None} where it is none.
    @param auth: Lets in who bears the management token or a management key.
    @param in_thread: Does what computes for long.
    @param clock: For what is counted by time; C{now}: seconds since the epoch, for what is written down.
    """

    isLeaf = True

    def __init__(
        self,
        *,
        projects: IProjectStore,
        tokens: ITokenStore,
        usage: UsageReports,
        audit: IAuditLogger,
        denials: IAuditLogger | None = None,
        apis: Mapping[str, Collection[str]],
        revocations: UnwrittenRevocations | None = None,
        changes: FairLock | None = None,
        default_api: str = "",
        auth: ManagementAuth,
        clock: IReactorTime,
        now: Callable[[], float],
        standings: Standings | None = None,
        new_id: Callable[[], str] = lambda: str(uuid4()),
        cache: CacheAdmin | None = None,
        counts: Callable[[], Awaitable[ProxyMetrics]] | None = None,
        reload: Callable[[], Awaitable[ReloadOutcome]] | None = None,
        effective: Callable[[], Sequence[SettingSource]] | None = None,
        upstreams: UpstreamControl | None = None,
        log: LogLevels | None = None,
        activity: Activity | None = None,
        requests: RecentRequests | None = None,
        peers: Peers | None = None,
        keys: ManagementKeys | None = None,
        creations: Creations | None = None,
        references: Callable[[str], SecretReference | None] = lambda text: None,
        audit_table: AuditEntries | None = None,
        alerts: AlertEntries | None = None,
        rotation: TokenRotation | None = None,
        subjects: RevokedSubjects | None = None,
        issuers: Collection[str] = (),
        attributions: Callable[[], Collection[str]] = tuple,
        providers: Callable[[], Mapping[str, str]] = dict,
        groups: Groups | None = None,
        in_thread: InThread = at_once,
    ) -> None:
        Resource.__init__(self)
        context = ManagementContext(
            projects,
            tokens,
            usage,
            audit,
            auth,
            clock,
            now,
            apis,
            default_api,
            new_id=new_id,
            cache=cache,
            denials=denials,
            revocations=revocations,
            changes=changes or FairLock(),
            reload=reload,
            effective=effective,
            upstreams=upstreams,
            log=log,
            activity=activity,
            requests=RequestsOfWorkers(requests, peers),
            peers=peers or Peers(),
            keys=keys,
            creations=creations,
            references=references,
            audit_table=audit_table,
            alerts=alerts,
            rotation=rotation,
            subjects=subjects,
            issuers=issuers,
            attributions=attributions,
            providers=providers,
            groups=groups,
            in_thread=in_thread,
        )
        if standings is not None:
            context = replace(context, standings=standings)
        if counts is not None:
            context = replace(context, counts=counts)
        endpoints = [*(endpoint(context) for endpoint in ENDPOINTS), OpenApi(context, ENDPOINTS)]
        self._routes = [(_pattern(endpoint.path), endpoint) for endpoint in endpoints]
        self._nothing = NotFoundResource(PROBLEM)

    def render(self, request: Request) -> int:
        found = self._find(request.path)
        if found is None:
            return self._nothing.render(request)
        endpoint, path_id = found
        endpoint.render(request, path_id)
        return NOT_DONE_YET

    async def perform(
        self, method: str, uri: str, body: bytes, client: str, request_id: str, principal: Principal
    ) -> ApiResponse:
        """Do what a request of C{principal} for this path and query would do; raises as that would be refused. What is
        changed is audited.

        @param client: The address of whom it is done for.
        """
        raw = uri.encode("ascii")
        found = self._find(raw.partition(b"?")[0])
        if found is None:
            raise NotFound
        endpoint, path_id = found
        call = endpoint.call(method.encode(), raw, path_id, body, client, request_id)
        return await endpoint.perform(replace(call, signed_in=principal))

    def _find(self, path: bytes) -> tuple[Endpoint, bytes] | None:
        """The endpoint at a raw path, and the id in it."""
        for pattern, endpoint in self._routes:
            if match := pattern.fullmatch(path):
                return endpoint, match.groupdict().get("id", b"")
        return None


def _pattern(path: str) -> re.Pattern[bytes]:
    escaped = re.escape(path).replace(r"\{id\}", "(?P<id>[^/]+)").replace(r"\{number\}", "[0-9]{1,4}")
    return re.compile(escaped.encode("ascii"))
