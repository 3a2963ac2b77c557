"""Whether a stream of events has come to the end that its provider gives it: half a stream is never kept."""

from __future__ import annotations

import json
import re

DONE, ANTHROPIC, RESPONSES, CLEAN = "[DONE]", "message_stop", "response", "clean"

# How each provider's streams end. A clean end alone is one only where the provider gives no other sign.
_ENDS: dict[str, frozenset[str]] = {
    "openai": frozenset((DONE, RESPONSES)),
    "azure": frozenset((DONE, RESPONSES)),
    "mistral": frozenset((DONE,)),
    "anthropic": frozenset((ANTHROPIC,)),
    "bedrock-bearer": frozenset((ANTHROPIC,)),
    "google": frozenset((DONE, CLEAN)),
}
_ANY = frozenset((DONE, ANTHROPIC, RESPONSES))

COMMENTS = 16

_LINE = re.compile(rb"\r\n|\r|\n")
_BLANK_LINE = re.compile(rb"\n[\r\n]|\r\r")
# Where an event may tell of an error; in a text that a model writes, quotes are escaped.
_ERROR = re.compile(rb'"error"|(?:^|[\r\n])event: ?error[\r\n]')
_TYPE = re.compile(rb'\A\{[ \t]{0,8}"type"[ \t]{0,8}:[ \t]{0,8}"([a-z_.]{1,64})"')
# "response.failed" ends a stream too, but nobody wants to be told of the same failure again.
_RESPONSES_ENDS = frozenset((b"response.completed", b"response.incomplete"))


def is_complete(provider: str, body: bytes) -> bool:
    """Whether C{body} is a whole stream of this provider's, without an error in it."""
    if _has_error(body):
        return False
    event, data = _last(body)
    ends = _ENDS.get(provider, _ANY)
    if CLEAN in ends:
        return bool(event or data)
    if data == b"[DONE]":
        return DONE in ends
    if not data.endswith(b"}"):
        return False
    name = event or _type(data)
    if name == b"message_stop":
        return ANTHROPIC in ends
    return name in _RESPONSES_ENDS and RESPONSES in ends


def _has_error(body: bytes) -> bool:
    """Whether an event tells of an error in mid-stream: what follows it is not the response, however well it ends.

    Every byte is looked at a few times, whatever a provider sends.
    """
    start = 0
    while (found := _ERROR.search(body, start)) is not None:
        begin = max(body.rfind(blank, start, found.end()) for blank in (b"\n\n", b"\n\r", b"\r\r"))
        after = _BLANK_LINE.search(body, found.end() - 1)
        end = len(body) if after is None else after.start()
        if _is_error(*_event(body[max(begin, start) : end])):
            return True
        start = max(end, found.end())
    return False


def _is_error(name: bytes, data: bytes) -> bool:
    if name == b"error":
        return True
    if b'"error"' not in data:
        return False
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return True  # nobody knows what it tells
    return isinstance(said, dict) and (said.get("error") is not None or said.get("type") == "error")


def _last(body: bytes) -> tuple[bytes, bytes]:
    """The name and the data of the last event; a few events after it that are only comments are passed over."""
    rest = body
    for _ in range(COMMENTS):
        rest = rest.rstrip(b"\r\n")
        start = max(rest.rfind(blank) for blank in (b"\n\n", b"\r\n\r\n", b"\r\r"))
        found = _event(rest[max(start, 0) :])
        if found != (b"", b"") or start < 0:
            return found
        rest = rest[:start]
    return b"", b""


def _event(block: bytes) -> tuple[bytes, bytes]:
    name, data = b"", []
    for line in _LINE.split(block):
        field, _, value = line.partition(b":")
        if field == b"event":
            name = value.removeprefix(b" ")
        elif field == b"data":
            data.append(value.removeprefix(b" "))
    return name, b"\n".join(data).strip()


def _type(data: bytes) -> bytes:
    found = _TYPE.match(data)
    return found[1] if found else b""
