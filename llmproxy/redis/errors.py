"""Why a command has no result. Never becomes HTTP: whoever asks Redis can go on without it."""

from __future__ import annotations


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
