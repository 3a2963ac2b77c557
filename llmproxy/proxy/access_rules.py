"""What an API, a project and a token allow together: each has an L{AccessPolicy}, all must allow a request. Pure.

Policies are compiled once and looked up by their value, so that what is checked of a request is only what they say.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from llmproxy import errors
from llmproxy.access_policy import ALL_ALLOWED, AccessPolicy
from llmproxy.config.api_settings import Api
from llmproxy.config.routes import Route
from llmproxy.http import body_hints, body_params, header_policy, target
from llmproxy.http.endpoints import Endpoints
from llmproxy.http.forwarded import is_within, networks
from llmproxy.http.request_reader import RequestContent
from llmproxy.metering.dialects.operation import Members, ProviderOperation, is_storage
from llmproxy.metering.output_maximum import check_output, output_members
from llmproxy.model import Grant

MAX_REMEMBERED_RULES = 1024  # combinations of policies, and policies


def rules_of(grant: Grant, api: Api) -> AccessRules | None:
    """What must be checked of requests with this grant to this API; C{None} where that is nothing."""
    policy = api.policy
    own = grant.apis or grant.endpoints or grant.models or grant.ips
    if policy is None and not own and grant.policy is None and grant.project_policy is None:
        return None
    return _compiled(policy, grant.project_policy, grant.policy, grant.apis, grant.endpoints, grant.models, grant.ips)


class AccessRules:
    """What several levels allow.

    @ivar params: The members of bodies that are looked at.
    """

    def __init__(self, levels: Sequence[_Level]) -> None:
        self._levels = levels
        self._checks_headers = any(level.policy.required_headers or level.policy.header_values for level in levels)
        self.params = frozenset(name for level in levels for name in level.params)

    def check_access(self, route: Route, client: str) -> None:
        """The API, endpoint and method, and the client's address."""
        for level in self._levels:
            level.check_access(route, client)
        if any(level.methods and route.method not in level.methods for level in self._levels):
            raise errors.MethodNotAllowed(headers={"Allow": self._allow(route.api)})

    def check_headers(self, lines: Sequence[bytes]) -> None:
        """The header fields that must be there, and what they say."""
        if self._checks_headers:
            for level in self._levels:
                level.check_headers(lines)

    def needs_body(self, operation: ProviderOperation) -> bool:
        """Whether a request's whole body must be read before it can be allowed."""
        return any(level.needs_body(operation) for level in self._levels)

    def check_body(self, route: Route, operation: ProviderOperation, content: RequestContent) -> None:
        """Parameters, the output asked for, and the model: in the body, or in the path where that names it."""
        in_path = body_hints.model_in_path(route.path)
        for level in self._levels:
            level.check_param_in_path(in_path)
        members: Members = {}
        models = {in_path}
        if content.form != "none":
            checked = {"model", *self.params}
            if any(level.policy.max_output_tokens is not None for level in self._levels):
                checked |= output_members(operation)
            members = body_params.checked_members(content, checked)
        for level in self._levels:
            level.check_params(operation, members, in_path)
        if content.form != "none":
            models.add(body_params.model_of(members))
        for level in self._levels:
            if level.policy.models:
                level.check_models(operation, members, models)

    def varies_with(self, fields: Collection[bytes]) -> bool:
        """Whether requests with one head may differ in what they are allowed, where these fields (names in lower case)
        and the client's address differ."""
        named = {name for level in self._levels for name in level.headers}
        return any(level.policy.ips for level in self._levels) or not named.isdisjoint(fields)

    def _allow(self, api: Api) -> str:
        methods = [*api.allowed_methods, *(("HEAD",) if "GET" in api.allowed_methods else ())]
        return ", ".join(
            method
            for method in dict.fromkeys(methods)
            if all(not level.methods or method.encode("ascii") in level.methods for level in self._levels)
        )


class _Level:
    """What one of them allows.

    @ivar whose: C{API}, C{project} or C{token}.
    @ivar methods: HEAD goes with GET (RFC 9110, section 9.3.2).
    @ivar params: The members of bodies that it names; C{headers}: the header fields, in lower case.
    """

    def __init__(self, whose: str, policy: AccessPolicy) -> None:
        self.whose = whose
        self.policy = policy
        self.methods = frozenset(
            each.encode("ascii") for each in (*policy.methods, *(("HEAD",) if "GET" in policy.methods else ()))
        )
        self._endpoints = Endpoints(policy.endpoints) if policy.endpoints else None
        self._whitelist = dict(policy.param_whitelist)
        self._required = [tuple(each.split("|")) for each in policy.required_params]
        self.params = frozenset((*self._whitelist, *(name for each in self._required for name in each)))
        named = (*policy.required_headers, *(name for name, _ in policy.header_values))
        self.headers = frozenset(name.lower().encode("ascii") for name in named)

    def check_access(self, route: Route, client: str) -> None:
        policy = self.policy
        if policy.apis and route.api_name not in policy.apis:
            raise errors.ApiNotAllowed(f"This {self.whose} may not use this API.")
        if self._endpoints is not None:
            segments = target.parse(route.path).segments
            if not self._endpoints.match(segments, route.method):
                raise errors.EndpointNotAllowed(f"This {self.whose} may not use this endpoint.")
        if policy.ips and not is_within(client, networks(policy.ips)):
            raise errors.AddressNotAllowed(f"This {self.whose} may not be used from this address.")

    def check_headers(self, lines: Sequence[bytes]) -> None:
        header_policy.check_required(lines, self.policy.required_headers, self.whose)
        for name, patterns in self.policy.header_values:
            header_policy.check_values(lines, name, patterns, self.whose)

    def needs_body(self, operation: ProviderOperation) -> bool:
        policy = self.policy
        return bool(
            policy.param_whitelist
            or (policy.models and not is_storage(operation))
            or ((policy.required_params or policy.max_output_tokens is not None) and not operation.free)
        )

    def check_param_in_path(self, model: str) -> None:
        if model and "model" in self._whitelist:
            body_params.check_param("model", model, self._whitelist["model"], self.whose)

    def check_params(self, operation: ProviderOperation, members: Members, in_path: str) -> None:
        """
        @param in_path: The model that the path names.
        """
        requests = () if operation.requests is None else operation.requests(members) or ()
        for each in (members, *(request for _, request in requests)):
            body_params.check_params(each, self._whitelist, self.whose)
        if operation.free:
            return
        for each in [request for _, request in requests] or [members]:
            there = {**each, "model": in_path} if in_path else each
            body_params.check_required(there, self._required, self.whose)
        if self.policy.max_output_tokens is not None:
            check_output(operation, members, self.policy.max_output_tokens, self.whose)

    def check_models(self, operation: ProviderOperation, members: Members, models: Collection[str]) -> None:
        """
        @param models: Those that the path and the body name; C{""} for none.
        """
        if operation.requests is not None:
            requests = operation.requests(members)
            if not requests:
                raise errors.ModelNotAllowed(
                    f"This {self.whose} may use some models only, and the batch does not tell its own."
                )
            models = {*models, *(model for model, _ in requests)}
        if not any(models) and operation.takes_model and not operation.free:
            raise errors.ModelNotAllowed(f"This {self.whose} may use some models only, and the request names none.")
        if not all(_among(model, self.policy.models) for model in models if model):
            raise errors.ModelNotAllowed(f"This {self.whose} may not use the model that was asked for.")


@lru_cache(MAX_REMEMBERED_RULES)
def _compiled(
    api: AccessPolicy | None,
    project: AccessPolicy | None,
    token: AccessPolicy | None,
    apis: tuple[str, ...],
    endpoints: tuple[str, ...],
    models: tuple[str, ...],
    ips: tuple[str, ...],
) -> AccessRules:
    own = AccessPolicy(apis=apis, endpoints=endpoints, models=models, ips=ips)
    levels = (("API", api), ("project", project), ("token", own), ("token", token))
    return AccessRules([_Level(whose, each) for whose, each in levels if each is not None and each != ALL_ALLOWED])


def _among(model: str, allowed: Sequence[str]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in allowed)
