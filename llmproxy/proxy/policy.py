"""What a validated token's bearer may do with one API: project, address, endpoint, origin, headers, parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from twisted.internet.defer import CancelledError

from llmproxy import errors
from llmproxy.config.routes import Route
from llmproxy.http import body_hints, body_params, cors, target
from llmproxy.http.endpoints import Endpoints
from llmproxy.http.forwarded import is_within, networks
from llmproxy.http.request_reader import RequestContent
from llmproxy.interfaces import IAuditLogger, IProviderKeys
from llmproxy.metering.dialects.operation import ProviderOperation, is_storage
from llmproxy.model import AuditEntry, Grant


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
        if grant.apis and route.api_name not in grant.apis:
            raise errors.ApiNotAllowed
        if grant.endpoints and not _compiled(grant.endpoints).match(target.parse(route.path).segments, route.method):
            raise errors.EndpointNotAllowed("This token may not use this endpoint.")
        if grant.ips and not is_within(client, networks(grant.ips)):
            raise errors.AddressNotAllowed
        api = route.api
        if api.allowed_origins or api.required_headers:
            cors.check(lines, api.allowed_origins, api.required_headers)

    def needs_body(self, grant: Grant, route: Route, operation: ProviderOperation) -> bool:
        """Whether the request's whole body must be read before it can be allowed."""
        return bool(route.api.param_whitelist or (grant.models and not is_storage(operation)))

    def check_body(self, grant: Grant, route: Route, operation: ProviderOperation, content: RequestContent) -> None:
        """Parameters and model: in the body, or in the path where a provider names the model there.

        @param operation: What the request does.
        """
        whitelist = route.api.param_whitelist
        named = body_hints.model_in_path(route.path)
        if named and "model" in whitelist:
            body_params.check_param("model", named, whitelist["model"])
        models = {named}
        if content.form != "none":
            members = body_params.checked_members(content, ["model", *whitelist])
            body_params.check_params(members, whitelist)
            models.add(body_params.model_of(members))
        if not grant.models:
            return
        if operation.requests is not None:
            requests = operation.requests(content.members)
            if not requests:
                raise errors.ModelNotAllowed(
                    "This token may use some models only, and the batch does not tell its own."
                )
            models |= {model for model, _ in requests}
        if not any(models) and operation.takes_model and not operation.free:
            raise errors.ModelNotAllowed("This token may use some models only, and the request names none.")
        if not all(_among(model, grant.models) for model in models if model):
            raise errors.ModelNotAllowed

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


@lru_cache(1024)
def _compiled(patterns: tuple[str, ...]) -> Endpoints:
    return Endpoints(patterns)


def _among(model: str, allowed: Sequence[str]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in allowed)
