"""Lets the bearer of the management token in, and slows down whoever guesses at it."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request

from llmproxy.auth.lockout import FailedAttempts
from llmproxy.errors import MissingToken, Unauthorized
from llmproxy.http.forwarded import client_address, networks


class InvalidManagementToken(Unauthorized):
    message = "This is not the management token."


class ManagementAuth:
    """Admits requests that carry the management token as C{Authorization: Bearer}.

    The token is looked at first: its bearer is never hurt by what others at the same address do. A wrong one is
    answered 401, and 429 once its address has sent too many.

    @param trusted_proxies: Addresses and networks whose C{X-Forwarded-For} is believed.
    """

    def __init__(
        self, token: str, failed_attempts: FailedAttempts, clock: IReactorTime, trusted_proxies: Sequence[str] = ()
    ) -> None:
        if not token:
            raise ValueError("The management token is empty.")
        self._hash = _hash(token.encode())
        self._failed_attempts = failed_attempts
        self._clock = clock
        self._trusted = networks(tuple(trusted_proxies))

    def admit(self, request: Request) -> None:
        """Return, or raise L{MissingToken}, L{InvalidManagementToken} or L{TooManyFailures<errors.TooManyFailures>}."""
        given = bearer(request)
        if given is None:
            raise MissingToken("No management token. Send it as Authorization: Bearer …")
        if hmac.compare_digest(_hash(given), self._hash):
            return
        self._failed_attempts.count(self.client(request), self._clock.seconds())
        raise InvalidManagementToken

    def client(self, request: Request) -> str:
        """The client's address as text, as far as trusted proxies tell it; C{""} where it has none."""
        forwarded = request.requestHeaders.getRawHeaders(b"x-forwarded-for") or []
        return client_address(_peer(request), [b"x-forwarded-for: " + value for value in forwarded], self._trusted)


def bearer(request: Request) -> bytes | None:
    """The request's bearer token; C{None} without exactly one C{Authorization: Bearer}."""
    values = request.requestHeaders.getRawHeaders(b"authorization") or []
    scheme, _, token = values[0].strip().partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None


def _peer(request: Request) -> str:
    remote = getattr(request, "remote", None)
    return str(remote if remote is not None else getattr(request.getClientAddress(), "host", ""))


def _hash(token: bytes) -> bytes:
    return sha256(token).digest()
