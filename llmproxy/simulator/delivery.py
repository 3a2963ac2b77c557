"""Puts a response on the wire: paced, one event a write, and as wrong as the request wanted it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http import HTTPStatus
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.http import datetimeToString

from llmproxy.simulator.channel import Request
from llmproxy.simulator.dialect import Reply
from llmproxy.simulator.steering import BEFORE_HEAD, MID_BODY, Steering

GARBAGE = b"\x16\x03\x01 this is not HTTP\r\n\x00\xff\r\n\r\n"
_SLOW = 0.1


class Delivery:
    """One response on its way. Cancel what C{run} is waiting for when the client is gone."""

    def __init__(
        self, request: Request, reply: Reply, steering: Steering, clock: IReactorTime, event: bytes = b""
    ) -> None:
        """@param event: What C{error-event} says in the middle of a stream."""
        self._request = request
        self._steering = steering
        self._fault = steering.fault
        self._clock = clock
        self._event = event
        self._reply = compressed(reply) if steering.gzip else reply
        self._bare = request.method == b"HEAD" or self._reply.status in (204, 304)
        self._chunked = self._must_chunk()

    async def run(self) -> None:
        """Send it all; the connection may be gone, reset or silent for ever after."""
        await self._sleep(self._steering.first)
        if self._fault in BEFORE_HEAD:
            await self._instead_of_head()
            return
        valve = self._request.begin(self._reply.status)
        await self._send_head()
        for sent, piece in enumerate(() if self._bare else self._pieces()):
            if self._fault in MID_BODY and sent >= self._steering.after:
                break
            await valve.open()
            if sent:
                await self._sleep(self._steering.gap)
            self._request.send(framed(piece) if self._chunked else piece)
            self._request.sent(piece)
        await (self._break_off() if self._fault in MID_BODY else self._end())

    async def _instead_of_head(self) -> None:
        if self._fault == "reset-head":
            self._request.reset()
        elif self._fault == "garbage":
            self._request.begin(0)
            self._request.send(GARBAGE)
            self._request.cut()
        else:
            await Deferred()

    async def _send_head(self) -> None:
        raw = head(self._reply, self._framing(), self._clock.seconds())
        if self._fault != "slow-head":
            self._request.send(raw)
            return
        for line in raw.splitlines(keepends=True):
            self._request.send(line)
            await self._sleep(self._steering.gap or _SLOW)

    async def _break_off(self) -> None:
        await self._sleep(0)
        if self._fault == "stall":
            await Deferred()
        elif self._fault == "reset":
            self._request.reset()
        elif self._fault == "error-event":
            self._request.send(framed(self._event) if self._chunked else self._event)
            await self._end()
        else:
            self._request.cut()

    async def _end(self) -> None:
        if self._fault == "no-terminal-chunk":
            self._request.cut()
            return
        if self._chunked and not self._bare:
            self._request.send(b"0\r\n\r\n")
        self._request.channel.doomed = self._fault == "close-next"
        if self._fault == "close-idle":
            self._request.cut()
        else:
            self._request.end()

    def _pieces(self) -> Iterable[bytes]:
        body = self._reply.body
        if self._steering.split is not None:
            return shredded(self._reply.pieces if body is None else (body,), Random(self._steering.split))
        if body is None:
            return self._reply.pieces
        if self._fault in MID_BODY:
            return _cut(body, 2 * max(self._steering.after, 1))
        return (body,)

    def _must_chunk(self) -> bool:
        known = self._reply.body is not None or self._reply.length is not None
        if self._request.clientproto != b"HTTP/1.1":
            return False
        return not known or self._fault in ("no-terminal-chunk", "error-event")

    def _framing(self) -> list[bytes]:
        """The lines that say where the body ends and whether the connection does."""
        length = self._reply.length if self._reply.body is None else len(self._reply.body)
        stays = self._request.channel.persistent
        lines = [] if stays else [b"Connection: close"]
        if self._fault == "bad-length":
            return [*lines, b"Content-Length: -1"]
        if self._fault == "double-length":
            return [*lines, b"Content-Length: %d" % (length or 0), b"Content-Length: %d" % ((length or 0) + 1)]
        if self._chunked:
            return [*lines, b"Transfer-Encoding: chunked"]
        if length is None or self._reply.status in (204, 304):
            return lines
        return [*lines, b"Content-Length: %d" % length]

    def _sleep(self, seconds: float) -> Deferred[None]:
        """Even no time is one reactor turn, so that what was written before leaves by itself."""
        return deferLater(self._clock, seconds, lambda: None)


def head(reply: Reply, framing: list[bytes], now: float) -> bytes:
    """Status line and fields, up to and with the empty line."""
    lines = [
        b"HTTP/1.1 %d %b" % (reply.status, reply.phrase if reply.phrase is not None else phrase(reply.status)),
        b"Date: " + datetimeToString(now),
        b"Server: llmproxy-simulator",
        *([b"Content-Type: " + reply.content_type.encode("latin-1")] if reply.content_type else []),
        *reply.lines,
        *framing,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def phrase(status: int) -> bytes:
    """The reason that usually goes with a status; providers' own get one too."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Overloaded" if status == 529 else b"Unknown"


def framed(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def compressed(reply: Reply) -> Reply:
    """The same response with C{Content-Encoding: gzip}, each event flushed by itself; the same bytes every time."""
    lines = (*reply.lines, b"Content-Encoding: gzip", b"Vary: Accept-Encoding")
    if reply.body is not None:
        return replace(reply, body=gzip.compress(reply.body, 6, mtime=0), lines=lines)
    return replace(reply, pieces=_gzipped(reply.pieces), length=None, lines=lines)


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    for piece in pieces:
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def shredded(pieces: Iterable[bytes], random: Random) -> Iterator[bytes]:
    """The same bytes, in pieces that end anywhere."""
    held = b""
    for piece in pieces:
        held += piece
        while len(held) > (size := random.choice((1, 2, 3, 7, 50, 400))):
            yield held[:size]
            held = held[size:]
    if held:
        yield held


def _cut(body: bytes, parts: int) -> Iterator[bytes]:
    """A body in so many pieces, none of them empty."""
    size = max(-(-len(body) // parts), 1)
    return (body[at : at + size] for at in range(0, len(body), size))
