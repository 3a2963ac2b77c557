"""Asks a Resource as a client would, in memory and at once: through Twisted's own Site, or through ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Site

from llmproxy.wire.server import site as wire
from tests.support.responses import Response, parse_response

Serve = Callable[[IResource], Site]


def stock(resource: IResource) -> Site:
    """Twisted's own site."""
    return Site(resource, reactor=Clock(), timeout=None)


def ours(resource: IResource) -> Site:
    """The site that the daemon serves."""
    return wire.Site(resource, reactor=Clock(), peer_closed=lambda *_: False)


class Conversation:
    """One connection, with one request on it."""

    def __init__(self, resource: IResource, request: bytes, address: str = "192.0.2.1", site: Serve = stock) -> None:
        self._method = request.partition(b" ")[0].decode()
        peer: IAddress = IPv4Address("TCP", address, 4711)
        self.transport = Transport(peer)
        self.channel = site(resource).buildProtocol(peer)
        self.channel.makeConnection(self.transport)
        self.channel.dataReceived(request)

    def leave(self) -> None:
        """The client goes away."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def response(self) -> Response:
        """What has come back; a L{Response} without a status while that is nothing."""
        data = self.transport.value()
        return parse_response(data, self._method) if data else Response()


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
) -> Response:
    """Send one request; the answer, as far as it has come at once."""
    return Conversation(resource, request(method, path, body, fields), address, site).response()
