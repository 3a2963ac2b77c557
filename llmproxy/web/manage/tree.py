"""The management API as one Resource, to be served at C{/manage}."""

from __future__ import annotations

import re
from dataclasses import replace

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from llmproxy.errors import NotFound
from llmproxy.http.error_body import PROBLEM
from llmproxy.web.manage.activity import ActivityReportEndpoint, MostActive, RequestCollection, RequestItem
from llmproxy.web.manage.alerts import AlertCollection
from llmproxy.web.manage.apis import ApiCollection
from llmproxy.web.manage.audit import AuditCollection, AuditVerification
from llmproxy.web.manage.cache import CachePurge, CacheStatus
from llmproxy.web.manage.endpoint import (
    ApiResponse,
    Endpoint,
    ManagementContext,
)
from llmproxy.web.manage.groups import GroupCollection, GroupItem
from llmproxy.web.manage.keys import KeyCollection, KeyItem
from llmproxy.web.manage.logging import LoggingItem
from llmproxy.web.manage.openapi import OpenApi
from llmproxy.web.manage.preconditions import NO_PRECONDITIONS, Preconditions
from llmproxy.web.manage.projects import ProjectCollection, ProjectItem, ProjectTokensRevocation
from llmproxy.web.manage.reload import SettingsList, SettingsReload
from llmproxy.web.manage.roles import Principal
from llmproxy.web.manage.sessions import SessionCollection, SessionItem
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
        SessionCollection,
        SessionItem,
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
    """Finds the endpoint for the raw path, and lets it answer."""

    isLeaf = True

    def __init__(self, context: ManagementContext) -> None:
        Resource.__init__(self)
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
        self,
        method: str,
        uri: str,
        body: bytes,
        client: str,
        request_id: str,
        principal: Principal,
        preconditions: Preconditions = NO_PRECONDITIONS,
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
        return await endpoint.perform(replace(call, signed_in=principal, preconditions=preconditions))

    def _find(self, path: bytes) -> tuple[Endpoint, bytes] | None:
        """The endpoint at a raw path, and the id in it."""
        for pattern, endpoint in self._routes:
            if match := pattern.fullmatch(path):
                return endpoint, match.groupdict().get("id", b"")
        return None


def _pattern(path: str) -> re.Pattern[bytes]:
    escaped = re.escape(path).replace(r"\{id\}", "(?P<id>[^/]+)").replace(r"\{number\}", "[0-9]{1,4}")
    return re.compile(escaped.encode("ascii"))
