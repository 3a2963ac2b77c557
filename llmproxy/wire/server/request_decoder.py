"""The requests of one connection out of its bytes: heads, bodies and their ends, without any I/O."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from llmproxy.wire.body_framing import RequestBodyReader, request_body_reader
from llmproxy.wire.parser import BadMessage, HeadReader, MessageLimits, RequestHead, request_head


class BodyEnd(Enum):
    """The event after the last bytes of a body."""

    END = "end"


RequestEvent = RequestHead | bytes | BodyEnd | BadMessage


class KnownHeads(Protocol):
    """Knows heads again that have been parsed before."""

    def find(self, head: bytes) -> RequestHead | None:
        """The head, parsed; C{None} for one that is new.

        @param head: As it came, without the empty line that ends it.
        """


class RequestDecoder:
    """Makes events of bytes that are L{fed<feed>} in any chunks, as they are asked for.

    For each request, in order: a L{RequestHead}; its body as C{bytes}, never empty, in as many events as it came; and
    L{BodyEnd}. A L{BadMessage} is the last event. C{None}: nothing more without further bytes.

    @ivar buffer: Bytes that no event has taken yet.
    """

    __slots__ = ("_body", "_head", "_known_heads", "_length", "_limits", "buffer")

    def __init__(self, limits: MessageLimits, known_heads: KnownHeads | None = None) -> None:
        self._limits = limits
        self._known_heads = known_heads
        self._head = HeadReader(limits, skip_empty_line=True)
        self._length: int | None = None  # of the body that is read now
        self._body: RequestBodyReader | None = None
        self.buffer = b""

    @property
    def partial(self) -> bool:
        """Whether some, but not all, of a head has arrived."""
        return self._head.partial

    def feed(self, data: bytes) -> None:
        """Take these bytes."""
        self.buffer = self.buffer + data if self.buffer else data

    def discard(self) -> None:
        """Forget what was not taken."""
        self.buffer = b""

    def next_event(self) -> RequestEvent | None:
        """The next, whatever it is."""
        return self.next_head() if self._length is None else self.next_data()

    def next_head(self) -> RequestHead | BadMessage | None:
        """The next event, where the body of the request before has ended."""
        data, self.buffer = self.buffer, b""
        if not data:
            return None
        try:
            found = self._head.feed(data)
            if found is None:
                return None
            head = None if self._known_heads is None else self._known_heads.find(found[0])
            if head is None:
                head = request_head(found[0], self._limits)
        except BadMessage as bad:
            return bad
        self.buffer = found[1]
        self._length = head.length
        return head

    def take_body(self) -> bytes | None:
        """The body of the head before, if all of it is here and has a length: in place of its other events."""
        length, buffer = self._length, self.buffer
        if length is None or not 0 <= length <= len(buffer):
            return None
        self._length = None
        if length == len(buffer):
            self.buffer = b""
            return buffer
        self.buffer = buffer[length:]
        return buffer[:length]

    def next_data(self) -> bytes | BodyEnd | BadMessage | None:
        """The next event, between a head and the end of its body."""
        body = self._body
        if body is None:
            assert self._length is not None
            body = self._body = request_body_reader(self._length, self._limits)
        pieces: list[bytes] = []
        if self.buffer and not body.done:
            data, self.buffer = self.buffer, b""
            try:
                pieces = body.feed(data)
            except BadMessage as bad:
                return bad
            self.buffer = body.rest
        if pieces:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not body.done:
            return None
        self._length = self._body = None
        return BodyEnd.END
