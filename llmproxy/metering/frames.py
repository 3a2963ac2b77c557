"""Amazon's event streams as server-sent events, so that they are measured like any other stream.

C{application/vnd.amazon.eventstream}: frames of total length, length of headers, a CRC-32 of both, headers, payload and
a CRC-32 of all (AWS developer guides, "Event stream encoding"). A payload is one JSON object; that of
InvokeModelWithResponseStream holds the model's own event as base64 in C{bytes}. A frame whose header
C{:exception-type} names an error ends the stream.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from struct import Struct
from typing import Any
from zlib import crc32

from pydantic_core import from_json, to_json

MEDIA_TYPE = b"application/vnd.amazon.eventstream"
MAX_FRAME_BYTES = 24 << 20  # the format's own bound of a payload
MAX_READ_FRAME_BYTES = 1 << 20  # of a frame that is read; a longer one is text, and is passed over
_HEAD = 12
_TAIL = 4
_unpack_head = Struct(">III").unpack_from


class EventStreamDecoder:
    """Takes the bytes of an event stream, and gives the events in it to C{sink}.

    @ivar failed: Whether what came is no event stream; nothing more is read then.
    """

    __slots__ = ("_at", "_held", "_passed_over", "_sink", "failed")

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._held = bytearray()
        self._at = 0  # where the next frame begins in it
        self._passed_over = 0
        self.failed = False

    def feed(self, data: bytes) -> None:
        """The next bytes, cut anywhere; never raises."""
        if self.failed:
            return
        if self._passed_over:
            over = min(self._passed_over, len(data))
            self._passed_over -= over
            data = data[over:]
        self._held += data
        self._at = 0
        events = b"".join(iter(self._next, b""))
        del self._held[: self._at]
        if events:
            self._sink(events)

    def _next(self) -> bytes:
        """The event of the next whole frame, which is taken away; C{b""} where there is none."""
        held = self._held
        while len(held) - self._at >= _HEAD:
            at = self._at
            total, headers, checksum = _unpack_head(held, at)
            whole = _HEAD + headers + _TAIL <= total <= MAX_FRAME_BYTES
            if not whole or crc32(held[at : at + 8]) != checksum:
                self.failed = True
                held.clear()
                return b""
            if total > MAX_READ_FRAME_BYTES:
                self._passed_over = max(total - (len(held) - at), 0)
                self._at = min(at + total, len(held))
                continue
            if len(held) - at < total:
                return b""
            self._at = after = at + total
            body = at + _HEAD + headers
            head, payload = bytes(held[at + _HEAD : body]), bytes(held[body : after - _TAIL])
            return b"data: " + _event(head, payload) + b"\n\n"
        return b""


def _event(head: bytes, payload: bytes) -> bytes:
    """What a frame says, as the data of one event."""
    failed = b":exception-type" in head or b":error-code" in head
    if not failed and payload == b"{}":
        return payload
    try:
        said: Any = from_json(payload)
    except ValueError:
        return b"{}"
    if failed:
        return to_json({"error": {"code": _exception(head), "message": ""}})
    inner = said.get("bytes") if isinstance(said, dict) else None
    if not isinstance(inner, str):
        return payload.replace(b"\n", b" ").replace(b"\r", b" ")
    try:
        return b64decode(inner, validate=True).replace(b"\n", b" ").replace(b"\r", b" ")
    except ValueError:
        return b"{}"


def _exception(head: bytes) -> str:
    """The value of the header that names an error, which is a string (type 7)."""
    for name in (b":exception-type", b":error-code"):
        _, found, rest = head.partition(name + b"\x07")
        if found:
            return rest[2 : 2 + int.from_bytes(rest[:2])].decode("utf-8", "replace")
    return ""
