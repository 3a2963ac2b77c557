"""Asks a Resource as a client would, in memory and at once: through Twisted's own Site, or through ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Site

from llmproxy.wire.server import site as wire

Serve = Callable[[IResource], Site]


def stock(resource: IResource) -> Site:
    """Twisted's own site."""
    return Site(resource, reactor=Clock(), timeout=None)


def ours(resource: IResource) -> Site:
    """The site that the daemon serves."""
    return wire.Site(resource, reactor=Clock(), peer_closed=lambda *_: False)


@dataclass(frozen=True)
class Reply:
    """What came back: an answer, or nothing yet (C{code} is 0)."""

    code: int
    fields: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The one field of this name."""
        (value,) = [value for given, value in self.fields if given == name.lower()]
        return value

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Conversation:
    """One connection, with one request on it."""

    def __init__(self, resource: IResource, request: bytes, address: str = "192.0.2.1", site: Serve = stock) -> None:
        peer: IAddress = IPv4Address("TCP", address, 4711)
        self.transport = Transport(peer)
        self.channel = site(resource).buildProtocol(peer)
        self.channel.makeConnection(self.transport)
        self.channel.dataReceived(request)

    def leave(self) -> None:
        """The client goes away."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def reply(self) -> Reply:
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        if not head:
            return Reply(0, [], b"")
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]
        return Reply(int(status.split(" ")[1]), fields, body)


class Transport(StringTransport):
    """Can be cut, and remembers it."""

    aborted = False

    def __init__(self, peer: IAddress) -> None:
        super().__init__(peerAddress=peer)

    def abortConnection(self) -> None:
        self.aborted = True


def request(method: str, path: str, body: object = None, fields: Mapping[str, str] | None = None) -> bytes:
    """A request in bytes; C{body} as it is, or as JSON."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = {"Host": "proxy.test", **({"Content-Length": str(len(data))} if data else {}), **(fields or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data


def ask(
    resource: IResource,
    method: str,
    path: str,
    body: object = None,
    fields: Mapping[str, str] | None = None,
    address: str = "192.0.2.1",
    site: Serve = stock,
) -> Reply:
    """Send one request; the answer, as far as it has come at once."""
    return Conversation(resource, request(method, path, body, fields), address, site).reply()
