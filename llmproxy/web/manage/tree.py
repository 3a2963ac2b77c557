"""The management API as one Resource, to be served at C{/manage}."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from llmproxy.interfaces import IAuditLogger, IProjectStore, ITokenStore
from llmproxy.web.manage.auth import Failures, Gate
from llmproxy.web.manage.endpoint import Desk, Endpoint, Reporting
from llmproxy.web.manage.openapi import OpenApi
from llmproxy.web.manage.projects import OneProject, Projects, Revocation
from llmproxy.web.manage.tokens import OneToken, Tokens
from llmproxy.web.manage.usage import ProjectUsage, Usage
from llmproxy.web.nothing import Nothing

ENDPOINTS: tuple[type[Endpoint], ...] = (Projects, OneProject, Revocation, ProjectUsage, Tokens, OneToken, Usage)


class Management(Resource):
    """Finds the endpoint for the raw path, and lets it answer.

    @param api_names: The configured APIs: those that keys and tokens may name.
    @param default_api: The API whose key C{api_key} alone is; C{""} if there is none.
    @param usage: Tells what was used.
    @param clock: Tells the time, in seconds since the epoch as a reactor does.
    """

    isLeaf = True

    def __init__(
        self,
        *,
        projects: IProjectStore,
        tokens: ITokenStore,
        usage: Reporting,
        audit: IAuditLogger,
        api_names: Collection[str],
        default_api: str = "",
        management_token: str,
        clock: IReactorTime,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        Resource.__init__(self)
        gate = Gate(management_token, Failures(clock))
        desk = Desk(projects, tokens, usage, audit, gate, clock, tuple(api_names), default_api, new_id)
        endpoints = [*(endpoint(desk) for endpoint in ENDPOINTS), OpenApi(desk, ENDPOINTS)]
        self._routes = [(_pattern(endpoint.path), endpoint) for endpoint in endpoints]
        self._nothing = Nothing()

    def render(self, request: Request) -> int:
        for pattern, endpoint in self._routes:
            match = pattern.fullmatch(request.path)
            if match:
                endpoint.render(request, match.groupdict().get("id", b""))
                return NOT_DONE_YET
        return self._nothing.render(request)


def _pattern(path: str) -> re.Pattern[bytes]:
    return re.compile(re.escape(path).replace(r"\{id\}", "(?P<id>[^/]+)").encode("ascii"))
