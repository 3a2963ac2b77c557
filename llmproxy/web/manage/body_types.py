"""The kinds of values that bodies sent to the management API have, and what all of these bodies share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from llmproxy.base import budgets
from llmproxy.base.secret_reference import SecretReference
from llmproxy.config.units import duration
from llmproxy.http.endpoints import Endpoints
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.paging import ID

MAX_BODY = 1024 * 1024
MAX_GRACE_SECONDS = 90 * 86400.0
MAX_SPAN_SECONDS = 3650 * 86400.0
RFC3339 = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)"
MAX_KEYS = 32  # of a project for one API


@dataclass(frozen=True, slots=True)
class BodyContext:
    """What a body is judged by: the configured APIs, the one that C{api_key} alone means, and the time.

    @ivar reference: Reads a text as a reference to a secret; C{None} where it is none, L{ValueError} if not allowed.
    """

    apis: Collection[str]
    default_api: str
    now: float
    reference: Callable[[str], SecretReference | None] = lambda text: None


def printable(text: str) -> str:
    """The text; L{ValueError} where it is blank or has control characters."""
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


def span_seconds(text: str) -> float:
    """Seconds in C{24h}, C{30d}, C{1h30m}; L{ValueError} for none, nothing, or more than 10 years."""
    seconds = duration(text)
    if not 0 < seconds <= MAX_SPAN_SECONDS:
        raise ValueError("must be longer than nothing and at most 10 years (try 24h, 30d)")
    return seconds


def _span(text: str) -> str:
    span_seconds(text)
    return text


def _grace(text: str) -> str:
    if duration(text) > MAX_GRACE_SECONDS:
        raise ValueError("must be at most 90 days (try 24h, 30m)")
    return text


def _key_or_reference(text: str, info: ValidationInfo) -> str:
    return context_of(info).reference(text) or text


def _different(keys: list[str]) -> list[str]:
    if len(set(keys)) < len(keys):
        raise ValueError("two of the keys are the same")
    return keys


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(printable)]
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
Grace = Annotated[str, StringConstraints(max_length=64), AfterValidator(_grace)]
Span = Annotated[str, StringConstraints(max_length=64), AfterValidator(_span)]
Time = Annotated[datetime, BeforeValidator(_time)]
_ENDPOINT = r"^([A-Z][A-Z-]{0,31} )?/[\x21-\x7e]{0,511}$"
Endpoint = Annotated[str, StringConstraints(pattern=_ENDPOINT), AfterValidator(_endpoint)]
Model = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,256}$")]
Network = Annotated[str, StringConstraints(max_length=64), AfterValidator(_network)]
MaxRequests = Annotated[int, Field(ge=1, le=2**31 - 1)]
Minutes = Annotated[int, Field(ge=1, le=int(MAX_SPAN_SECONDS // 60))]


Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/=-]{0,63}$")]
MetadataName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
MetadataText = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(printable)]
MAX_LABELS = MAX_METADATA = 16
Rate = Annotated[int, Field(ge=1, le=10**12)]


def _text_like(pattern: str) -> WithJsonSchema:
    """Tells machines the pattern; people hear what was meant instead."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


def _usd(text: str) -> str:
    return budgets.usd_text(budgets.usd(text))


def _token_budget(text: str) -> str:
    return budgets.tokens_text(budgets.tokens(text))


def _listed(given: object) -> object:
    return (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given


UsdBudgets = Annotated[
    tuple[Annotated[str, AfterValidator(_usd), _text_like(budgets.USD)], ...],
    BeforeValidator(_listed),
    Field(max_length=3),
]
TokenBudgets = Annotated[
    tuple[Annotated[str, AfterValidator(_token_budget), _text_like(budgets.TOKENS)], ...],
    BeforeValidator(_listed),
    Field(max_length=3),
]


class Body(DeferredModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def context_of(info: ValidationInfo) -> BodyContext:
    """What the body is judged by that is being read."""
    known = info.context
    assert isinstance(known, BodyContext)
    return known


def known_apis(names: Iterable[str], info: ValidationInfo) -> None:
    """L{ValueError} where one of them is not configured."""
    # The name is not repeated: whoever swaps name and key has put a key there.
    apis = context_of(info).apis
    if not all(name in apis for name in names):
        raise ValueError(f"names an API that is not configured (known: {', '.join(sorted(apis))})")
