"""Names that HTTP or this proxy gives a meaning. Each returns the name, or raises L{ValueError} with what is wrong."""

from __future__ import annotations

import re
from typing import Any

from llmproxy.config.problems import did_you_mean, quoted
from llmproxy.config.values import text
from llmproxy.http import credentials, fields
from llmproxy.http.endpoints import Endpoints, split_method

RESERVED_NAMES = ("manage", "admin", "health", "ready", "live", "healthz", "readyz", "livez", "metrics")
API_NAME = r"[a-z0-9][a-z0-9_-]*"

# https://www.iana.org/assignments/http-methods, without CONNECT and TRACE, which are never forwarded
METHODS = (
    *("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "QUERY"),
    *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY"),
    *("MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPFIND", "PROPPATCH", "REBIND"),
    *("REPORT", "SEARCH", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL"),
)
RETRY_STATUSES = ("429", "502", "503", "504", "529")
RETRY_CAUSES = ("connect", "reused", "reset")
_BY_LOWER = {method.lower(): method for method in METHODS}
_HEADER = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, without the underscore, which is refused


def api_name(value: Any) -> str:
    """The name of an API, which is also the first segment of its addresses."""
    if text(value) in RESERVED_NAMES:
        raise ValueError("this name is reserved for the proxy's own addresses")
    if not re.fullmatch(API_NAME, value):
        raise ValueError("is not a name for an API: a-z, 0-9, _ and -, and first a letter or digit")
    return str(value)


def method(value: Any) -> str:
    """A registered method, in capitals, as it must be on the wire too."""
    if text(value) in METHODS:
        return str(value)
    if value.upper() in ("CONNECT", "TRACE"):
        raise ValueError(f"{quoted(value)} is a method that is never forwarded")
    near = _BY_LOWER.get(value.lower())
    hint = f" (did you mean {near}?)" if near else did_you_mean(value, METHODS, upper=True)
    raise ValueError(f"{quoted(value)} is not a method{hint}")


def endpoint(value: Any) -> str:
    """One pattern of an allow-list, which may name a method: C{GET /v1/models}."""
    Endpoints((text(value),))
    if named := split_method(value)[0]:
        method(named)
    return str(value)


def header(value: Any) -> str:
    """The name of a header field."""
    if not _HEADER.fullmatch(text(value)):
        raise ValueError(f"{quoted(value)} is not a header name")
    return str(value)


def policy_header(value: Any) -> str:
    """The name of a header field whose value may be written down."""
    if credentials.carries_credentials(header(value)):
        raise ValueError(f"{quoted(value)} carries credentials, which have no place in a list of values")
    return str(value)


def required_param(value: Any) -> str:
    """The name of a member of a body, or several with C{|} between."""
    if not all(each.strip() for each in text(value).split("|")):
        raise ValueError(f"{quoted(value)} is not the name of a parameter (try user, or max_tokens|max_output_tokens)")
    return str(value)


ATTRIBUTION_NAME = r"[a-z][a-z0-9_]{0,31}"
# What a usage report calls something else.
_USAGE_NAMES = frozenset(
    (
        *("project", "token", "api", "model", "day", "month", "group", "period", "claimed", "total"),
        *("project_id", "token_id", "group_id", "requests", "failed", "estimated", "unpriced", "cost_usd"),
        *("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"),
        *("attribution_value", "attribution_source"),
    )
)
# Fields that hold credentials, or by which something is decided.
_NOT_FOR_ATTRIBUTION = re.compile(
    "host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|range|origin|cookie|authorization|api-key"
    "|x-api-key|x-goog-api-key|ocp-apim-subscription-key|x-amz-security-token|cache-control|pragma|vary|date|forwarded"
    "|x-http-method.*|x-method-override|accept.*|access-control-.*|content-.*|if-.*|proxy-.*|sec-.*|x-forwarded-.*"
    "|x-llmproxy-.*|x-request-id",
    re.IGNORECASE,
)


def attribution_name(value: Any) -> str:
    """What a request is attributed by, as usage reports call it."""
    if not re.fullmatch(ATTRIBUTION_NAME, text(value)):
        raise ValueError("is not a name for an attribution: a-z, 0-9 and _, first a letter, at most 32 characters")
    if value in _USAGE_NAMES:
        raise ValueError("this name has another meaning in usage reports")
    return str(value)


def attribution_header(value: Any) -> str:
    """A header field from which an attribution may be read."""
    if _NOT_FOR_ATTRIBUTION.fullmatch(header(value)):
        raise ValueError(f"{quoted(value)} holds credentials or has a meaning of its own; nothing is attributed by it")
    return str(value)


def session_header(value: Any) -> str:
    """The name of a header field that names a session, in lower case; Codex's has an underscore."""
    header(text(value).replace("_", "-"))
    return str(value).lower()


def underscored_header(value: Any) -> str:
    """The name of a header field with an underscore, in lower case, that means nothing with hyphens in its place."""
    name = text(value)
    if "_" not in name:
        raise ValueError(f"{quoted(name)} has no underscore: it may be sent in any case")
    alike = header(name.replace("_", "-")).lower()
    if _NOT_FOR_ATTRIBUTION.fullmatch(alike) or not fields.passes(alike.encode()):
        raise ValueError(f"{quoted(name)} could pass for a field that has a meaning of its own")
    return name.lower()


def retry_cause(value: Any) -> str:
    """After what a request may be sent again: a word, or a status, which may be written as a number."""
    cause = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if cause not in RETRY_CAUSES and cause not in RETRY_STATUSES:
        raise ValueError(f"{quoted(value)} is not one of {', '.join((*RETRY_CAUSES, *RETRY_STATUSES))}")
    return str(cause)


PROBE_PATH = r"^(?:/[!$%&'()*+,./0-9:;=?@A-Z_a-z~-]*)?$"  # RFC 3986: path and query; no fragment, no space
PROBE_STATUS = r"^[1-5][0-9]{2}(?:-[1-5][0-9]{2})?$"


def probe_path(value: Any) -> str:
    """What a probe asks for: a path, and a query if need be; empty for no probe."""
    if not re.fullmatch(PROBE_PATH, text(value)):
        raise ValueError(f"{quoted(value)} is not a path that begins with / (try /health)")
    return str(value)


def probe_status(value: Any) -> str:
    """A status, which may be written as a number, or a range of them."""
    status = str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
    first, _, last = status.partition("-")
    if not re.fullmatch(PROBE_STATUS, status) or (last and int(last) < int(first)):
        raise ValueError(f"{quoted(value)} is neither a status nor a range of them (try 200 or 200-399)")
    return status


def auth(value: Any) -> str:
    """How the provider wants its key; empty for its own way."""
    try:
        credentials.scheme("generic", text(value))
    except ValueError:
        wanted = "try bearer, x-api-key, or the name of a header"
        raise ValueError(f"{quoted(value)} is not a way to send a key ({wanted})") from None
    return str(value)
