"""Passes a stream on without taking it apart: what is read of its connection, where that is whole events in whole
chunks, as almost all of a stream is.
"""

from __future__ import annotations

from collections.abc import Callable

from llmproxy.http.masking import ErrorMask
from llmproxy.wire.body_framing import chunk, joined_chunks, size_lines
from llmproxy.wire.relay import Relay, Tap

MAX_UNSEEN_BYTES = 1024  # of the events of a stream that its meter has not seen


def _see_nothing(data: bytes) -> None:
    """Of a stream at which nobody looks."""


class GatheringTap:
    """Shows another tap what passes, several events at a time: most of them tell it nothing, one by one or together.

    @ivar unseen: The events that it has not seen; whoever adds to them has it L{show} them.
    """

    __slots__ = ("_tap", "unseen")

    def __init__(self, tap: Tap | None) -> None:
        """
        @param tap: C{None} where nobody wants to see it.
        """
        self._tap = tap or _see_nothing
        self.unseen: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """What has not been added, after what has."""
        self.show()
        self._tap(data)

    def show(self) -> None:
        """All that is unseen; what came last by itself, for that is a sample of how a stream ends."""
        if not self.unseen:
            return
        *events, last = self.unseen
        self.unseen.clear()
        if events:
            self._tap(b"".join(events))
        self._tap(last)


class ChunkPassing:
    """Does for one stream what its L{Relay} does, which must be plain, wherever C{take} says so."""

    __slots__ = ("_mask", "_relay", "_seconds", "_show", "_show_at", "_unseen", "_unseen_bytes", "_write")

    def __init__(
        self,
        relay: Relay,
        write: Callable[[bytes], bool | None],
        tap: GatheringTap,
        mask: ErrorMask | None,
        seconds: Callable[[], float],
        unseen_bytes: int = 0,
    ) -> None:
        """
        @param write: Writes a chunk of the client's response as it is; C{False}, and nothing was done, where that is
            not sent in chunks, or not yet, or nobody takes it any more.
        @param tap: Is shown what passes, when so many bytes of it are unseen.
        @param mask: The relay's.
        """
        self._relay = relay
        self._write = write
        self._unseen = tap.unseen
        self._show = tap.show
        self._unseen_bytes = unseen_bytes
        self._show_at = relay.count + unseen_bytes
        self._mask = mask
        self._seconds = seconds

    def take(self, data: bytes) -> bool:
        """Send what was read: as it came where it is one chunk, framed as it would be here. C{False}: nothing was
        done."""
        if not data.endswith(b"\n\n\r\n"):
            return False
        line = size_lines[len(data)]
        if data.startswith(line):
            events = data[len(line) : -2]
        else:
            events = joined_chunks(data)
            if not events:
                return False
            data = chunk(events)
        mask, relay, seconds = self._mask, self._relay, self._seconds
        if mask is not None and (data.rfind(mask.secret) >= 0 or not mask.clean):
            return False
        write, unseen = self._write, self._unseen
        if write(data) is False:
            return False
        unseen.append(events)
        relay.last = seconds()
        relay.count = count = relay.count + len(events)
        if count > self._show_at:
            self._show_at = count + self._unseen_bytes
            self._show()
        return True
