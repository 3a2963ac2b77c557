"""HTTP/1.1 message heads over bytes, with every leniency of RFC 9112 switched off; for bodies see L{body_framing}.

No sockets, no clock: bytes in, values out. Field lines stay the bytes they came as; only those that frame the
message are looked at. What a recipient could read in two ways is L{BadMessage}, and nothing else is ever raised.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from llmproxy.http.field_lines import FieldLines

CHUNKED = -1
"""The body ends with its last chunk."""

UNTIL_CLOSE = -2
"""The body ends where the connection does (responses only)."""

MAX_KNOWN_HOST_BYTES = 255  # of a host that is remembered
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class FieldNames(dict[bytes, bytes]):
    """The lower-case name of every spelling that was seen before, if it may stand in a head.

    A memo of a pure function. Bounded both ways: long names are not kept, and a peer that sends ever new ones starts
    it over.
    """

    def __init__(self, underscored: Collection[bytes] | None = None) -> None:
        """
        @param underscored: Names, in lower case, that may stand there though they hold an underscore; C{None}: any may.
        """
        super().__init__()
        self._underscored = underscored

    def __missing__(self, name: bytes) -> bytes:
        if not name or len(name) > 256 or not _TOKEN.issuperset(name):
            raise _bad("A field's name is not a token.")
        lower = name.lower()
        # Behind CGI-like gateways X_Y and X-Y are one field, so that one could pass for the other.
        if b"_" in name and self._underscored is not None and lower not in self._underscored:
            raise _bad("A field's name holds an underscore.")
        if len(name) <= 64:
            if len(self) >= 4096:
                self.clear()
            self[name] = lower
        return lower


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """How much of what a peer may send.

    @ivar head: Bytes of a whole head.
    @ivar target: Bytes of a request target.
    @ivar fields: Field lines in a head.
    @ivar body: Bytes of a request's body, where nobody sets a lower limit.
    @ivar chunk_line: Bytes of a chunk's size with its extensions.
    @ivar trailer: Bytes of all trailer fields.
    @ivar methods: The methods that are served; others are answered 405 or 501.
    @ivar names: Those that a request's fields may have.
    """

    head: int = 65536
    target: int = 16384
    fields: int = 200
    body: int = 64 * 1024 * 1024
    chunk_line: int = 256
    trailer: int = 8192
    methods: frozenset[bytes] = METHODS
    names: FieldNames = field(default_factory=partial(FieldNames, ()), compare=False)


class BadMessage(Exception):
    """The peer sent what is not, or not unambiguously, HTTP.

    @ivar status: The response that tells a client: 400, 405, 408, 413, 414, 417, 431, 501 or 505.
    @ivar code: The stable name that goes with it.
    @ivar message: One sentence; never holds anything that the peer sent.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


@dataclass(slots=True)
class RequestHead:
    """A request's head.

    @ivar target: In origin-form (C{/path?query}), or C{*} for OPTIONS.
    @ivar minor: 1 for HTTP/1.1, 0 for HTTP/1.0.
    @ivar lines: Its field lines, without line ends.
    @ivar length: Bytes of its body, or L{CHUNKED}.
    @ivar keep_alive: Whether the client lets the connection be used again.
    @ivar expect_continue: Whether the client waits for C{100 Continue}.
    @ivar known: What L{KnownHeads} have of it; C{None} for one that is new.
    """

    method: bytes
    target: bytes
    minor: int
    lines: FieldLines
    length: int
    keep_alive: bool
    expect_continue: bool
    known: Any = None


@dataclass(slots=True)
class ResponseHead:
    """A response's head: as L{RequestHead}; C{length} may be L{UNTIL_CLOSE}, and is 0 where there can be no body."""

    code: int
    phrase: bytes
    minor: int
    lines: FieldLines
    length: int
    keep_alive: bool


class HeadReader:
    """Finds the end of a head in bytes that come in any chunks.

    @ivar partial: Whether some, but not all, of a head has arrived.
    """

    __slots__ = ("_buffer", "_limits", "_skip")

    def __init__(self, limits: MessageLimits, *, skip_empty_line: bool = False) -> None:
        """
        @param skip_empty_line: Ignore one before the head, as RFC 9112 section 2.2 asks of servers.
        """
        self._limits = limits
        self._skip = skip_empty_line
        self._buffer = b""

    @property
    def partial(self) -> bool:
        return bool(self._buffer)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the head, without the empty line that ends it, and what came after it; or C{None} until it is whole.

        L{BadMessage} as soon as it is clear that no acceptable head will come of it.
        """
        seen = len(self._buffer)
        if seen:
            data = self._buffer + data
        start = 2 if self._skip and data[:2] == b"\r\n" else 0
        end = data.find(b"\r\n\r\n", max(start, seen - 3), start + self._limits.head + 4)
        if end < 0 or end - start > self._limits.target:
            self._check(data, start, end)
        if end < 0:
            self._buffer = data
            return None
        self._buffer = b""
        return data[start:end], data[end + 4 :]

    def _check(self, data: bytes, start: int, end: int) -> None:
        """Whichever comes first in the bytes is what is wrong with them, in however many chunks they came."""
        line = self._limits.target + 32  # beside its target, a request line is a method and a version
        first = data.find(b"\r\n", start, start + line + 2)
        if first >= 0 and self._skip:
            _check_version(data[start:first])
        elif first < 0:
            _check_line_ends(data, start, start + line + 2)
            if len(data) - start >= line + 2:
                raise _target_too_long()
        _check_line_ends(data, start, start + self._limits.head + 4)
        if end < 0 and len(data) - start >= self._limits.head + 4:
            raise BadMessage(431, "request_header_fields_too_large", "The head is larger than this proxy accepts.")


def request_head(head: bytes, limits: MessageLimits) -> RequestHead:
    """Parse a request's head, given without the empty line that ends it; L{BadMessage} for anything odd."""
    _check_version(head.partition(b"\r\n")[0])
    lines = head_lines(head, limits)
    method, target, minor = _request_line(lines.pop(0), limits)
    fields = _fields(lines, limits.names)
    names = fields.names
    host = _host(fields, minor)
    if target[:1] != b"/":
        target = _origin_form(method, target, host)
    if not _TARGET.fullmatch(target) and target != b"*":
        raise _bad_target()
    length = _length(fields, minor)
    return RequestHead(
        method,
        target,
        minor,
        fields,
        0 if length == UNTIL_CLOSE else length,
        _keep_alive(fields, minor) if b"connection" in names else minor == 1,
        b"expect" in names and _expects_continue(fields, minor),
    )


def response_head(head: bytes, limits: MessageLimits, request_method: bytes) -> ResponseHead:
    """Parse a response's head, given without the empty line that ends it; L{BadMessage} for anything odd.

    Interim responses (1xx) are returned as any other; their C{length} is 0.
    """
    lines = head_lines(head, limits)
    match = _STATUS_LINE.fullmatch(lines.pop(0))
    if match is None:
        raise _bad("The status line is not one of HTTP/1.1.")
    minor, code, phrase = int(match[1]), int(match[2]), match[3] or b""
    fields = _fields(lines, _RESPONSE_NAMES)
    length = said = _length(fields, minor)
    if code < 200 or code in (204, 304) or request_method == b"HEAD":
        length = 0
    if code == 204 and said not in (0, UNTIL_CLOSE):
        # RFC 9110, section 8.6: no such response says so. Who does may send a body, now or later.
        return ResponseHead(code, phrase, minor, fields, length, keep_alive=False)
    keep = length != UNTIL_CLOSE and (_keep_alive(fields, minor) if b"connection" in fields.names else minor == 1)
    return ResponseHead(code, phrase, minor, fields, length, keep)


# What stands in a head

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
CONTROLS = bytes(c for c in range(0x20) if c not in b"\t\r\n") + b"\x7f"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\r\n]*))?")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_AUTHORITY = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{1,5}))?"
)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]*)(.*)", re.DOTALL)
# Browsers leave []{}|^` as they are in a query, though RFC 3986 would have them encoded.
_TARGET = re.compile(
    rb"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~!$&'()*+,;=:@/-]*)*"
    rb"(?:\?[A-Za-z0-9._~!$&'()*+,;=:@/?\[\]{}|^`-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~!$&'()*+,;=:@/?\[\]{}|^`-]*)*)?"
)
_DIGITS = 18  # more than fit into 64 bits are no length


def _bad(message: str) -> BadMessage:
    return BadMessage(400, "bad_request", message)


def _bad_target() -> BadMessage:
    return BadMessage(400, "bad_request_target", "The request target is not one that can be forwarded as it stands.")


def _target_too_long() -> BadMessage:
    return BadMessage(414, "uri_too_long", "The request target is longer than this proxy accepts.")


def _check_line_ends(data: bytes, start: int, end: int) -> None:
    if data.count(b"\n", start, end) != data.count(b"\r\n", start, end):
        raise _bad("A line of the head does not end in CR LF.")


def _check_version(line: bytes) -> None:
    """HTTP/0.9 has none, and nothing behind its line that could be waited for."""
    if b" HTTP/" not in line and b"\n" not in line:
        raise _bad("The request line has no HTTP version.")


def head_lines(head: bytes, limits: MessageLimits) -> list[bytes]:
    """The lines of a head, given without the empty line that ends it; L{BadMessage} where they hold what none may."""
    lines = head.split(b"\r\n")
    ends = len(lines) - 1
    if ends > limits.fields:
        raise BadMessage(431, "request_header_fields_too_large", "The head has more fields than this proxy accepts.")
    if head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise _bad("A line of the head does not end in CR LF.")
    if len(head.translate(None, CONTROLS)) != len(head):
        raise _bad("The head holds a control character.")
    return lines


def _request_line(line: bytes, limits: MessageLimits) -> tuple[bytes, bytes, int]:
    parts = line.split(b" ")
    if len(parts) != 3:
        raise _bad("The request line is not a method, a target and a version.")
    method, target, version = parts
    if len(target) > limits.target:
        raise _target_too_long()
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        if _VERSION.fullmatch(version):
            raise BadMessage(505, "http_version_not_supported", "This proxy speaks HTTP/1.1 and HTTP/1.0.")
        raise _bad("The request line has no HTTP version.")
    if method not in limits.methods:
        raise _unserved(method)
    return method, target, 1 if version == b"HTTP/1.1" else 0


def _unserved(method: bytes) -> BadMessage:
    if method in METHODS or method in (b"CONNECT", b"TRACE", b"QUERY"):
        return BadMessage(405, "method_not_allowed", "This method is not allowed here.")
    if method and _TOKEN.issuperset(method):
        return BadMessage(501, "not_implemented", "This method is not known here.")
    return _bad("The request line does not begin with a method.")


def _origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    if target == b"*" and method == b"OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not host or match[1].lower() != host.lower():
        raise _bad_target()
    return match[2] if match[2][:1] == b"/" else b"/" + match[2]


def _host(fields: FieldLines, minor: int) -> bytes:
    count = fields.names.count(b"host")
    if not count and not minor:
        return b""
    if count != 1:
        raise _bad("HTTP/1.1 requires exactly one Host.")
    host = fields.value(b"host")
    assert host is not None
    if not (_is_authority if len(host) <= MAX_KNOWN_HOST_BYTES else _is_authority.__wrapped__)(host):
        raise _bad("Host is not a host name with an optional port.")
    return host


@lru_cache(1024)  # of those that are not too long to be kept
def _is_authority(value: bytes) -> bool:
    match = _AUTHORITY.fullmatch(value)
    return match is not None and int(match[1] or 0) <= 65535


_RESPONSE_NAMES = FieldNames()


def _fields(lines: list[bytes], known: FieldNames) -> FieldLines:
    names = []
    for line in lines:
        name, colon, _ = line.partition(b":")
        if not colon:
            raise _bad("A line of the head is not a field.")
        names.append(known[name])
    return FieldLines(lines, names)


def _length(fields: FieldLines, minor: int) -> int:
    names = fields.names
    if b"transfer-encoding" in names:
        if b"content-length" in names or not minor:
            raise _bad("Transfer-Encoding may stand neither beside Content-Length nor in HTTP/1.0.")
        return _coding(fields.values(b"transfer-encoding"))
    if b"content-length" not in names:
        return UNTIL_CLOSE
    length = fields.value(b"content-length") or b""
    if names.count(b"content-length") > 1 or not length.isdigit() or len(length) > _DIGITS:
        raise _bad("Content-Length is not one number.")
    return int(length)


def _coding(values: list[bytes]) -> int:
    if len(values) == 1 and values[0].lower() == b"chunked":
        return CHUNKED
    codings = [v.strip(b" \t").lower() for v in b",".join(values).split(b",")]
    if len(values) == 1 and codings[-1] == b"chunked" and {b"gzip", b"deflate", b"compress"}.issuperset(codings[:-1]):
        raise BadMessage(501, "not_implemented", "The only transfer coding known here is chunked.")
    raise _bad("Transfer-Encoding is not chunked.")


def connection_options(fields: FieldLines) -> list[bytes]:
    """What C{Connection} says, in lower case."""
    values = fields.values(b"connection")
    return [option.strip(b" \t").lower() for value in values for option in value.split(b",")]


def _keep_alive(fields: FieldLines, minor: int) -> bool:
    options = connection_options(fields)
    return b"close" not in options and (bool(minor) or b"keep-alive" in options)


def _expects_continue(fields: FieldLines, minor: int) -> bool:
    values = fields.values(b"expect")
    if len(values) > 1 or values[0].lower() != b"100-continue":
        raise BadMessage(417, "expectation_failed", "The only expectation known here is 100-continue.")
    return bool(minor)


# What body_framing asks


def bad_message(message: str) -> BadMessage:
    """What is not, or not unambiguously, HTTP: answered 400."""
    return _bad(message)


def check_trailer_line(line: bytes, limits: MessageLimits) -> None:
    """L{BadMessage} for a trailer field that could not stand in a head."""
    _fields(head_lines(line, limits), _RESPONSE_NAMES)
