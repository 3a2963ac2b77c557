"""The kinds of values that settings have, with what a JSON Schema says of each, and what every section shares.

Durations are seconds (float) and sizes bytes (int) once read; in the file they are written C{30s} and C{64KiB}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from llmproxy.base import budgets
from llmproxy.config import addresses, names, values
from llmproxy.config.units import (
    DURATION,
    PERCENT,
    SIZE,
    duration,
    duration_text,
    percent,
    percent_text,
    size,
    size_text,
)

Text = Annotated[str, BeforeValidator(values.text)]
Name = Annotated[str, BeforeValidator(values.name)]
Flag = Annotated[bool, BeforeValidator(values.flag)]
Whole = Annotated[int, BeforeValidator(values.whole)]
Workers = Annotated[
    int | Literal["auto"],
    BeforeValidator(values.workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": values.MAX_WORKERS}, {"const": "auto"}]}),
]
Amount = Annotated[float, BeforeValidator(values.amount), WithJsonSchema({"type": "number", "minimum": 0})]
Duration = Annotated[
    float,
    BeforeValidator(duration),
    PlainSerializer(duration_text, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^(?:{DURATION})$"}, {"const": 0}]}),
]
Size = Annotated[
    int,
    BeforeValidator(size),
    PlainSerializer(size_text, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^(?:{SIZE})$"}, {"type": "integer", "minimum": 0}]}),
]
Percent = Annotated[
    float,
    BeforeValidator(percent),
    PlainSerializer(percent_text, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^(?:{PERCENT})$"}, {"const": 0}]}),
]
Items = BeforeValidator(values.items)

Listen = Annotated[tuple[Annotated[str, BeforeValidator(addresses.listen)], ...], Items]
Networks = Annotated[tuple[Annotated[str, BeforeValidator(addresses.network)], ...], Items]
Endpoints = Annotated[tuple[Annotated[str, BeforeValidator(names.endpoint)], ...], Items]
_USD: dict[str, Any] = {
    "anyOf": [{"type": "string", "pattern": budgets.USD}, {"type": "number", "exclusiveMinimum": 0}]
}
_TOKENS: dict[str, Any] = {"anyOf": [{"type": "string", "pattern": budgets.TOKENS}, {"type": "integer", "minimum": 1}]}
UsdBudgets = Annotated[
    tuple[Annotated[str, BeforeValidator(values.usd)], ...],
    BeforeValidator(values.one_or_more),
    WithJsonSchema({"anyOf": [_USD, {"type": "array", "items": _USD}]}),
]
TokenBudgets = Annotated[
    tuple[Annotated[str, BeforeValidator(values.token_budget)], ...],
    BeforeValidator(values.one_or_more),
    WithJsonSchema({"anyOf": [_TOKENS, {"type": "array", "items": _TOKENS}]}),
]
Method = Annotated[str, BeforeValidator(names.method), WithJsonSchema({"enum": [*names.METHODS]})]
Methods = Annotated[tuple[Method, ...], Items]
Origins = Annotated[tuple[Annotated[str, BeforeValidator(addresses.origin)], ...], Items]
Headers = Annotated[tuple[Annotated[str, BeforeValidator(names.header)], ...], Items]
SessionHeaders = Annotated[tuple[Annotated[str, BeforeValidator(names.session_header)], ...], Items]
Pattern = Annotated[str, BeforeValidator(values.pattern), WithJsonSchema({"type": ["string", "number", "boolean"]})]
Patterns = Annotated[tuple[Pattern, ...], Items, Field(min_length=1)]
PolicyHeader = Annotated[str, BeforeValidator(names.policy_header)]
HeaderValues = dict[PolicyHeader, Patterns]
RequiredParams = Annotated[tuple[Annotated[str, BeforeValidator(names.required_param)], ...], Items]

BaseUrl = Annotated[
    str, BeforeValidator(addresses.base_url), WithJsonSchema({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"})
]
ProxyUrl = Annotated[str, BeforeValidator(addresses.proxy_url)]
ProxyCredentials = Annotated[str, BeforeValidator(addresses.credentials_reference)]
AttributionName = Annotated[str, BeforeValidator(names.attribution_name)]
AttributionHeader = Annotated[str, BeforeValidator(names.attribution_header)]
ApiName = Annotated[str, BeforeValidator(names.api_name)]
RetryCause = Annotated[
    str,
    BeforeValidator(names.retry_cause),
    WithJsonSchema({"enum": [*names.RETRY_CAUSES, *map(int, names.RETRY_STATUSES), *names.RETRY_STATUSES]}),
]
ProbePath = Annotated[
    str, BeforeValidator(names.probe_path), WithJsonSchema({"type": "string", "pattern": names.PROBE_PATH})
]
ProbeStatus = Annotated[
    str,
    BeforeValidator(names.probe_status),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"type": "string", "pattern": names.PROBE_STATUS},
            ]
        }
    ),
]
Provider = Literal["openai", "anthropic", "google", "mistral", "azure", "bedrock-bearer", "generic"]
ErrorFormat = Literal["auto", "openai", "anthropic", "google", "plain"]


class Section(BaseModel):
    """A mapping of known keys. A key without a value is as good as none."""

    # The validator of the whole settings has those of all sections in it: none of them is made for itself.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {key: value for key, value in given.items() if value is not None or key not in cls.model_fields}
