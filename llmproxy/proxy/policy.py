"""What a validated token's bearer may do with one API: is its project active, is its origin allowed, and what the
L{access_rules} say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from twisted.internet.defer import CancelledError

from llmproxy import errors
from llmproxy.config.routes import Route
from llmproxy.http import cors
from llmproxy.http.request_reader import RequestContent
from llmproxy.interfaces import IAuditLogger, IProviderKeys
from llmproxy.metering.dialects.operation import ProviderOperation
from llmproxy.model import AuditEntry, Grant
from llmproxy.proxy.access_rules import rules_of


class Policy:
    """Refuses what a grant or an API does not allow."""

    def __init__(
        self, projects: IProviderKeys, audit: IAuditLogger, now: Callable[[], float], *, enforce: bool = True
    ) -> None:
        """
        @param enforce: Whether a project that is not active is refused.
        """
        self._projects = projects
        self._audit = audit
        self._now = now
        self._enforce = enforce

    async def check(self, grant: Grant, route: Route, lines: Sequence[bytes], client: str, request_id: str) -> None:
        """Everything that can be decided on the head alone. The usual request waits for nothing."""
        if self._enforce and grant.project_active is not True:
            await self._check_project(grant, client, request_id)
        rules = rules_of(grant, route.api)
        if rules is not None:
            rules.check_access(route, client)
        if route.api.allowed_origins:
            cors.check(lines, route.api.allowed_origins)
        if rules is not None:
            rules.check_headers(lines)

    def needs_body(self, grant: Grant, route: Route, operation: ProviderOperation) -> bool:
        """Whether the request's whole body must be read before it can be allowed."""
        rules = rules_of(grant, route.api)
        return rules is not None and rules.needs_body(operation)

    def check_body(self, grant: Grant, route: Route, operation: ProviderOperation, content: RequestContent) -> None:
        """Parameters, output and model: in the body, or in the path where a provider names the model there.

        @param operation: What the request does.
        """
        rules = rules_of(grant, route.api)
        if rules is not None:
            rules.check_body(route, operation, content)

    def params(self, grant: Grant, route: Route) -> frozenset[str]:
        """The members of a body that are looked at, beside those that all requests are asked for."""
        rules = rules_of(grant, route.api)
        return _NONE if rules is None else rules.params

    def varies_with(self, fields: Collection[bytes], grant: Grant, route: Route) -> bool:
        """Whether requests with one head may differ in what they are allowed, where these fields (names in lower case)
        and the client's address differ."""
        if route.api.allowed_origins and b"origin" in fields:
            return True
        rules = rules_of(grant, route.api)
        return rules is not None and rules.varies_with(fields)

    async def _check_project(self, grant: Grant, client: str, request_id: str) -> None:
        """The project guard: 403 if inactive, 503 if that cannot be known, and an audit entry on both."""
        refusal: errors.ProxyError
        active = grant.project_active
        try:
            if active is None:
                active = await self._projects.get_project_active(grant.project_id)
            if active:
                return
            refusal = errors.ProjectInactive()
        except CancelledError:
            raise
        except errors.NotFound:
            refusal = errors.ProjectInactive("The project of this token does not exist.")
        except Exception as e:
            refusal = errors.StoreUnavailable("Whether the project is active could not be found out. Try again.")
            refusal.__cause__ = e
        await self._write(refusal, grant.project_id, grant.token_id, client, request_id)
        raise refusal

    async def audit_revoked(self, refusal: errors.TokenInactive, client: str, request_id: str) -> None:
        """An audit entry for a request with a token that was revoked, where it is known whose that was."""
        if refusal.token_id:
            await self._write(refusal, refusal.project_id, refusal.token_id, client, request_id)

    async def _write(
        self, refusal: errors.ProxyError, project_id: str, token_id: str, client: str, request_id: str
    ) -> None:
        entry = AuditEntry(
            at=self._now(),
            action="request.refused",
            actor=f"token:{token_id}",
            outcome="error" if isinstance(refusal, errors.StoreUnavailable) else "denied",
            project_id=project_id,
            token_id=token_id,
            request_id=request_id,
            client=client,
            details={"code": refusal.code},
        )
        try:
            await self._audit.log(entry)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            raise errors.AuditUnavailable("The request was refused, and that could not be written down.") from e


_NONE: frozenset[str] = frozenset()
