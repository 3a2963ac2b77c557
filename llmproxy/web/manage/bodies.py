"""What the management API is sent, and what of it is wrong."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from llmproxy.base import budgets
from llmproxy.base.secret_reference import SecretReference
from llmproxy.config.units import duration
from llmproxy.errors import BodyUnreadable, Invalid
from llmproxy.http.endpoints import Endpoints
from llmproxy.model import UNLIMITED, Allowance
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.paging import ID

B = TypeVar("B", bound="Body")

MAX_BODY = 1024 * 1024
MAX_VALUES = 4000  # in a body, and more than all its lists may have; to read many more would hold the reactor
MAX_SPAN_SECONDS = 3650 * 86400.0
RFC3339 = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)"
MAX_KEYS = 32  # of a project for one API
MAX_LISTED_ERRORS = 20  # errors that one response names


@dataclass(frozen=True, slots=True)
class BodyContext:
    """What a body is judged by: the configured APIs, the one that C{api_key} alone means, and the time.

    @ivar reference: Reads a text as a reference to a secret; C{None} where it is none, L{ValueError} if not allowed.
    """

    apis: Collection[str]
    default_api: str
    now: float
    reference: Callable[[str], SecretReference | None] = lambda text: None


def _printable(text: str) -> str:
    if not text.strip() or any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError("must be text without control characters")
    return text


def _network(text: str) -> str:
    try:
        if "%" in text:
            raise ValueError
        return str(ip_network(text))
    except ValueError:
        raise ValueError("must be an address or a network such as 10.0.0.0/8, with no host bits set") from None


def _endpoint(text: str) -> str:
    Endpoints((text,))
    return text


def _time(given: object) -> datetime:
    if not isinstance(given, str) or not re.fullmatch(RFC3339, given):
        raise ValueError("must be an RFC 3339 time such as 2027-01-31T12:00:00Z")
    return datetime.fromisoformat(given.upper())


def _span_seconds(text: str) -> float:
    """Seconds in C{24h}, C{30d}, C{1h30m}; L{ValueError} for none, nothing, or more than 10 years."""
    seconds = duration(text)
    if not 0 < seconds <= MAX_SPAN_SECONDS:
        raise ValueError("must be longer than nothing and at most 10 years (try 24h, 30d)")
    return seconds


def _span(text: str) -> str:
    _span_seconds(text)
    return text


def _key_or_reference(text: str, info: ValidationInfo) -> str:
    return _known(info).reference(text) or text


def _different(keys: list[str]) -> list[str]:
    if len(set(keys)) < len(keys):
        raise ValueError("two of the keys are the same")
    if len(keys) > 1 and any(isinstance(key, SecretReference) for key in keys):
        raise ValueError("a reference stands alone: of several keys none is kept elsewhere")
    return keys


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Key = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,4096}$"), AfterValidator(_key_or_reference)]
_KEY = {"type": "string", "pattern": r"^[\x21-\x7e]{1,4096}$"}
KeyList = Annotated[
    list[Key],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    Field(min_length=1, max_length=MAX_KEYS),
    AfterValidator(_different),
    WithJsonSchema({"anyOf": [_KEY, {"type": "array", "items": _KEY, "minItems": 1, "maxItems": MAX_KEYS}]}),
]
Id = Annotated[str, StringConstraints(pattern=ID)]
Span = Annotated[str, StringConstraints(max_length=64), AfterValidator(_span)]
Time = Annotated[datetime, BeforeValidator(_time)]
_ENDPOINT = r"^([A-Z][A-Z-]{0,31} )?/[\x21-\x7e]{0,511}$"
Endpoint = Annotated[str, StringConstraints(pattern=_ENDPOINT), AfterValidator(_endpoint)]
Model = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,256}$")]
Network = Annotated[str, StringConstraints(max_length=64), AfterValidator(_network)]
MaxRequests = Annotated[int, Field(ge=1, le=2**31 - 1)]
Minutes = Annotated[int, Field(ge=1, le=int(MAX_SPAN_SECONDS // 60))]


Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]
MetadataName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
MetadataText = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_printable)]
MAX_LABELS = MAX_METADATA = 16
Rate = Annotated[int, Field(ge=1, le=10**12)]


def _usd(text: str) -> str:
    return budgets.usd_text(budgets.usd(text))


def _token_budget(text: str) -> str:
    return budgets.tokens_text(budgets.tokens(text))


def _listed(given: object) -> object:
    return (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given


UsdBudgets = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=budgets.USD), AfterValidator(_usd)], ...],
    BeforeValidator(_listed),
    Field(max_length=3),
]
TokenBudgets = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=budgets.TOKENS), AfterValidator(_token_budget)], ...],
    BeforeValidator(_listed),
    Field(max_length=3),
]


class Body(DeferredModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Keys(Body):
    """Provider keys, by API name or for the default API alone."""

    api_key: KeyList | None = Field(
        None,
        repr=False,
        description="The provider key for the default API, a list of several, or a reference.",
    )
    api_keys: dict[str, KeyList | None] = Field(
        default_factory=dict, repr=False, description="By API name: a provider key, a list of several, or a reference."
    )

    @field_validator("api_keys")
    @classmethod
    def _configured(cls, keys: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        known_apis(keys, info)
        return keys

    @model_validator(mode="after")
    def _one_default(self, info: ValidationInfo) -> Self:
        default = _known(info).default_api
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


_READ = {"budget_usd": budgets.usd, "budget_tokens": budgets.tokens}


class Limits(Body):
    """What may be used; null, or an empty list, for no limit."""

    requests_per_minute: Rate | None = Field(None, description="Requests in any minute.")
    tokens_per_minute: Rate | None = Field(None, description="Tokens in any minute, input and output.")
    concurrency: Rate | None = Field(None, description="Requests at once.")
    budget_usd: UsdBudgets = Field((), description='Dollars: "20/month", one for each of day, month and lifetime.')
    budget_tokens: TokenBudgets = Field((), description='Tokens: "1000000/day", likewise.')

    @field_validator("budget_usd", "budget_tokens")
    @classmethod
    def _periods_differ(cls, given: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        budgets.each_once(map(_READ[info.field_name or ""], given))
        return given

    def limits(self, before: Allowance = UNLIMITED) -> Allowance:
        """These limits; those that are not given as they were before."""
        given = {name: getattr(self, name) for name in Limits.model_fields if name in self.model_fields_set}
        for name in _READ.keys() & given.keys():
            given[name] = budgets.each_once(map(_READ[name], given[name]))
        return replace(before, **given)


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


class ProjectCreate(Keys, Limits, Notes):
    """A new project: its name, the provider keys it owns, and its limits."""

    name: Name
    active: bool = True
    group_id: Id | None = Field(None, description=GROUP_TEXT)


class ProjectChange(Keys, Limits, Notes):
    """What is to change of a project; what is left out stays. A key that is null is removed."""

    name: Name | None = None
    active: bool | None = None
    group_id: Id | None = Field(None, description=GROUP_TEXT)

    @model_validator(mode="after")
    def _not_null(self) -> Self:
        return no_null(self, "name", "active")


class TokenRules(Limits, Notes):
    """What the bearer of a token may do; an empty list allows all."""

    expires_in: Span | None = Field(None, description="How long it is valid from now: 24h, 30d, 1h30m.")
    duration_minutes: Minutes | None = Field(None, description="The same in minutes.")
    expires_at: Time | None = Field(None, description="When it expires, RFC 3339 with an offset.")
    max_requests: MaxRequests | None = Field(None, description="Requests allowed in its lifetime; null: no limit.")
    apis: tuple[str, ...] = Field((), max_length=256, description="Names of the APIs it may call.")
    endpoints: tuple[Endpoint, ...] = Field((), max_length=256, description="As they stand in allowed_endpoints.")
    models: tuple[Model, ...] = Field((), max_length=256, description="Globs of model names.")
    ips: tuple[Network, ...] = Field((), max_length=256, description="Networks it may be used from.")

    @field_validator("expires_at")
    @classmethod
    def _ahead(cls, at: datetime | None, info: ValidationInfo) -> datetime | None:
        try:
            ahead = 0 < at.timestamp() - _known(info).now <= MAX_SPAN_SECONDS if at else True
        except OverflowError:
            ahead = False
        if not ahead:
            raise ValueError("must lie in the future, by at most 10 years")
        return at

    @field_validator("apis")
    @classmethod
    def _configured(cls, apis: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known_apis(apis, info)
        return apis

    @model_validator(mode="after")
    def _one_expiry(self) -> Self:
        if sum(value is not None for value in (self.expires_in, self.duration_minutes, self.expires_at)) > 1:
            raise ValueError("expires_in, duration_minutes and expires_at exclude each other")
        return self

    def expiry(self, now: float) -> float | None:
        """When the token expires, in seconds since the epoch; C{None} for never."""
        if self.expires_in is not None:
            return now + _span_seconds(self.expires_in)
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


def read(kind: type[B], data: bytes, known: BodyContext) -> B:
    """The body as C{kind}. L{BodyUnreadable} where it is no JSON object, L{Invalid} naming each field that is wrong."""
    if sum(map(data.count, (b",", b"{", b"["))) > MAX_VALUES:
        raise BodyUnreadable(f"The body must be a JSON object of at most {MAX_VALUES} values.")
    try:
        value = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise BodyUnreadable("The body must be a JSON object in UTF-8 that names no key twice.") from None
    if not isinstance(value, dict):
        raise Invalid("The body must be a JSON object.")
    try:
        return kind.model_validate_json(data, context=known)
    except ValidationError as e:
        raise Invalid(_said(e, known)) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _known(info: ValidationInfo) -> BodyContext:
    known = info.context
    assert isinstance(known, BodyContext)
    return known


def known_apis(names: Iterable[str], info: ValidationInfo) -> None:
    """L{ValueError} where one of them is not configured."""
    # The name is not repeated: whoever swaps name and key has put a key there.
    apis = _known(info).apis
    if not all(name in apis for name in names):
        raise ValueError(f"names an API that is not configured (known: {', '.join(sorted(apis))})")


def no_null(body: B, *names: str) -> B:
    for name in names:
        if name in body.model_fields_set and getattr(body, name) is None:
            raise ValueError(f"{name}: must not be null")
    return body


def _said(error: ValidationError, known: BodyContext) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    said = [_line(e["loc"], e["type"], e["msg"], known) for e in found[:MAX_LISTED_ERRORS]]
    more = [f"and {len(found) - MAX_LISTED_ERRORS} more"] if len(found) > MAX_LISTED_ERRORS else []
    return "The body is not valid: " + "; ".join(said + more) + "."


def _line(path: tuple[int | str, ...], kind: str, said: str, known: BodyContext) -> str:
    what = "unknown key" if kind == "extra_forbidden" else said.removeprefix("Value error, ")
    return ": ".join(filter(None, (".".join(_step(step, known) for step in path), what)))


def _step(step: int | str, known: BodyContext) -> str:
    """A step of a field's path, unless it may be a secret or worse in the wrong place."""
    plain = isinstance(step, int) or step in known.apis or re.fullmatch("[A-Za-z_]{1,32}", step)
    return str(step) if plain else "…"
