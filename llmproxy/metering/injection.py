"""Asks for the usage of a streamed chat completion in its client's place, and keeps that from the client.

OpenAI reports the usage of a stream only to who asks for it, in an event of its own at the end, whose C{choices} are
empty: clients that did not ask may not expect it.
"""

from __future__ import annotations

import json
from typing import Any

from llmproxy.http.request_reader import RequestContent
from llmproxy.metering.sse import EVENT_ENDS, event_data

MAX_HELD_EVENT_BYTES = 1024 * 1024  # bytes of one event that are held back while it is not known which it is

MAX_REWRITTEN_BYTES = 256 * 1024  # of a request that is written anew
_SPACE = b" \t\r\n"
_COUNTS = b'_tokens"'  # with which the names of a usage's members end; C{find} is faster than C{in}
_INCLUDE_USAGE = b'"stream_options":{"include_usage":true}'


def request_usage(body: bytes, content: RequestContent) -> bytes | None:
    """A request's body that asks for its usage; C{None} where it does already, or is not for a stream.

    Where a long one has other C{stream_options} it is left as it is: to write it anew would take too long.

    @param content: What it says.
    """
    members = content.members
    if content.form != "json" or not content.complete or content.problem or members.get("stream") is not True:
        return None
    if not body.lstrip(_SPACE).startswith(b"{"):
        return None  # it is encoded
    if "stream_options" not in members:
        return body.replace(b"{", b"{" + _INCLUDE_USAGE + b",", 1)  # all else stays as it was
    options = members["stream_options"]
    if not isinstance(options, dict | None) or (options or {}).get("include_usage") or len(body) > MAX_REWRITTEN_BYTES:
        return None
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None
    request["stream_options"] = {**(options or {}), "include_usage": True}
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


class UsageEventFilter:
    """Takes the event that reports the usage out of a stream; all others pass as they are, once they are whole."""

    keeps_length = False

    def __init__(self) -> None:
        self._held = bytearray()
        self._passing = False  # through an event that is too long to be held

    def feed(self, data: bytes) -> bytes:
        """The next bytes; what of them passes."""
        held = self._held
        if not held and data.endswith(b"\n\n") and data.find(_COUNTS) < 0:
            return data  # whole events, none of which tells a usage, as almost all are
        seen = max(len(held) - 3, 0)
        held += data
        out = bytearray()
        while (end := _end(held, seen)) > 0:
            event = bytes(held[:end])
            del held[:end]
            seen = 0
            if self._passing or not _tells_usage(event):
                out += event
            self._passing = False
        if len(held) > MAX_HELD_EVENT_BYTES:
            self._passing = True
            out += held[:-4]
            del held[:-4]
        return bytes(out)

    def end(self) -> bytes:
        """Nothing more comes."""
        rest, self._held = bytes(self._held), bytearray()
        return rest


def without_usage(events: bytes) -> bytes:
    """What passes of a whole stream."""
    swallowing = UsageEventFilter()
    return swallowing.feed(events) + swallowing.end()


def _end(held: bytearray, seen: int) -> int:
    """Where the first event ends, or C{0}."""
    return min((at + len(mark) for mark in EVENT_ENDS if (at := held.find(mark, seen)) >= 0), default=0)


def _tells_usage(event: bytes) -> bool:
    if event.find(_COUNTS) < 0:
        return False
    found = list(event_data(event))
    try:
        said: Any = json.loads(found[0]) if len(found) == 1 else None
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("choices") == [] and isinstance(said.get("usage"), dict)
