"""Credentials: the client's out, the provider's in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from llmproxy.base.token_format import TOKEN_PART_PATTERN, TOKEN_PATTERN, TOKEN_PREFIX
from llmproxy.errors import MissingToken, UpstreamAuthError
from llmproxy.http.field_lines import FieldLines

# The order in which a client's credential is looked for where none is ours.
X_LLMPROXY_TOKEN, AUTHORIZATION, X_API_KEY, API_KEY, X_GOOG_API_KEY = range(5)
_COOKIE, _NEVER_OURS = 5, 6
_CARRIERS = {
    b"x-llmproxy-token": X_LLMPROXY_TOKEN,
    b"authorization": AUTHORIZATION,
    b"x-api-key": X_API_KEY,
    b"api-key": API_KEY,
    b"x-goog-api-key": X_GOOG_API_KEY,
    b"cookie": _COOKIE,
    b"proxy-authorization": _NEVER_OURS,
    b"ocp-apim-subscription-key": _NEVER_OURS,  # Azure API Management
    b"x-amz-security-token": _NEVER_OURS,  # AWS, with a signature in Authorization
}
# Parameters by which Google (key, access_token), Azure and Azure API Management (the others) take a credential.
_QUERY_CARRIERS = frozenset((b"key", b"access_token", b"api-key", b"subscription-key"))
_ISSUED = re.compile(TOKEN_PATTERN.encode())
_PREFIX = TOKEN_PREFIX.encode()
_LIKE_OURS = re.compile(TOKEN_PART_PATTERN.encode())
_VISIBLE = re.compile(rb"[!-~]{1,16384}")
_KEY = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_MIN_UNIQUE_BYTES = 12  # a token this long does not stand in another field by chance

_PREFIXES = {
    "bearer": "Authorization: Bearer ",
    "x-api-key": "x-api-key: ",
    "api-key": "api-key: ",
    "x-goog-api-key": "x-goog-api-key: ",
}
_SCHEMES = {"anthropic": "x-api-key", "google": "x-goog-api-key", "azure": "api-key"}
_NOT_FOR_KEYS = re.compile(
    r"host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|keep-alive|cookie|origin|x-request-id|proxy-.*",
    re.IGNORECASE,
)


def carries_credentials(name: str) -> bool:
    """Whether a header field of this name is one in which clients send credentials."""
    return name.lower().encode("latin-1", "replace") in _CARRIERS


class StrippedHead(NamedTuple):
    """What is left of a request's head once every client credential is out.

    @ivar token: The one credential that counts, or C{None} where there is none or it cannot be one.
    """

    token: str | None
    lines: FieldLines
    query: bytes | None


def strip(
    lines: Iterable[bytes], query: bytes | None = None, query_key: bool = False, forward_cookies: bool = False
) -> StrippedHead:
    """Take the client's credential out of a request's head.

    It is looked for in C{X-LLMProxy-Token}, C{Authorization: Bearer}, C{x-api-key}, C{api-key}, C{x-goog-api-key} and,
    if C{query_key}, C{?key=}. One of ours (C{sk-lp-…}) counts wherever it stands, whatever stands beside it; where
    there is none, as with a library user's own tokens, the first place that is there decides, and counts only if it
    holds one credential of 1-16384 visible ASCII characters.

    All places are emptied, and so are C{Proxy-Authorization}, cookies (only ours, if C{forward_cookies}), the query
    parameters in which providers take a credential, and any other field or parameter that holds the token or anything
    like one that this proxy issues.

    L{MissingToken}: two different tokens of ours are there.
    """
    kept, names, found = _split(FieldLines.of(lines), forward_cookies)
    in_query = _query_keys(query) if query_key and query else []
    token = _ours(found, in_query)
    if token is None:
        if found:
            first = min(found)
            token = _only(found[first], bearer=first == AUTHORIZATION)
        else:
            token = _only(in_query)
    rest = FieldLines(kept, names)
    if may_reveal(b"\n".join(kept), token):
        rest = FieldLines.of([line for line in kept if not _reveals(line.partition(b":")[2], token)])
    if query:
        query = _without_credentials(query, token)
    return StrippedHead(None if token is None else token.decode("ascii"), rest, query)


def may_reveal(text: bytes, token: bytes | None) -> bool:
    """Whether text may give away the token, or what looks like one of ours: sure where it says no."""
    return _PREFIX in text or (token is not None and token in text)


def _ours(found: dict[int, list[bytes]], in_query: list[bytes]) -> bytes | None:
    """The token that this proxy has issued, or C{None}."""
    ours: bytes | None = None
    for kind, values in (*found.items(), (X_GOOG_API_KEY, in_query)) if in_query else found.items():
        for value in values:
            if _PREFIX not in value:
                continue
            token = _only([value], bearer=kind == AUTHORIZATION)
            if token is None or _ISSUED.fullmatch(token) is None or token == ours:
                continue
            if ours is not None:
                raise MissingToken("The request carries two different tokens of this proxy. Send one of them.")
            ours = token
    return ours


def _split(lines: FieldLines, forward_cookies: bool) -> tuple[list[bytes], list[bytes], dict[int, list[bytes]]]:
    """The lines that carry no credential with their names, and what the others carry, by their kind."""
    kept, names = list(lines), list(lines.names)
    found: dict[int, list[bytes]] = {}
    at = 0
    for name in [name for name in names if name in _CARRIERS]:  # most requests have one
        at, kind = names.index(name, at), _CARRIERS[name]
        line = kept[at]
        if kind == _COOKIE and forward_cookies and (others := _cookie(line)):
            kept[at] = others
            at += 1
            continue
        if kind <= X_GOOG_API_KEY:
            found.setdefault(kind, []).append(line[len(name) + 1 :].strip(b" \t"))
        del kept[at], names[at]
    return kept, names, found


def carried(lines: FieldLines) -> bytes:
    """All that a head carries where credentials are looked for: the same for requests with the same credential."""
    return b"\n".join(line for line, name in zip(lines, lines.names, strict=True) if name in _CARRIERS)


def scheme(provider: str, auth: str = "") -> str:
    """How a provider wants its key: C{auth} of the settings, or the provider's own way where that is empty.

    C{bearer}, C{x-api-key}, C{api-key}, C{x-goog-api-key}, or a header's name. L{ValueError} where C{auth} is none.
    """
    if not auth:
        return _SCHEMES.get(provider, "bearer")
    if auth.lower() in _PREFIXES:
        return auth.lower()
    if not _NAME.fullmatch(auth) or _NOT_FOR_KEYS.fullmatch(auth):
        raise ValueError(f'"{auth}" is not a way to send a key (try bearer, x-api-key, or the name of a header)')
    return auth


def inject(scheme: str, key: str) -> bytes:
    """The header line that carries C{key} to the provider; see L{scheme}.

    L{UpstreamAuthError} where the key cannot stand in a header.
    """
    if not _KEY.fullmatch(key):
        raise UpstreamAuthError("The project's key for this API holds characters that no key can have.")
    return (_PREFIXES.get(scheme) or scheme + ": ").encode("ascii") + key.encode("ascii")


def _only(values: list[bytes], bearer: bool = False) -> bytes | None:
    """The credential, if it is there once and well formed."""
    if len(values) != 1:
        return None
    token = values[0]
    if bearer:
        if token[:7].lower() != b"bearer ":
            return None
        token = token[7:].lstrip(b" ")
    return token if _VISIBLE.fullmatch(token) else None


def _reveals(value: bytes, token: bytes | None) -> bool:
    """Whether C{value} gives away the token, or what looks like one of ours."""
    if token is not None and (value.strip(b" \t") == token or (len(token) >= _MIN_UNIQUE_BYTES and token in value)):
        return True
    return _LIKE_OURS.search(value) is not None


def _cookie(line: bytes) -> bytes:
    """The line without cookies of ours: as it was where there are none, C{b""} where there are no others."""
    name, _, value = line.partition(b":")
    cookies = value.split(b";")
    others = [cookie for cookie in cookies if not cookie.strip(b" \t").lower().startswith(b"llmproxy")]
    if len(others) == len(cookies):
        return line
    kept = b"; ".join(cookie.strip(b" \t") for cookie in others if cookie.strip(b" \t"))
    return name + b": " + kept if kept else b""


def _decoded(part: bytes) -> bytes:
    """C{+} stays: no credential holds a space."""
    return unquote_to_bytes(part) if b"%" in part else part


def _query_keys(query: bytes) -> list[bytes]:
    pairs = (pair.partition(b"=") for pair in query.split(b"&"))
    return [_decoded(value) for name, _, value in pairs if _decoded(name) == b"key"]


def _without_credentials(query: bytes, token: bytes | None) -> bytes | None:
    """The query without parameters that carry a credential; every other byte as it was."""
    pairs = query.split(b"&")
    kept = [pair for pair in pairs if not _carries(pair, token)]
    if len(kept) == len(pairs):
        return query
    return b"&".join(kept) if kept else None


def _carries(pair: bytes, token: bytes | None) -> bool:
    name, _, value = pair.partition(b"=")
    name, value = _decoded(name), _decoded(value)
    if name in _QUERY_CARRIERS:
        return True
    return _reveals(value, token) or _reveals(name, token)
