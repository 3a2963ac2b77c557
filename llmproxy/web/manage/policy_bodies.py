"""The policies that the management API is sent and answers with, of tokens and projects alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, WithJsonSchema, field_validator

from llmproxy.access_policy import ALL_ALLOWED, AccessPolicy
from llmproxy.config import names
from llmproxy.errors import Invalid
from llmproxy.http.endpoints import overlap
from llmproxy.web.manage.body_types import Body, Endpoint, MetadataText, Model, Network, known_apis
from llmproxy.web.manage.deferred_model import DeferredModel

MAX_LISTED = 256  # of a list
MAX_NAMES = 64  # of members and header fields that are looked at
PARAM = r"[!-{}~]{1,128}"  # visible characters of ASCII, without the bar

Method = Annotated[str, AfterValidator(names.method), WithJsonSchema({"type": "string", "enum": [*names.METHODS]})]
Param = Annotated[str, StringConstraints(pattern=f"^{PARAM}$")]
RequiredParam = Annotated[str, StringConstraints(pattern=rf"^{PARAM}(?:\|{PARAM}){{0,7}}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^`|~0-9A-Za-z-]{1,128}$")]
PolicyHeader = Annotated[HeaderName, AfterValidator(names.policy_header)]
Globs = Annotated[tuple[MetadataText, ...], Field(min_length=1, max_length=MAX_LISTED)]


class Policies(Body):
    """Which requests are allowed; what is empty, or null, allows all. Of the API, the project and the token, all must
    allow a request."""

    apis: tuple[str, ...] = Field((), max_length=MAX_LISTED, description="Names of the APIs that may be called.")
    methods: tuple[Method, ...] = Field((), max_length=len(names.METHODS), description="HEAD goes with GET.")
    endpoints: tuple[Endpoint, ...] = Field(
        (), max_length=MAX_LISTED, description="As they stand in allowed_endpoints."
    )
    models: tuple[Model, ...] = Field((), max_length=MAX_LISTED, description="Globs of model names.")
    ips: tuple[Network, ...] = Field((), max_length=MAX_LISTED, description="Networks that requests may come from.")
    max_output_tokens: int | None = Field(
        None, ge=1, le=10**12, description="The most output that a request may ask for, all its choices together."
    )
    param_whitelist: dict[Param, Globs] = Field(
        default_factory=dict,
        max_length=MAX_NAMES,
        description="Members of the body, and globs of what each may be where it is there.",
    )
    required_params: tuple[RequiredParam, ...] = Field(
        (),
        max_length=MAX_NAMES,
        description="Members that must be there; a|b: one of both.",
    )
    required_headers: tuple[HeaderName, ...] = Field(
        (), max_length=MAX_NAMES, description="Header fields that must be there."
    )
    header_values: dict[PolicyHeader, Globs] = Field(
        default_factory=dict,
        max_length=MAX_NAMES,
        description="Header fields, and globs of what each may be where it is there.",
    )

    @field_validator("apis")
    @classmethod
    def _known(cls, apis: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known_apis(apis, info)
        return apis

    @field_validator("header_values")
    @classmethod
    def _each_once(cls, values: dict[str, Any]) -> dict[str, Any]:
        if len({name.lower() for name in values}) < len(values):
            raise ValueError("names a header field twice, in another case")
        return values

    def policy(self, before: AccessPolicy = ALL_ALLOWED, beside: Collection[str] = ()) -> AccessPolicy:
        """This policy; what is not given as it was before.

        @param beside: Lists that are kept elsewhere.
        """
        given: dict[str, Any] = {}
        for name in Policies.model_fields.keys() & self.model_fields_set - {*beside}:
            value = getattr(self, name)
            given[name] = tuple(sorted(value.items())) if isinstance(value, dict) else value
        return replace(before, **given)


class FurtherPolicyView(DeferredModel):
    """Which requests are allowed, beside APIs, endpoints, models and networks."""

    methods: list[str]
    max_output_tokens: int | None
    param_whitelist: dict[str, list[str]]
    required_params: list[str]
    required_headers: list[str]
    header_values: dict[str, list[str]]


class PolicyView(FurtherPolicyView):
    """Which requests are allowed; what is empty, or null, allows all."""

    apis: list[str]
    endpoints: list[str]
    models: list[str]
    ips: list[str]


def policy_json(policy: AccessPolicy, kind: type[FurtherPolicyView] = PolicyView) -> dict[str, Any]:
    """The members of such a view."""
    shown: dict[str, Any] = {}
    for name in kind.model_fields:
        value = getattr(policy, name)
        if name in ("param_whitelist", "header_values"):
            shown[name] = {each: list(globs) for each, globs in value}
        else:
            shown[name] = list(value) if isinstance(value, tuple) else value
    return shown


def check_endpoints(endpoints: Iterable[str], apis: Iterable[str], known: Mapping[str, Collection[str]]) -> None:
    """L{Invalid} where one of them is no endpoint of any of the APIs that may be called: it could never be used."""
    there = [pattern for api in (apis or known) for pattern in known.get(api, ())]
    for endpoint in endpoints:
        if not any(overlap(endpoint, pattern) for pattern in there):
            of = " or ".join(apis) or "any API"
            raise Invalid.part(
                "pointer", "endpoints", f"{endpoint} is no endpoint of {of}; see allowed_endpoints in the settings."
            )
