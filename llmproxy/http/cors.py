"""Origins: which web pages may call an API (Fetch standard, section 3.2).

Without C{allowed_origins} nothing is checked and the provider's own C{Access-Control-…} pass. With it, an origin
must stand in the list as it is sent, or the list holds C{*}; one that does not is refused and never reflected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmproxy.errors import OriginNotAllowed, OriginRequired
from llmproxy.http import fields

_VARY = b"Vary: Origin"
_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_MAX_NAMES = 2048
_MAX_AGE = 600  # seconds for which a browser may remember a preflight's response


def check(lines: Sequence[bytes], allowed_origins: Sequence[str]) -> None:
    """Refuse a request whose origin is not allowed: L{OriginNotAllowed}."""
    if allowed_origins:
        _allowed(lines, allowed_origins)


def preflight(lines: Sequence[bytes], allowed_origins: Sequence[str], allowed_methods: Sequence[str]) -> list[bytes]:
    """The response's lines to a preflight; L{OriginRequired} or L{OriginNotAllowed} where its origin may not ask."""
    origin = _allowed(lines, allowed_origins)
    if origin is None:
        raise OriginRequired
    out = [
        *_allow(origin, allowed_origins),
        b"Access-Control-Allow-Methods: " + ", ".join(allowed_methods).encode("ascii"),
        b"Access-Control-Max-Age: %d" % _MAX_AGE,
    ]
    # Nothing is echoed that was not looked at. "*" would not do: it leaves out Authorization.
    asked = fields.value(lines, b"access-control-request-headers")
    if asked and len(asked) <= _MAX_NAMES and _NAMES.fullmatch(asked):
        out.append(b"Access-Control-Allow-Headers: " + asked)
    return out


def response_lines(lines: Sequence[bytes], allowed_origins: Sequence[str]) -> list[bytes]:
    """The lines that let the request's origin read the response, be it the provider's or a refusal.

    @param allowed_origins: Not empty.
    """
    try:
        origin = _allowed(lines, allowed_origins)
    except OriginNotAllowed:
        origin = None
    if origin is None:
        return [] if "*" in allowed_origins else [_VARY]
    return [*_allow(origin, allowed_origins), b"Access-Control-Expose-Headers: *"]


def _allow(origin: bytes, allowed_origins: Sequence[str]) -> list[bytes]:
    if "*" in allowed_origins:
        return [b"Access-Control-Allow-Origin: *"]
    return [b"Access-Control-Allow-Origin: " + origin, _VARY]


def _allowed(lines: Sequence[bytes], allowed_origins: Sequence[str]) -> bytes | None:
    """The request's origin, or C{None} where it has none; L{OriginNotAllowed} where it is not allowed."""
    origins = fields.values(lines, b"origin")
    if not origins:
        return None
    origin = origins[0]
    if len(origins) == 1 and ("*" in allowed_origins or origin in {allowed.encode() for allowed in allowed_origins}):
        return origin
    raise OriginNotAllowed
