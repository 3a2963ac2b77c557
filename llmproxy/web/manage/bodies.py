"""What the management API is sent, and what of it is wrong."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Self, TypeVar

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llmproxy.config.units import duration
from llmproxy.errors import BodyUnreadable, FieldProblem, Invalid
from llmproxy.web.manage.body_problems import invalid
from llmproxy.web.manage.body_types import (
    MAX_LABELS,
    MAX_METADATA,
    MAX_SPAN_SECONDS,
    Body,
    BodyContext,
    Grace,
    Id,
    KeyList,
    Label,
    MaxRequests,
    MetadataName,
    MetadataText,
    Minutes,
    Name,
    Span,
    Time,
    context_of,
    known_apis,
    span_seconds,
)
from llmproxy.web.manage.limit_bodies import Limits
from llmproxy.web.manage.policy_bodies import Policies

B = TypeVar("B", bound=Body)

MAX_VALUES = 4000  # in a body, and more than all its lists may have; to read many more would hold the reactor


class Keys(Body):
    """Provider keys, by API name or for the default API alone."""

    api_key: KeyList | None = Field(
        None,
        repr=False,
        description="The provider key for the default API, a reference, or a list of several of these.",
    )
    api_keys: dict[str, KeyList | None] = Field(
        default_factory=dict,
        repr=False,
        description="By API name: a provider key, a reference, or a list of several of these.",
    )

    @field_validator("api_keys")
    @classmethod
    def _configured(cls, keys: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        known_apis(keys, info)
        return keys

    @model_validator(mode="after")
    def _one_default(self, info: ValidationInfo) -> Self:
        default = context_of(info).default_api
        if "api_key" in self.model_fields_set:
            if not default:
                raise ValueError("api_key: there is no default API; name the API in api_keys")
            if default in self.api_keys:
                raise ValueError(f"api_key: its key is given in api_keys.{default} too")
        return self

    def provider_keys(self, default_api: str) -> dict[str, str]:
        """Provider keys by API name; C{""} for those to be removed."""
        keys = {api: _key_list(key)[0] for api, key in self.api_keys.items()}
        return keys | ({default_api: _key_list(self.api_key)[0]} if "api_key" in self.model_fields_set else {})

    def further_keys(self, default_api: str) -> dict[str, tuple[str, ...]]:
        """The keys beside these, of APIs that are to have several."""
        given = {**self.api_keys, **({default_api: self.api_key} if "api_key" in self.model_fields_set else {})}
        return {api: tuple(_key_list(keys)[1:]) for api, keys in given.items()}


def _key_list(given: list[str] | None) -> list[str]:
    return given or [""]


class Notes(Body):
    """What its owners write on a project or a token; what is given replaces all that was there."""

    labels: tuple[Label, ...] = Field((), max_length=MAX_LABELS, description="Words to find it by.")
    metadata: dict[MetadataName, MetadataText] = Field(
        default_factory=dict,
        max_length=MAX_METADATA,
        description="Free texts by free names. Of a token, one that is named as an attribution in the settings fixes "
        "that for its requests, whatever their header fields claim.",
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        return tuple(given) if isinstance(given, list) else given

    def notes(self) -> dict[str, Any]:
        """What of it is given, as L{Token} and L{Project} have it."""
        notes: dict[str, Any] = {}
        if "labels" in self.model_fields_set:
            notes["labels"] = tuple(dict.fromkeys(self.labels))
        if "metadata" in self.model_fields_set:
            notes["metadata"] = tuple(sorted(self.metadata.items()))
        return notes


GROUP_TEXT = "The group that it belongs to, whose limits hold for it too; null: none."


class ProjectCreate(Keys, Limits, Policies, Notes):
    """A new project: its name, the provider keys it owns, its limits, and which requests its tokens may make."""

    name: Name
    active: bool = True
    group_id: Id | None = Field(None, description=GROUP_TEXT)


class ProjectChange(Keys, Limits, Policies, Notes):
    """What is to change of a project; what is left out stays. A key that is null is removed."""

    name: Name | None = None
    active: bool | None = None
    group_id: Id | None = Field(None, description=GROUP_TEXT)

    @model_validator(mode="after")
    def _not_null(self) -> Self:
        return no_null(self, "name", "active")


class TokenRules(Limits, Policies, Notes):
    """What the bearer of a token may do; an empty list allows all."""

    expires_in: Span | None = Field(None, description="How long it is valid from now: 24h, 30d, 1h30m.")
    duration_minutes: Minutes | None = Field(None, description="The same in minutes.")
    expires_at: Time | None = Field(None, description="When it expires, RFC 3339 with an offset.")
    max_requests: MaxRequests | None = Field(None, description="Requests allowed in its lifetime; null: no limit.")

    @field_validator("expires_at")
    @classmethod
    def _ahead(cls, at: datetime | None, info: ValidationInfo) -> datetime | None:
        try:
            ahead = 0 < at.timestamp() - context_of(info).now <= MAX_SPAN_SECONDS if at else True
        except OverflowError:
            ahead = False
        if not ahead:
            raise ValueError("must lie in the future, by at most 10 years")
        return at

    @model_validator(mode="after")
    def _one_expiry(self) -> Self:
        if sum(value is not None for value in (self.expires_in, self.duration_minutes, self.expires_at)) > 1:
            raise ValueError("expires_in, duration_minutes and expires_at exclude each other")
        return self

    def expiry(self, now: float) -> float | None:
        """When the token expires, in seconds since the epoch; C{None} for never."""
        if self.expires_in is not None:
            return now + span_seconds(self.expires_in)
        if self.duration_minutes is not None:
            return now + self.duration_minutes * 60
        return self.expires_at.timestamp() if self.expires_at else None


class TokenCreate(TokenRules):
    """A new token of a project. Without an expiry it is valid until it is revoked."""

    project_id: Id
    name: Name | None = None


class TokenChange(TokenRules):
    """What is to change of a token; what is left out stays. C{null} lifts an expiry or a limit."""

    name: Name | None = None


class TokenRotate(Body):
    """How a token gets another secret."""

    grace: Grace = Field("24h", description="How long the secret before stays valid: 24h, 30m; 0s: not at all.")

    @property
    def grace_seconds(self) -> float:
        return float(duration(self.grace))


def read(kind: type[B], data: bytes, known: BodyContext) -> B:
    """The body as C{kind}. L{BodyUnreadable} where it is no JSON object, L{Invalid} naming each field that is wrong."""
    if sum(map(data.count, (b",", b"{", b"["))) > MAX_VALUES:
        raise BodyUnreadable(f"The body must be a JSON object of at most {MAX_VALUES} values.")
    try:
        value = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise BodyUnreadable("The body must be a JSON object in UTF-8 that names no key twice.") from None
    if not isinstance(value, dict):
        said = "The body must be a JSON object."
        raise Invalid(said, [FieldProblem(said, "pointer", "#")])
    try:
        return kind.model_validate_json(data, context=known)
    except ValidationError as e:
        raise invalid(e, value, kind.model_fields, known) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def no_null(body: B, *names: str) -> B:
    for name in names:
        if name in body.model_fields_set and getattr(body, name) is None:
            raise ValueError(f"{name}: must not be null")
    return body
