"""Passes a stream on without taking it apart: what is read of its connection, where that is whole events in whole
chunks, as almost all of a stream is.
"""

from __future__ import annotations

from collections.abc import Callable

from llmproxy.http.masking import ErrorMask
from llmproxy.wire.body_framing import chunk, joined_chunks
from llmproxy.wire.relay import Relay

MAX_SIZE_LINE_BYTES = 10  # of a chunk that is passed on as it came


class ChunkPassing:
    """Does for one stream what its L{Relay} does, which must be plain, wherever C{take} says so."""

    __slots__ = ("_mask", "_relay", "_seconds", "_tap", "_write")

    def __init__(
        self,
        relay: Relay,
        write: Callable[[bytes], bool | None],
        tap: Callable[[bytes], object] | None,
        mask: ErrorMask | None,
        seconds: Callable[[], float],
    ) -> None:
        """
        @param write: Writes a chunk of the client's response as it is; C{False}, and nothing was done, where that is
            not sent in chunks, or not yet, or nobody takes it any more.
        @param tap: Is shown what passes.
        @param mask: The relay's.
        """
        self._relay = relay
        self._write = write
        self._tap = tap
        self._mask = mask
        self._seconds = seconds

    def take(self, data: bytes) -> bool:
        """Send what was read: as it came where it is one chunk, framed as it would be here. C{False}: nothing was
        done."""
        if data[-4:] != b"\n\n\r\n":
            return False
        start = data.find(b"\r\n", 0, MAX_SIZE_LINE_BYTES) + 2
        size = len(data) - start - 2
        if data[:start] == b"%x\r\n" % size:
            events = data[start:-2]
        else:
            events = joined_chunks(data)
            size = len(events)
            if not size:
                return False
            data = chunk(events)
        mask, write = self._mask, self._write
        if mask is not None and (events.rfind(mask.secret) >= 0 or not mask.clean):
            return False
        if write(data) is False:
            return False
        tap, seconds = self._tap, self._seconds
        if tap is not None:
            tap(events)
        relay = self._relay
        relay.last = seconds()
        relay.count += size
        return True
