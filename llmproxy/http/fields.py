"""Header lines, C{b"Name: value"}: which of them pass, both ways.

Lines stay as they came, in order, with duplicates and the case of their names. What is taken out:

- Either way: hop-by-hop fields (RFC 9110, section 7.6.1), all C{Proxy-…}, the fields that C{Connection} names, and
  framing, which the connection that carries the message writes itself.
- Going out: C{Host}, every credential (see L{credentials}), what tells or claims a client's address or another URL
  (C{X-Forwarded-…}, C{Forwarded}, C{X-Real-IP}, C{X-Original-URL}…), what overrides the method, C{X-LLMProxy-…},
  C{Expect}. C{Via} passes: nothing here believes it, and it names no client.
- Coming back: C{Alt-Svc}, which would lead the client around this proxy; fields that this proxy itself adds
  (C{X-Cache-Status}, C{X-Cache-Debug}, C{X-Upstream-Response-Time}, C{X-LLMProxy-…}); C{Access-Control-…} where the
  proxy responses for origins itself. C{x-request-id} becomes C{X-Upstream-Request-ID}. C{Cache-Status} and
  C{Server-Timing} are lists to which every hop adds, and pass.

A field that C{Connection} names is only taken out if a client might as well not have sent it: C{Content-…},
C{Cookie}, C{Origin} and the like stay, whatever it says, and what this proxy adds is added afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import TypeVar

from llmproxy.base.memo import BoundedMemo
from llmproxy.http.field_lines import FieldLines, SharedNames

PASS, DROP, CONNECTION, REQUEST_ID, CORS = range(5)

_HOP_BY_HOP = frozenset(b"keep-alive te trailer transfer-encoding content-length upgrade http2-settings".split())
CREDENTIALS = frozenset(
    b"authorization x-api-key api-key x-goog-api-key ocp-apim-subscription-key x-amz-security-token".split()
)
# In which proxies in front name the client, beside X-Forwarded-*.
CLIENT_ADDRESSES = frozenset(
    b"forwarded x-forwarded x-real-ip x-client-ip client-ip x-cluster-client-ip true-client-ip cf-connecting-ip "
    b"fastly-client-ip x-envoy-external-address x-remote-ip x-remote-addr".split()
)
_REQUEST_ONLY = CLIENT_ADDRESSES | frozenset(
    b"host expect x-http-method-override x-method-override x-http-method x-rewrite-url".split()
)
_RESPONSE_ONLY = frozenset(
    b"alt-svc x-cache-status x-cache-debug x-upstream-response-time x-upstream-request-id".split()
)
# RFC 9110, section 7.6.1: "Connection" must not name a field that is meant for all recipients.
_END_TO_END = frozenset(
    b"accept accept-encoding accept-language cache-control cookie date etag host location origin pragma range "
    b"retry-after set-cookie user-agent vary www-authenticate x-request-id request-id".split()
)
MAX_MEMO_NAMES = 4096
MAX_MEMO_NAME_BYTES = 64

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


V = TypeVar("V")


class FieldNameMemo(BoundedMemo[bytes, V]):
    """A pure function of a field's name in lower case, computed once for each name; long names are not stored.

    A client that sends ever new ones starts it over.
    """

    def __init__(self, function: Callable[[bytes], V], limit: int = MAX_MEMO_NAMES) -> None:
        super().__init__(limit)
        self._function = function

    def __missing__(self, name: bytes) -> V:
        value = self._function(name)
        if len(name) <= MAX_MEMO_NAME_BYTES:
            self[name] = value
        return value


def _either_way(name: bytes) -> int:
    if name == b"connection":
        return CONNECTION
    return DROP if name in _HOP_BY_HOP or name.startswith((b"proxy-", b"x-llmproxy-")) else PASS


def _of_request(name: bytes) -> int:
    if name in _REQUEST_ONLY or name in CREDENTIALS or name.startswith((b"x-forwarded-", b"x-original-")):
        return DROP
    return REQUEST_ID if name == b"x-request-id" else _either_way(name)


def _of_response(name: bytes) -> int:
    if name in _RESPONSE_ONLY:
        return DROP
    if name.startswith(b"access-control-"):
        return CORS
    return REQUEST_ID if name == b"x-request-id" else _either_way(name)


_REQUEST_ID_START = len(b"x-request-id:")
_REQUEST = FieldNameMemo(_of_request)
_RESPONSE = FieldNameMemo(_of_response)


def passes(name: bytes) -> bool:
    """Whether a request's fields of this name, in lower case, go to the provider whatever they say."""
    return _REQUEST[name] == PASS


def outgoing(
    lines: Iterable[bytes], *, host: bytes, credential: bytes, request_id: bytes | None = None, client: str = ""
) -> list[bytes]:
    """The lines for the provider.

    @param credential: The line that L{credentials.inject} made; the client's lines of that name are taken out.
    @param request_id: Sent in place of the client's own C{X-Request-ID}; C{None} lets that pass.
    @param client: The client's address, to be sent as C{X-Forwarded-For}; C{""} keeps it here.
    """
    kinds = _REQUEST
    lines = FieldLines.of(lines)
    out = [b"Host: " + host]
    gone: set[bytes] = set()
    for line, name in zip(lines, lines.names, strict=True):
        kind = kinds[name]
        if kind == PASS:
            out.append(line)
        elif kind == CONNECTION:
            gone |= _named(line)
        elif kind == REQUEST_ID and request_id is None:
            out.append(line)
    own = credential.partition(b":")[0].lower()
    if kinds[own] == PASS:
        gone.add(own)
    if gone:
        out[1:] = _without(out[1:], gone)
    out.append(credential)
    if request_id is not None:
        out.append(b"X-Request-ID: " + request_id)
    if client:
        out.append(b"X-Forwarded-For: " + client.encode("ascii", "replace"))
    return out


def incoming(lines: Iterable[bytes], *, own_cors: bool = False) -> list[bytes]:
    """The provider's lines for the client.

    @param own_cors: The API has C{allowed_origins}: the provider's C{Access-Control-…} do not count.
    """
    kinds = _RESPONSE
    lines = FieldLines.of(lines)
    if isinstance(lines.names, SharedNames):
        return incoming_of_shape(lines, lines.names, own_cors=own_cors)
    out: list[bytes] = []
    gone: set[bytes] = set()
    for line, name in zip(lines, lines.names, strict=True):
        kind = kinds[name]
        if kind == PASS or (kind == CORS and not own_cors):
            out.append(line)
        elif kind == REQUEST_ID:
            out.append(b"X-Upstream-Request-ID: " + _value(line))
        elif kind == CONNECTION:
            gone |= _named(line)
    return _without(out, gone) if gone else out


def incoming_of_shape(
    lines: Sequence[bytes], names: SharedNames, *, own_cors: bool = False, without: bytes = b""
) -> list[bytes]:
    """As L{incoming}, by what was worked out of these names before. Lines of C{Connection} are all the same there.

    @param without: What names begin with, in lower case, whose lines do not pass either.
    """
    known = names.passing.get((own_cors, without))
    if known is None:
        numbers = FieldLines([b"%b: %d" % (name, i) for i, name in enumerate(names)], list(names))
        for index, name in enumerate(names):
            if name == b"connection":
                numbers[index] = lines[index]
        kept = [int(_value(line)) for line in _incoming_without(numbers, without, own_cors=own_cors)]
        renamed = [at for at, index in enumerate(kept) if names[index] == b"x-request-id"]
        pick = itemgetter(*kept) if len(kept) > 1 else None
        known = names.passing[own_cors, without] = (
            pick,
            renamed[0] if len(renamed) == 1 else -1 if not renamed else -2,
        )
    pick, renamed_at = known
    if pick is None or renamed_at == -2:  # fewer than two, or two ids
        return _incoming_without(FieldLines(lines, list(names)), without, own_cors=own_cors)
    out = list(pick(lines))
    if renamed_at >= 0:
        out[renamed_at] = b"X-Upstream-Request-ID: " + out[renamed_at][_REQUEST_ID_START:].strip(b" \t")
    return out


def _incoming_without(lines: FieldLines, without: bytes, *, own_cors: bool) -> list[bytes]:
    passing = incoming(lines, own_cors=own_cors)
    return [line for line in passing if not line.lower().startswith(without)] if without else passing


def value(lines: Iterable[bytes], name: bytes) -> bytes | None:
    """The value of the first field of that name, or C{None}."""
    if isinstance(lines, FieldLines):
        return lines.value(name.lower())
    name, end = name.lower(), len(name)
    for line in lines:
        if line[end : end + 1] == b":" and line[:end].lower() == name:
            return line[end + 1 :].strip(b" \t")
    return None


def values(lines: Iterable[bytes], name: bytes) -> list[bytes]:
    """The values of all fields of that name, in order."""
    if isinstance(lines, FieldLines):
        return lines.values(name.lower())
    name, end = name.lower(), len(name)
    return [
        line[end + 1 :].strip(b" \t") for line in lines if line[end : end + 1] == b":" and line[:end].lower() == name
    ]


def request_id(lines: Iterable[bytes]) -> bytes | None:
    """The client's own C{X-Request-ID}, if it is 1-128 letters, digits or C{._~:/+=@-}: it stands in logs and pages."""
    given = value(lines, b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def asks_for_websocket(lines: Iterable[bytes]) -> bool:
    """Whether a request would turn its connection into a WebSocket (RFC 6455, section 4.1)."""
    wanted = value(lines, b"upgrade")
    if wanted is None or b"websocket" not in wanted.lower():
        return False
    return any(b"upgrade" in each.lower() for each in values(lines, b"connection"))


def has_body(lines: Sequence[bytes]) -> bool:
    """Whether a request with these lines has a body, be it an empty one (RFC 9112, section 6)."""
    return value(lines, b"content-length") is not None or value(lines, b"transfer-encoding") is not None


def _value(line: bytes) -> bytes:
    return line.partition(b":")[2].strip(b" \t")


def _named(line: bytes) -> set[bytes]:
    """The fields that a C{Connection} line names and may take out, in lower case."""
    value = _value(line).lower()
    if value in (b"keep-alive", b"close"):
        return set()
    names = {name.strip(b" \t") for name in value.split(b",")}
    return {name for name in names if name not in _END_TO_END and not name.startswith(b"content-")}


def _without(lines: Iterable[bytes], names: set[bytes]) -> list[bytes]:
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
