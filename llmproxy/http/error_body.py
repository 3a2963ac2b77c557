"""Error bodies that each provider's SDK turns into its own exception, with the message, the code and the request id.

The shape is the API's flavour: C{google} for Gemini's clients, C{plain} for C{error}, C{code} and C{description},
and for everything else one body that OpenAI's and Anthropic's clients both understand.
"""

from __future__ import annotations

import json
import math
from typing import Any, Protocol

from llmproxy.errors import FieldProblem, ProxyError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "api_error",
    504: "timeout_error",
}
_TYPES_BY_CODE = {
    "quota_exceeded": "insufficient_quota",
    "budget_exceeded": "insufficient_quota",
    "circuit_open": "overloaded_error",
    "draining": "overloaded_error",
}
# google.rpc.Code, by the HTTP status that it maps to.
_STATES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}
# SDKs that are told to wait sleep that long, an hour if need be. Beyond these they are told not to retry instead.
_LONGEST_WAIT = 60.0
_LONGEST_OPEN = 30.0


PROBLEM = "problem"  # RFC 9457, with the members that clients of the other shapes look for


class ErrorFormatSettings(Protocol):
    """An API's settings, as far as they matter here."""

    @property
    def provider(self) -> str: ...
    @property
    def error_format(self) -> str: ...


def error_format_of(api: ErrorFormatSettings) -> str:
    """The error shape of an API's clients: C{hybrid}, C{google} or C{plain}."""
    if api.error_format == "auto":
        return "google" if api.provider == "google" else "hybrid"
    return api.error_format if api.error_format in ("google", "plain") else "hybrid"


def render(error: ProxyError, flavour: str, request_id: str) -> tuple[list[bytes], bytes]:
    """The header lines and the JSON body of a refusal.

    @param flavour: C{google}, C{plain} or L{PROBLEM}; any other name means the shape for all other clients.
    @param request_id: C{""} where there is none.
    """
    shape = {"google": _google, "plain": _plain, PROBLEM: _problem}.get(flavour, _hybrid)
    body = json.dumps(shape(error, request_id), ensure_ascii=False, separators=(",", ":"))
    content_type = "application/problem+json" if flavour == PROBLEM else "application/json"
    return _lines(error, request_id, content_type), body.encode("utf-8", "replace")


def _hybrid(error: ProxyError, request_id: str) -> dict[str, Any]:
    return {
        "type": "error",
        "error": {
            "message": error.message,
            "type": _type(error),
            "param": None,
            "code": error.code,
            "details": {"error_code": error.code},
        },
        "code": error.code,
        "request_id": request_id,
    }


def _google(error: ProxyError, request_id: str) -> dict[str, Any]:
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": error.code.upper(),
            "domain": "llmproxy",
        }
    ]
    wait = _wait(error)
    if wait is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait:g}s"})
    inner = {"code": error.status, "message": error.message, "status": _state(error.status), "details": details}
    return {"error": inner, "code": error.code, "request_id": request_id}


def _plain(error: ProxyError, request_id: str) -> dict[str, Any]:
    return {
        "error": error.code.replace("_", " ").capitalize(),
        "code": error.code,
        "description": error.message,
    }


def _problem(error: ProxyError, request_id: str) -> dict[str, Any]:
    """RFC 9457, section 3.1. C{type} is an identifier, and leads nowhere: C{docs/errors.md} explains the codes."""
    members = {"type": f"urn:llmproxy:error:{error.code}", "title": error.code.replace("_", " ").capitalize()}
    shown = {**_hybrid(error, request_id), **members, "status": error.status, "detail": error.message}
    whole = {400: FieldProblem(error.message, "pointer", "#"), 422: FieldProblem(error.message)}.get(error.status)
    problems = error.problems or ((whole,) if whole else ())
    return {**shown, "errors": [_part(each) for each in problems]} if problems else shown


def _part(problem: FieldProblem) -> dict[str, str]:
    return {"detail": problem.detail, **({problem.place: problem.name} if problem.place else {})}


def _type(error: ProxyError) -> str:
    by_status = "api_error" if error.status >= 500 else "invalid_request_error"
    return _TYPES_BY_CODE.get(error.code) or _TYPES.get(error.status, by_status)


def _state(status: int) -> str:
    return _STATES.get(status, "UNAVAILABLE" if status >= 500 else "INVALID_ARGUMENT")


def _wait(error: ProxyError) -> float | None:
    """Seconds, or C{None} where no time can be told."""
    wait = error.retry_after
    return None if wait is None or not math.isfinite(wait) else max(wait, 0.0)


def _lines(error: ProxyError, request_id: str, content_type: str) -> list[bytes]:
    wait = _wait(error)
    headers = {"Content-Type": content_type, "Cache-Control": "no-store", "X-LLMProxy-Error": error.code}
    if request_id:
        headers |= {"X-Request-ID": request_id, "request-id": request_id}
    headers |= error.headers
    if wait is not None:
        headers["Retry-After"] = str(math.ceil(wait))
        if wait % 1:
            headers["Retry-After-Ms"] = str(math.ceil(wait * 1000))
    if not _worth_a_retry(error, wait):
        headers["X-Should-Retry"] = "false"
    return [f"{name}: {_one_line(value)}".encode("latin-1", "replace") for name, value in headers.items()]


def _worth_a_retry(error: ProxyError, wait: float | None) -> bool:
    longest = _LONGEST_OPEN if error.code == "circuit_open" else _LONGEST_WAIT
    return error.retry and (wait is None or wait <= longest)


def _one_line(value: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in value)
