"""What one client is sent: at once where nothing waits, under load together with others, and never without an end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from llmproxy.wire import socket_state
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.server.slow_reader import SlowReaderGuard, nobody_waits
from llmproxy.wire.tls_transport import DirectTLS
from llmproxy.wire.write_coalescing import WriteCoalescer

READ_AHEAD_BYTES = 64 * 1024  # that wait for a client before its provider is made to wait
TIGHT_READ_AHEAD_BYTES = 4096  # likewise where memory is tight; a transport reads as many at a time, so never none
COUNT_INTERVAL_SECONDS = 1.0  # between two looks at what clients have not taken


class Backlog:
    """The writers whose clients have not taken all that was written: each counts again every second until they have."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._writers: set[ResponseWriter] = set()
        self._next: IDelayedCall | None = None

    def add(self, writer: ResponseWriter) -> None:
        self._writers.add(writer)
        if self._next is None:
            self._next = self._clock.callLater(COUNT_INTERVAL_SECONDS, self._count)

    def discard(self, writer: ResponseWriter) -> None:
        self._writers.discard(writer)

    def _count(self) -> None:
        self._next = None
        for writer in list(self._writers):
            writer.count_buffered()
        if self._writers:
            self._next = self._clock.callLater(COUNT_INTERVAL_SECONDS, self._count)


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """What all writers of a server share.

    @ivar send_timeout: Seconds for which a client may take less than C{min_sent_bytes} of what waits; C{0}: no limit.
    @ivar unacknowledged_bytes: See L{socket_state.unacknowledged_bytes}.
    @ivar coalescer: Where complete responses, and chunks of streams, wait for the end of the reactor's turn.
    @ivar buffers: Counts what clients have not taken.
    """

    clock: IReactorTime
    send_timeout: float
    min_sent_bytes: int
    unacknowledged_bytes: Callable[[Any], int]
    coalescer: WriteCoalescer | None
    buffers: Buffers | None
    backlog: Backlog


class ResponseWriter:
    """Writes to one transport.

    @ivar socket: Where it is written to directly; C{None} for TLS and in tests.
    @ivar blocked: Whether the client does not read.
    """

    __slots__ = (
        "_always_waits",
        "_buffered",
        "_coalescer",
        "_guard",
        "_parting",
        "_settings",
        "_tls",
        "_too_slow",
        "_transport",
        "blocked",
        "socket",
    )

    def __init__(self, transport: Any, settings: WriterSettings, too_slow: Callable[[], None]) -> None:
        """
        @param too_slow: Called where what waits for the client is hardly taken.
        """
        self._transport = transport
        self._settings = settings
        self._too_slow = too_slow
        self._parting = b""  # what leaves at the end of the turn
        self._always_waits = False  # whether the response that is complete with it does so in any case
        self._buffered = 0  # bytes that were written and wait here for the client, as they are counted
        self._guard: SlowReaderGuard | None = None  # how fast the client reads, once it has been too slow for us
        self.blocked = False
        handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        direct = isinstance(handle, socket.socket) and hasattr(transport, "_tempDataLen")
        self.socket: socket.socket | None = handle if direct else None
        self._tls = transport if isinstance(transport, DirectTLS) else None
        at_once = direct or self._tls is not None  # whether what is written leaves in this turn
        self._coalescer = settings.coalescer if at_once else None

    def write(self, data: bytes) -> None:
        """Send at once where nothing waits to be sent; that spares a turn of the reactor and two system calls.

        The transport keeps what it could not send, and finds out by itself what is wrong with a connection.
        """
        self._parting += data
        self.leave()

    def leave(self) -> None:
        """Send what was left for the end of the turn."""
        data, self._parting = self._parting, b""
        if not data:
            return
        transport, direct = self._transport, self.socket
        if direct is not None and not transport.dataBuffer and not transport._tempDataLen:
            try:
                sent = direct.send(data)
            except OSError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        if self._guard is not None:
            self._guard.added(len(data))
        buffers = self._settings.buffers
        if buffers is None:
            transport.write(data)
            return
        if self.socket is not None:
            transport.bufferSize = TIGHT_READ_AHEAD_BYTES if buffers.tight else READ_AHEAD_BYTES
        transport.write(data)
        if self._tls is None or self._buffered or not self._tls.has_drained:
            self.count_buffered()

    def write_soon(self, data: bytes) -> None:
        """As L{write}, for a chunk of a stream: it leaves with others' at the end of the turn."""
        coalescer = self._coalescer
        if self._parting:
            self._parting += data
        elif coalescer is None:
            self.write(data)
        else:
            self._parting = data
            held = coalescer.held
            held.append(self)
            count = len(held)
            if count == 1 or count == coalescer.most:
                coalescer.on_held(count)

    def write_final(self, data: bytes, *, always_wait: bool) -> None:
        """As L{write}, for a response that is complete with it: under load it leaves with others at the turn's end.

        @param always_wait: Whether it waits for the end of the turn also where there is no load.
        """
        coalescer = self._coalescer
        waits = coalescer is not None and coalescer.wait(self.leave, always_wait)
        self._parting += data
        self._always_waits = always_wait
        if not waits:
            self.leave()

    def then(self, call: Callable[[], object]) -> None:
        """Call this once a response has left that waits for the end of the turn in any case; now, where none does."""
        if self._coalescer is None or not (self._always_waits and self._parting):
            call()
        else:
            self._coalescer.wait(call, True)

    def drop(self) -> None:
        """Forget what was left for the end of the turn."""
        self._parting = b""

    def count_buffered(self) -> None:
        """Count what waits here for the client."""
        self._count(socket_state.buffered(self._transport))

    def _count(self, buffered: int) -> None:
        buffers, before = self._settings.buffers, self._buffered
        if buffers is None or (not buffered and not before):
            return
        self._buffered = buffered
        buffers.hold(buffered - before)
        if not buffered:
            self._settings.backlog.discard(self)
        elif not before:
            self._settings.backlog.add(self)

    # How fast the client reads

    @property
    def guard(self) -> SlowReaderGuard:
        guard = self._guard
        if guard is None:
            settings, transport = self._settings, self._transport
            guard = self._guard = SlowReaderGuard(
                settings.clock,
                settings.send_timeout,
                settings.min_sent_bytes,
                lambda: settings.unacknowledged_bytes(transport),
                self._too_slow,
            )
        return guard

    def watch_flush(self) -> None:
        """The connection is to end once all is sent: see from now on whether the client takes it, if anything waits."""
        transport = self._transport
        if self.socket is None or transport.dataBuffer or transport._tempDataLen:
            self.guard.goes_on()

    def pause(self) -> None:
        """The transport holds more than it likes to."""
        self.blocked = True
        self.guard.begin()

    def resume(self) -> None:
        """The client has taken it."""
        self.blocked = False
        self.guard.end()
        if self._buffered:
            self.count_buffered()

    def stop(self) -> None:
        """Nothing more is written; what was, may still be taken."""
        if self._guard is not None:
            self._guard.stop()

    def close(self) -> None:
        """The connection is lost."""
        self.drop()
        self.stop()
        self._count(0)
        self._guard, self._too_slow = None, nobody_waits
