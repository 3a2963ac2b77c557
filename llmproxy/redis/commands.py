"""Commands and scripts as the server reads them, and why a command has no result."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1

Argument = bytes | str | int | float


def encode(command: Sequence[Argument]) -> bytes:
    """An array of bulk strings (RESP2). Text goes as UTF-8, whatever it holds."""
    out = [b"*%d\r\n" % len(command)]
    for part in command:
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")
        elif not isinstance(part, bytes):
            part = repr(part).encode("ascii")
        out += (b"$%d\r\n" % len(part), part, b"\r\n")
    return b"".join(out)


class Script:
    """Text of a script for C{EVALSHA}.

    @ivar digest: Its SHA-1 in hexadecimal, as Redis computes it.
    """

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.digest = sha1(self.source, usedforsecurity=False).hexdigest().encode()


class RedisUnavailable(Exception):
    """There is no reply that could be used.

    @ivar sent: Whether the command was sent: then it may have been done all the same.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class RedisRefused(RedisUnavailable):
    """The server has answered with an error; C{code} is its first word, such as C{WRONGTYPE}, C{OOM}, C{NOAUTH}."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=True)
        self.code = message.partition(" ")[0]
