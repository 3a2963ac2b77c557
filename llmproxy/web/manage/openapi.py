"""C{/manage/openapi.json}: the management API described for machines, from what serves it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from llmproxy.observability.activity import GROUPS, PERIODS
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.activity import DEFAULT_PERIOD
from llmproxy.web.manage.alerts import OWNERS
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import ApiOperation, Call, Endpoint, ManagementContext, operation
from llmproxy.web.manage.paging import (
    DEFAULT_PAGE_SIZE,
    ID,
    LABEL,
    MAX_LABELS,
    MAX_PAGE_SIZE,
    MAX_SEARCH_CHARACTERS,
)
from llmproxy.web.manage.preconditions import CONDITIONAL
from llmproxy.web.manage.roles import LEAST_ROLES, UNLISTED, Scope
from llmproxy.web.manage.version import API_VERSION
from llmproxy.web.respond import json_response

REFS = "#/components/schemas/{model}"


class ErrorDetail(DeferredModel):
    message: str
    type: str
    code: str | None = Field(description="Stable: the same as in the field X-LLMProxy-Error.")


class Refusal(DeferredModel):
    """Why a request was refused: a problem as RFC 9457 has it, with the members of other errors of this proxy."""

    type: str = Field(description="An identifier for the code.")
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable: the same as in the field X-LLMProxy-Error.")
    request_id: str
    error: ErrorDetail


class RequestFault(DeferredModel):
    """What is wrong with one part of a request; of the last three it has one, or none."""

    detail: str
    pointer: str = Field("", description="A JSON pointer into the body, as a URI's fragment: #/limits/0.")
    parameter: str = Field("", description="The name of a query parameter.")
    header: str = Field("", description="The name of a header field.")


class InvalidRequest(Refusal):
    """Why a request was refused that is wrong itself, with each part that is (RFC 9457, section 3)."""

    errors: list[RequestFault]


class MalformedRequest(BaseModel):
    """Why a request was refused whose head or framing is no HTTP, or too large: before anybody knows what it is for."""

    type: str
    error: ErrorDetail
    code: str
    request_id: str


FAULTS = ("400", "422")  # with the parts that are wrong
REFUSED_UNREAD = ("400", "413")  # also by the server, in the shape of its other errors
REFUSALS = {
    "400": "The body is no JSON object.",
    "401": "The management token or key is missing or wrong.",
    "403": "The role of the management key does not allow this.",
    "404": "There is nothing of this id.",
    "405": "The method is not allowed here.",
    "409": "The change conflicts with what is stored, or a request with this Idempotency-Key is being answered.",
    "412": "It has been changed since: If-Match names another ETag.",
    "413": "The body is larger than 1 MiB.",
    "422": "The body, the query or a header field is not valid; errors names each part.",
    "429": "Too many wrong management tokens from this address.",
    "503": "The store or the audit log does not answer.",
}

PARAMETERS: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": DEFAULT_PAGE_SIZE},
    "offset": {"type": "integer", "minimum": 0, "maximum": 999_999_999, "default": 0},
    "cursor": {"type": "string", "description": "The next_cursor of the page before; without an offset."},
    "active": {"type": "boolean"},
    "id": {"type": "string", "description": "Only those of these ids, with commas between."},
    "search": {"type": "string", "maxLength": MAX_SEARCH_CHARACTERS, "description": "A part of the name, in any case."},
    "label": {
        "type": "array",
        "items": {"type": "string", "pattern": f"^(?:{LABEL})?$"},
        "maxItems": MAX_LABELS,
        "description": "Only those that have this label, or name=text in their metadata; given several times: all.",
    },
    "project_id": {"type": "string", "pattern": ID},
    "project": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_SEARCH_CHARACTERS,
        "description": "A project's id, or its name; of several that have this name, all.",
    },
    "group_by": {"type": "string", "default": "project", "examples": ["project,model,day"]},
    "from": {"type": "string", "format": "date"},
    "to": {"type": "string", "format": "date"},
    "by": {"type": "string", "enum": list(GROUPS), "default": "model"},
    "period": {"type": "string", "enum": list(PERIODS), "default": DEFAULT_PERIOD},
    "api": {"type": "string"},
    "owner": {"type": "string", "enum": ["", *OWNERS]},
    "owner_id": {"type": "string", "pattern": "^$|" + ID},
    "token_id": {"type": "string"},
    "model": {"type": "string"},
    "status": {"type": "string", "pattern": "^([1-5]([0-9][0-9]|xx))?$", "examples": ["429", "4xx"]},
    "outcome": {"type": "string", "examples": ["complete", "refused", "failed", "cancelled", "truncated"]},
    "error": {"type": "string", "examples": ["rate_limit_exceeded"]},
    "action": {"type": "string", "maxLength": MAX_SEARCH_CHARACTERS, "examples": ["token.create"]},
    "actor": {"type": "string", "maxLength": MAX_SEARCH_CHARACTERS, "examples": ["management"]},
    "since": {"type": "string", "format": "date-time"},
    "until": {"type": "string", "format": "date-time"},
    "format": {"type": "string", "enum": ["json", "csv", "focus"], "default": "json"},
}


HEADERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "If-Match": {"type": "string", "description": "The ETag of what is to be changed, or *."},
}


class OpenApi(Endpoint):
    """Needs the token as all else here: whoever has none need not know what can be managed."""

    path = "/manage/openapi.json"

    def __init__(self, context: ManagementContext, others: Iterable[type[Endpoint]]) -> None:
        super().__init__(context)
        self._endpoints = [*others, type(self)]
        self._document: dict[str, Any] | None = None  # made when it is first asked for: it takes 8 MB and 0.1 s

    @operation("GET", "This document.")
    async def get_openapi(self, call: Call) -> BufferedResponse:
        if self._document is None:
            self._document = await self.context.in_thread(partial(document, self._endpoints))
        return json_response(self._document)


def document(endpoints: Iterable[type[Endpoint]]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these endpoints."""
    listed = list(endpoints)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmproxy management API", "version": API_VERSION},
        "security": [{"managementToken": []}],
        "paths": {endpoint.path: _path(endpoint) for endpoint in listed},
        "components": {
            "securitySchemes": {"managementToken": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(listed),
        },
    }


def _schemas(endpoints: list[type[Endpoint]]) -> dict[str, Any]:
    operations = [each for endpoint in endpoints for each in endpoint.operations.values()]
    bodies = [(each.body, "validation") for each in operations if each.body]
    responses = [(each.response, "serialization") for each in operations if each.response]
    refusals = [(each, "serialization") for each in (Refusal, InvalidRequest, MalformedRequest)]
    models: Any = dict.fromkeys([*bodies, *responses, *refusals])
    _, schemas = models_json_schema(list(models), ref_template=REFS)
    found: dict[str, Any] = schemas["$defs"]
    return found


def _path(endpoint: type[Endpoint]) -> dict[str, Any]:
    methods = {method.decode("ascii").lower(): _operation(op) for method, op in endpoint.operations.items()}
    if "{id}" not in endpoint.path:
        return methods
    named = {"id": {"type": "string", "pattern": ID}, "number": {"type": "integer", "minimum": 0, "maximum": 9999}}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in named.items()
        if f"{{{name}}}" in endpoint.path
    ]
    return {"parameters": parameters, **methods}


def _operation(op: ApiOperation[Any]) -> dict[str, Any]:
    rule = LEAST_ROLES.get(op.name, UNLISTED)
    described: dict[str, Any] = {"operationId": op.name, "summary": op.summary}
    described |= {"x-least-role": rule.role, "x-bound-keys": rule.scope is not Scope.WHOLE}
    parameters = [{"name": name, "in": "query", "required": False, "schema": PARAMETERS[name]} for name in op.query]
    parameters += [{"name": name, "in": "header", "required": False, "schema": HEADERS[name]} for name in _headers(op)]
    if parameters:
        described["parameters"] = parameters
    if op.body:
        described["requestBody"] = {"required": True, "content": _content(op.body)}
    return described | {"responses": {str(op.status): _response(op), **_refusals(op)}}


def _headers(op: ApiOperation[Any]) -> list[str]:
    """The fields that it takes."""
    if op.status == 201:
        return ["Idempotency-Key"]
    return ["If-Match"] if op.name in CONDITIONAL else []


def _response(op: ApiOperation[Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": op.summary}
    if op.response:
        described["content"] = _content(op.response)
        if "format" in op.query:
            described["content"]["text/csv"] = {"schema": {"type": "string"}}
    elif op.status != 204:
        described["content"] = {"application/json": {"schema": {"type": "object"}}}
    return described


def _never(op: ApiOperation[Any]) -> set[str]:
    """Statuses that it never responds with."""
    never = set()
    if op.method == b"GET":
        never.add("409")
    if op.name not in CONDITIONAL and op.method not in (b"PATCH", b"DELETE"):
        never.add("412")
    if op.name in ("list_projects", "list_tokens", "create_project"):
        never.add("404")
    if op.name in ("get_project", "get_token"):
        never.add("422")
    return never


def _refusals(op: ApiOperation[Any]) -> dict[str, Any]:
    never = _never(op)
    described: dict[str, Any] = {
        code: {
            "description": said,
            "content": _content(InvalidRequest if code in FAULTS else Refusal, "application/problem+json"),
        }
        for code, said in REFUSALS.items()
        if code not in never
    }
    for code in REFUSED_UNREAD:
        described[code]["content"] |= _content(MalformedRequest)
    return described


def _content(model: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": REFS.format(model=model.__name__)}}}
