"""Slows down whoever guesses at tokens, and hurts nobody who has one."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network

from llmproxy.errors import TooManyFailures

MAX_FAILURES = 20
MAX_SITE_FAILURES = 100  # of all the networks of one IPv6 site
WINDOW_SECONDS = 60.0
MAX_ADDRESSES = 10_000


class FailedAttempts:
    """Counts wrong tokens per address and minute, for a bounded number of addresses.

    Only tokens that turned out to be wrong count: a valid one works whatever others at its address do. The oldest
    address is forgotten when the table is full. An IPv6 address counts by its /64, which is what one host commands, and
    by its /48, which is what one site is given (RFC 6177).
    """

    def __init__(
        self,
        limit: int = MAX_FAILURES,
        window: float = WINDOW_SECONDS,
        addresses: int = MAX_ADDRESSES,
        site_limit: int = MAX_SITE_FAILURES,
    ) -> None:
        self._limits = (limit, site_limit)
        self._window = window
        self._addresses = addresses
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, address: str, now: float) -> None:
        """One more; L{TooManyFailures} says when the next will be heard, where there were too many."""
        wait = self.wait(address, now)
        if wait:
            raise TooManyFailures(retry_after=wait)
        for key in networks(address):
            start, count = self._counted(key, now)
            self._since[key] = (start, count + 1)
        while len(self._since) > self._addresses:
            self._since.popitem(last=False)

    def wait(self, address: str, now: float) -> float:
        """Seconds until the address is heard again; 0 where it is heard now."""
        waits = [0.0]
        for key, limit in zip(networks(address), self._limits, strict=False):
            start, count = self._counted(key, now)
            if count >= limit:
                waits.append(start + self._window - now)
        return max(waits)

    def failures(self, address: str, now: float) -> int:
        """How many there were in this minute, of the address and of its site."""
        return max(self._counted(key, now)[1] for key in networks(address))

    def _counted(self, key: str, now: float) -> tuple[float, int]:
        start, count = self._since.get(key, (now, 0))
        if now - start < self._window:
            return start, count
        del self._since[key]
        return now, 0

    def __len__(self) -> int:
        return len(self._since)


def networks(address: str) -> tuple[str, ...]:
    """What an address counts as: itself; or its /64 and its /48."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return (address,)
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return (str(parsed.ipv4_mapped),)
        number = int(parsed)
        return tuple(str(ip_network((number >> 128 - bits << 128 - bits, bits))) for bits in (64, 48))
    return (str(parsed),)
