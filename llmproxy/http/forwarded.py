"""Whose request it is, where a trusted proxy in front says so."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from llmproxy.base.memo import BoundedMemo
from llmproxy.http.field_lines import FieldLines

Network = IPv4Network | IPv6Network

MAX_CLIENTS = 4096  # that are remembered
MAX_KEPT_BYTES = 128  # of what is said of one that is


@lru_cache(1024)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks as the settings name them."""
    return tuple(ip_network(text, strict=False) for text in texts)


class TrustedProxies:
    """The proxies in front that are believed who the client is.

    C{X-Forwarded-For} is believed only as far as they wrote it: from its end, the first address that is not one of
    theirs is the client's. Whatever stands before that, the client may have made up.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None:
        """
        @param texts: Their addresses and networks, as the settings name them.
        """
        self._networks = networks(tuple(texts))
        self._clients: BoundedMemo[tuple[str, bytes], str] = BoundedMemo(MAX_CLIENTS)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        return is_within(address, self._networks)

    def client(self, remote: str, lines: FieldLines) -> str:
        """The address of the client whose request has these lines.

        @param remote: The address of the peer; it alone counts where it is not trusted.
        """
        if not self._networks:
            return remote
        said = b",".join(lines.values(b"x-forwarded-for"))
        client = self._clients.get((remote, said))
        if client is None:
            client = self._believed(remote, said)
            if len(said) <= MAX_KEPT_BYTES:
                self._clients[remote, said] = client
        return client

    def _believed(self, remote: str, said: bytes) -> str:
        if remote not in self:
            return remote
        found = remote
        for value in reversed(said.split(b",")):
            hop = value.strip(b" \t").decode("ascii", "replace")
            if not _is_address(hop):
                break
            found = hop
            if hop not in self:
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
