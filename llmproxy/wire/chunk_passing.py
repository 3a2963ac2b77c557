"""Passes a stream on without taking it apart: what is read of its connection, where that is whole events in whole
chunks, as almost all of a stream is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llmproxy.http.masking import ErrorMask
from llmproxy.wire.body_framing import chunk, joined_chunks
from llmproxy.wire.relay import Relay

MAX_SIZE_LINE_BYTES = 10  # of a chunk that is passed on as it came


class ChunkedDownstream(Protocol):
    """A client's response in chunks."""

    def write_chunks(self, framed: bytes, size: int) -> bool:
        """Write so many bytes of the body, which are in chunks already; C{False}, and nothing is done, where it is not
        sent as such, or not yet, or nobody takes it any more."""


class ChunkPassing:
    """Does for one stream what its L{Relay} does, which must be plain, wherever C{take} says so."""

    __slots__ = ("_downstream", "_mask", "_relay", "_seconds", "_tap")

    def __init__(
        self,
        relay: Relay,
        downstream: ChunkedDownstream,
        tap: Callable[[bytes], object] | None,
        mask: ErrorMask | None,
        seconds: Callable[[], float],
    ) -> None:
        """
        @param tap: Is shown what passes.
        @param mask: The relay's.
        """
        self._relay = relay
        self._downstream = downstream
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
        if self._mask is not None and not self._mask.passes(events):
            return False
        if not self._downstream.write_chunks(data, size):
            return False
        if self._tap is not None:
            self._tap(events)
        relay = self._relay
        relay.last = self._seconds()
        relay.count += size
        return True
