"""The keys under which responses are stored: all that may make one response differ from another, and nothing else.

No client can choose any part of a key but by asking for something else: the project and the token come from the grant,
the API and the target from the route, and of the request's fields only those count that a provider acts on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256
from operator import itemgetter
from typing import Protocol
from urllib.parse import quote_from_bytes

from llmproxy.caching.rules.directives import members
from llmproxy.caching.rules.vary import selecting_fields
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.fields import FieldNameMemo

MAX_TARGET_CHARS = 200  # characters of a target that stand in a key; of a longer one a digest of the whole follows

# Fields by which providers choose a version, a feature, or whom the call is for.
_PROVIDERS = (b"anthropic-", b"openai-", b"x-goog-", b"x-amzn-bedrock-", b"x-ms-", b"azureml-", b"mistral-")
_NOT_THEIRS = frozenset((b"x-goog-api-key", b"x-goog-api-client", b"x-ms-client-request-id"))
# What a body's meaning, and the form of its response, depend on.
_OF_A_BODY = frozenset((b"content-type", b"content-encoding", b"accept"))
_PLAIN = "/:@!$&'()*+,;=?-._~"


class RequestLike(Protocol):
    """What a key is made of: L{llmproxy.wire.server.Request} has it, and so has C{twisted.web.server.Request}."""

    method: bytes
    uri: bytes


def cache_key(
    api: str,
    tenant: Sequence[str],
    method: bytes,
    target: bytes,
    lines: Iterable[bytes],
    body: bytes | None = None,
    marks: bytes = b"",
) -> str:
    """The primary key of a request, C{<api>/<tenant>/<target> <method> <digest>}: L{key_of_target} and what follows it.

    The digest is over every part as raw bytes with its length, so that no two requests share one that differ anywhere.

    @param tenant: Who may be served the response: project, or project and token; empty where anybody may.
    @param target: Path and query as they are sent to the provider.
    @param body: The request's whole body; it counts by its SHA-256.
    @param marks: Settings that make responses differ.
    """
    return key_with_prefix(key_of_target(api, tenant, target), api, tenant, method, target, lines, body, marks)


def key_with_prefix(
    prefix: str,
    api: str,
    tenant: Sequence[str],
    method: bytes,
    target: bytes,
    lines: Iterable[bytes],
    body: bytes | None,
    marks: bytes,
) -> str:
    """The same, for who knows its L{key_of_target} already."""
    asked = b"GET" if method == b"HEAD" else method
    parts = [asked, target, marks, api.encode(), *[name.encode() for name in tenant]]
    if body is not None:
        parts.append(sha256(body).digest())
    fields = _key_fields(lines, body is not None)
    lengths = [len(part) for part in (*parts, *fields)]
    told = b"%d,%d,%r" % (len(tenant), body is not None, lengths)  # so that no two lists of parts look alike
    digest = sha256(b"%b;%b%b" % (told, b"".join(parts), b"".join(fields))).hexdigest()
    return f"{prefix} {asked.decode('ascii', 'replace')} {digest}"


def key_of_target(api: str, tenant: Sequence[str], target: bytes) -> str:
    """What all keys of this very target begin with; a blank follows."""
    shown = _shown(target)
    if len(shown) > MAX_TARGET_CHARS:
        shown = f"{shown[:MAX_TARGET_CHARS]}~{blake2b(target, digest_size=16).hexdigest()}"
    return f"{_of_tenant(api, tenant)}{shown or '/'}"


def key_prefix(api: str = "", tenant: Sequence[str] | None = None, target: bytes = b"") -> str:
    """What the keys of an API begin with, of one of its tenants, of what of it has a target that begins so.

    Of a target that is longer than L{MAX_TARGET_CHARS} no more than these count.

    @param tenant: As in L{cache_key}; C{None}: all of them.
    """
    if not api:
        return ""
    if tenant is None:
        return f"{_escaped(api.encode())}/"
    return f"{_of_tenant(api, tenant)}{_shown(target)[:MAX_TARGET_CHARS] or '/'}"


def _of_tenant(api: str, tenant: Sequence[str]) -> str:
    whom = "/".join(_escaped(name.encode()) for name in tenant) or "*"
    return f"{_escaped(api.encode())}/{whom}"


def variant_key(primary: str, generation: str, names: Sequence[bytes], lines: Iterable[bytes]) -> str:
    """The secondary key of one of several responses, by what the request has of the fields that select among them."""
    values = selecting_fields(lines, names)
    parts = [b"-" if value is None else b"%d:%b" % (len(value), value) for value in values]
    named = [b"%d:%b" % (len(name), name) for name in names]
    return f"{primary} {generation} {sha256(b''.join([*named, *parts])).hexdigest()}"


def cache_key_from_request(request: RequestLike, *, api: str = "", tenant: Sequence[str] = ()) -> str:
    """A key for the response to a request to this API for this tenant: as the proxy's own, but without marks."""
    method, uri = request.method, request.uri
    body = _body(request) if method in (b"POST", b"QUERY") else None
    return cache_key(api, tenant, method, uri, _lines(request), body)


def cache_key_from_request_with_vary(
    request: RequestLike, vary: str | bytes, *, api: str = "", tenant: Sequence[str] = ()
) -> str:
    """As L{cache_key_from_request}, for a response with this C{Vary}; C{""} where it varies on everything (C{*})."""
    value = vary.encode("latin-1") if isinstance(vary, str) else vary
    names = tuple(sorted({name.lower() for name in members([value])}))
    if b"*" in names:
        return ""
    key = cache_key_from_request(request, api=api, tenant=tenant)
    return variant_key(key, "", names, _lines(request)) if names else key


def _key_fields(lines: Iterable[bytes], has_body: bool) -> list[bytes]:
    """The fields that make a provider respond otherwise: names in lower case, values as they are, in order of names."""
    lines, kinds = FieldLines.of(lines), _KINDS
    most = _OF_BODIES if has_body else _ALWAYS
    numbers = [number for number, name in enumerate(lines.names) if kinds[name] <= most]
    if not numbers:
        return []
    found = [(lines.names[number], lines[number]) for number in numbers]
    found.sort(key=itemgetter(0))
    return [name + b":" + line[len(name) + 1 :].strip(b" \t") for name, line in found]


_ALWAYS, _OF_BODIES, _NEVER = range(3)


def _kind(name: bytes) -> int:
    """When a field makes a provider respond otherwise."""
    if name.startswith(_PROVIDERS) and name not in _NOT_THEIRS:
        return _ALWAYS
    return _OF_BODIES if name in _OF_A_BODY else _NEVER


_KINDS = FieldNameMemo(_kind)


def _shown(target: bytes) -> str:
    return quote_from_bytes(target, safe=_PLAIN + "%")


def _escaped(name: bytes) -> str:
    return quote_from_bytes(name, safe="")


def _lines(request: RequestLike) -> Iterable[bytes]:
    lines: Iterable[bytes] | None = getattr(request, "lines", None)
    if lines is not None:
        return lines
    headers = request.requestHeaders.getAllRawHeaders()  # type: ignore[attr-defined]
    return [name + b": " + value for name, values in headers for value in values]


def _body(request: RequestLike) -> bytes:
    upload = getattr(request, "upload", None)
    if upload is not None:
        return upload.received or b""
    content = request.content  # type: ignore[attr-defined]
    at = content.tell()
    try:
        content.seek(0)
        return bytes(content.read())
    finally:
        content.seek(at)
