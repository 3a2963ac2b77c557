"""Whose request it is, where a trusted proxy in front says so."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from llmproxy.http import fields

Network = IPv4Network | IPv6Network


@lru_cache(1024)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks as the settings name them."""
    return tuple(ip_network(text, strict=False) for text in texts)


def client_address(remote: str, lines: Sequence[bytes], trusted: tuple[Network, ...]) -> str:
    """The address of the client.

    C{X-Forwarded-For} is believed only as far as trusted proxies wrote it: from its end, the first address that is not
    one of theirs is the client's. Whatever stands before that, the client may have made up.

    @param remote: The address of the peer; it alone counts where it is not trusted.
    """
    if not trusted or not is_within(remote, trusted):
        return remote
    found = remote
    for value in reversed(b",".join(fields.values(lines, b"x-forwarded-for")).split(b",")):
        hop = value.strip(b" \t").decode("ascii", "replace")
        if not _is_address(hop):
            break
        found = hop
        if not is_within(hop, trusted):
            break
    return found


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(4096)
def is_within(address: str, of: tuple[Network, ...]) -> bool:
    """Whether the address is in one of the networks; what is no address is in none."""
    try:
        parsed = ip_address(address)
    except ValueError:  # a UNIX socket has no address
        return False
    return any(parsed in network for network in of)
