"""Lets the bearer of the management token in, and slows down whoever guesses at it."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request

from llmproxy.errors import MissingToken, TooManyFailures, Unauthorized

LIMIT = 20
WINDOW = 60.0
ADDRESSES = 10_000


class Wrong(Unauthorized):
    message = "This is not the management token."


class Failures:
    """Counts failures per address and minute, for a bounded number of addresses.

    The oldest address is forgotten when the table is full. IPv6 addresses count by their /64, which is what one
    host commands.
    """

    def __init__(
        self, clock: IReactorTime, limit: int = LIMIT, window: float = WINDOW, addresses: int = ADDRESSES
    ) -> None:
        self._clock = clock
        self._limit = limit
        self._window = window
        self._addresses = addresses
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, address: str) -> float:
        """Count one failure; the seconds for which no further one will be heard, 0 while there is no need."""
        key, now = network(address), self._clock.seconds()
        start, count = self._since.get(key, (now, 0))
        if now - start >= self._window:
            self._since.pop(key)
            start, count = now, 0
        self._since[key] = (start, min(count, self._limit) + 1)
        while len(self._since) > self._addresses:
            self._since.popitem(last=False)
        return start + self._window - now if count >= self._limit else 0.0

    def __len__(self) -> int:
        return len(self._since)


class Gate:
    """Admits requests that carry the management token as C{Authorization: Bearer}.

    The token is looked at first: its bearer is never hurt by what others at the same address do. A wrong one is
    answered 401, and 429 once its address has sent L{LIMIT} within a minute.
    """

    def __init__(self, token: str, failures: Failures) -> None:
        if not token:
            raise ValueError("The management token is empty.")
        self._hash = _hash(token.encode())
        self._failures = failures

    def admit(self, request: Request) -> None:
        """Return, or raise L{MissingToken}, L{Wrong} or L{TooManyFailures}."""
        given = bearer(request)
        if given is None:
            raise MissingToken("No management token. Send it as Authorization: Bearer …")
        if hmac.compare_digest(_hash(given), self._hash):
            return
        wait = self._failures.add(address(request))
        if wait:
            raise TooManyFailures(retry_after=wait)
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


def network(address: str) -> str:
    """What an address counts as: itself, or its /64."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


def _hash(token: bytes) -> bytes:
    return sha256(token).digest()
