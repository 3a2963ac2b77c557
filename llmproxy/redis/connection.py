"""One connection to Redis: commands out, replies in, each to the command that it answers or to none."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import txredisapi
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from llmproxy.base.direct_write import socket_of, write_at_once
from llmproxy.redis.commands import RedisRefused, RedisUnavailable

Message = Callable[[bytes, bytes], object]

STALLED_SECONDS = 1.0  # seconds for which a reply may be overdue before its connection is given up
BUSY_SECONDS = 0.005  # seconds by which a timer may be late in a process that is not busy
MAX_REPLY_BYTES = 128 * 1024 * 1024  # bytes that may arrive without completing a reply


class PendingCommand:
    """A command that was sent and has no reply yet."""

    __slots__ = ("answer", "deadline", "end", "latest", "overdue", "seen", "size", "timeout")

    def __init__(self, answer: Deferred[Any], now: float, timeout: float, receive_timeout: float, size: int) -> None:
        self.answer = answer
        self.timeout = timeout
        self.deadline = now + timeout
        self.end = self.deadline + receive_timeout
        self.latest = self.deadline + STALLED_SECONDS
        self.size = size
        self.seen = 0
        self.overdue = False


class RedisConnection(txredisapi.RedisProtocol):  # type: ignore[misc]
    """Sends commands in a pipeline.

    Replies come in the order of the commands, so one that is late is still waited for, and thrown away when it comes;
    until then nothing more is sent (L{ready} is false). One that stays away for L{STALLED_SECONDS}, anything that is no
    reply, and a reply that nobody asked for, end the connection.

    @ivar unanswered: Commands that have no reply yet, and C{load}: how many bytes they have.
    @ivar timeouts: How many replies were late.
    """

    parse: Any = txredisapi.RedisProtocol.dataReceived

    def __init__(self, clock: IReactorTime, messages: Message | None = None) -> None:
        """
        @param messages: Called with the channel and the payload of what is published, where channels are subscribed to.
        """
        super().__init__(charset=None, convertNumbers=False)
        self.callLater = clock.callLater  # txredisapi's is the global reactor's
        self.timeouts = self.load = 0
        self._clock = clock
        self._messages = messages
        self._sent: deque[PendingCommand] = deque()
        self._overdue = 0
        self._arrived = 0  # since the last reply was complete
        self._timer: IDelayedCall | None = None
        self._due = 0.0
        self._fault = ""
        self._open = False
        self._ended = False
        self._socket: socket.socket | None = None
        self._awaiting_end: list[Deferred[str]] = []

    @property
    def ready(self) -> bool:
        """Whether it can take a command now."""
        return self._open and not self._overdue

    @property
    def unanswered(self) -> int:
        return len(self._sent)

    def send(self, command: bytes, timeout: float, receive_timeout: float = 0.0) -> Deferred[Any]:
        """Fire with the reply; fail with L{RedisUnavailable} after C{timeout} seconds, or once the connection ends.

        @param receive_timeout: Seconds that are added while the reply is arriving, for one that is large.
        """
        now = self._clock.seconds()
        answer: Deferred[Any] = Deferred()
        self._sent.append(PendingCommand(answer, now, timeout, receive_timeout, len(command)))
        self.load += len(command)
        self._watch(now, now + timeout)
        write_at_once(self.transport, self._socket, command)
        return answer

    def abort(self, reason: str) -> None:
        """End it now."""
        if self._open:
            self._open = False
            self._fault = reason
            self.transport.abortConnection()

    def lost(self) -> Deferred[str]:
        """Fire with why the connection has ended, once it has."""
        if self._ended:
            return succeed(self._fault)
        waiting: Deferred[str] = Deferred(self._awaiting_end.remove)
        self._awaiting_end.append(waiting)
        return waiting

    # Protocol

    def connectionMade(self) -> None:
        """Nothing is sent by itself: whoever made the connection greets the server."""
        self._open = True
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._socket = socket_of(self.transport)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        self._arrived += len(data)
        try:
            self.parse(data, unpause)
        except Exception as e:  # whatever the parser stumbles over
            self.abort(f"it sent what is not a reply ({type(e).__name__})")
        if self._arrived > MAX_REPLY_BYTES:
            self.abort("it sent a reply without an end")

    def replyReceived(self, reply: Any) -> None:
        self._arrived = 0
        if not self._open:
            return
        reply = _plain(reply)
        if self._messages is not None and isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
            self._messages(reply[1], reply[2])
        elif isinstance(reply, txredisapi.InvalidResponse | txredisapi.InvalidData):
            self.abort("it sent what is not a reply")
        elif not self._sent:  # as when it has too many clients already
            self.abort(f"it said {_said(reply)}" if isinstance(reply, Exception) else "it sent a reply to nothing")
        else:
            self._answered(self._sent.popleft(), reply)

    def connectionLost(self, why: Failure = connectionDone) -> None:
        self._open = False
        self._socket = None
        self._fault = reason = self._fault or f"the connection was lost ({why.getErrorMessage().rstrip('.')})"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._sent:
            command = self._sent.popleft()
            if not command.answer.called:
                command.answer.errback(RedisUnavailable(f"Redis: {reason}.", sent=True))
        self.load = self._overdue = 0
        self._ended = True
        while self._awaiting_end:
            self._awaiting_end.pop().callback(reason)

    # Replies

    def _answered(self, command: PendingCommand, reply: Any) -> None:
        self.load -= command.size
        if command.overdue:
            self._overdue -= 1
        elif isinstance(reply, Exception):
            command.answer.errback(RedisRefused(_said(reply)))
        else:
            command.answer.callback(reply)

    def _watch(self, now: float, due: float) -> None:
        """See that something happens at C{due}. The timer is kept while commands come and go: most need none."""
        if self._timer is None:
            self._timer = self._clock.callLater(due - now, self._look)
            self._due = due
        elif due < self._due:
            self._timer.reset(due - now)
            self._due = due

    def _look(self) -> None:
        """Look again when sockets were read: where this process was busy, the reply may wait to be read already.

        What is sent in a turn of the reactor leaves at its end: where that was late, Redis has its time from then on.
        """
        now = self._clock.seconds()
        for command in self._sent if now - self._due > BUSY_SECONDS else ():
            if not command.overdue:
                command.deadline = min(now + command.timeout, command.latest)
                command.end = max(command.end, command.deadline)
        self._timer = self._clock.callLater(0, self._end_late)

    def _end_late(self) -> None:
        self._timer = None
        now, due = self._clock.seconds(), 0.0
        for command in tuple(self._sent):  # who is told may send again
            if not command.overdue and command.deadline <= now and not self._arriving(command, now):
                self._late(command, now)
            at = command.deadline + (STALLED_SECONDS if command.overdue else 0.0)
            if command.overdue and at <= now:
                self.abort(f"it did not answer for {STALLED_SECONDS:g} s")
                return
            due = min(due or at, at)
        if due:
            self._watch(now, due)

    def _arriving(self, command: PendingCommand, now: float) -> bool:
        """Whether more of its reply has come since its time was last up; then it gets that much time again."""
        if now >= command.end or command is not self._sent[0] or self._arrived <= command.seen:
            return False
        command.seen = self._arrived
        command.deadline = min(now + command.timeout, command.end)
        return True

    def _late(self, command: PendingCommand, now: float) -> None:
        command.overdue = True
        command.deadline = now
        self._overdue += 1
        if not command.answer.called:
            self.timeouts += 1
            command.answer.errback(RedisUnavailable("Redis did not answer in time.", sent=True))


def _said(error: Exception) -> str:
    return str(error)[:200]


def _plain(reply: Any) -> Any:
    """Bytes wherever the server sent text: without hiredis, txredisapi gives a status as str."""
    if isinstance(reply, str):
        return reply.encode()
    if isinstance(reply, list):
        return [_plain(item) for item in reply]
    return reply
