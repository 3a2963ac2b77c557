"""Lets the bearer of the management token in, and slows down whoever guesses at it."""

from __future__ import annotations

import hmac
from hashlib import sha256

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request

from llmproxy.errors import MissingToken, Unauthorized
from llmproxy.guessing import Guesses


class Wrong(Unauthorized):
    message = "This is not the management token."


class Gate:
    """Admits requests that carry the management token as C{Authorization: Bearer}.

    The token is looked at first: its bearer is never hurt by what others at the same address do. A wrong one is
    answered 401, and 429 once its address has sent too many.
    """

    def __init__(self, token: str, guesses: Guesses, clock: IReactorTime) -> None:
        if not token:
            raise ValueError("The management token is empty.")
        self._hash = _hash(token.encode())
        self._guesses = guesses
        self._clock = clock

    def admit(self, request: Request) -> None:
        """Return, or raise L{MissingToken}, L{Wrong} or L{TooManyFailures<errors.TooManyFailures>}."""
        given = bearer(request)
        if given is None:
            raise MissingToken("No management token. Send it as Authorization: Bearer …")
        if hmac.compare_digest(_hash(given), self._hash):
            return
        self._guesses.count(address(request), self._clock.seconds())
        raise Wrong


def bearer(request: Request) -> bytes | None:
    """The request's bearer token; C{None} without exactly one C{Authorization: Bearer}."""
    values = request.requestHeaders.getRawHeaders(b"authorization") or []
    scheme, _, token = values[0].strip().partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None


def address(request: Request) -> str:
    """The peer's address as text; C{""} where it has none."""
    remote = getattr(request, "remote", None)
    return str(remote if remote is not None else getattr(request.getClientAddress(), "host", ""))


def _hash(token: bytes) -> bytes:
    return sha256(token).digest()
