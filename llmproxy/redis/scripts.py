"""A Lua script, and the name by which a server that has seen it knows it."""

from __future__ import annotations

from hashlib import sha1


class Script:
    """Text of a script for C{EVALSHA}.

    @ivar digest: Its SHA-1 in hexadecimal, as Redis computes it.
    """

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.digest = sha1(self.source, usedforsecurity=False).hexdigest().encode()
