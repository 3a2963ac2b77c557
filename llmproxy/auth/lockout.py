"""Slows down whoever guesses at tokens, and hurts nobody who has one."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network

from llmproxy.errors import TooManyFailures

LIMIT = 20
WINDOW = 60.0
ADDRESSES = 10_000


class Guesses:
    """Counts wrong tokens per address and minute, for a bounded number of addresses.

    Only for what was found to be wrong: who looks at the token first never hurts its bearer, whatever others at the
    same address do. The oldest address is forgotten when the table is full. IPv6 addresses count by their /64, which is
    what one host commands.
    """

    def __init__(self, limit: int = LIMIT, window: float = WINDOW, addresses: int = ADDRESSES) -> None:
        self._limit = limit
        self._window = window
        self._addresses = addresses
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, address: str, now: float) -> None:
        """One more; L{TooManyFailures} says when the next will be heard, where there were too many."""
        key = network(address)
        start, count = self._since.get(key, (now, 0))
        if now - start >= self._window:
            self._since.pop(key)
            start, count = now, 0
        self._since[key] = (start, min(count, self._limit) + 1)
        while len(self._since) > self._addresses:
            self._since.popitem(last=False)
        if count >= self._limit:
            raise TooManyFailures(retry_after=start + self._window - now)

    def __len__(self) -> int:
        return len(self._since)


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
